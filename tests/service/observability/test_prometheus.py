"""The alert rules and the dashboard, in a real Prometheus that scrapes a real server."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from neurofv.v1 import model_service_pb2
from service.observability.metrics import Metrics
from tests.server import RunningServer
from tests.service.observability.tools import (
    CONFIG,
    RULE_TESTS,
    RULES,
    Prometheus,
    expressions,
    names,
    promtool,
)
from tests.service.requests import CUBE, SMALL, request

HOW_TO = Path(__file__).parents[3] / "docs" / "how-to" / "watch-the-service.md"
# What a machine without a GPU, and jobs that all succeed, have nothing to say to.
SILENT = {"GPU memory", "GPU use", "Failures by reason", "Firing alerts", "Starts"}
_SUFFIXES = {
    "counter": ("_total", "_created"),
    "histogram": ("_bucket", "_sum", "_count"),
    "info": ("_info",),
}


@pytest.fixture(scope="module")
def prometheus(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has seen the server before, between and after two jobs."""
    running = Prometheus(tmp_path_factory.mktemp("prometheus"), server.http_port)
    try:
        for _ in range(2):
            done = 'sum(neurofv_jobs_finished_total{state="SUCCEEDED"}) or vector(0)'
            running.wait_for('up{job="neurofv"} == 1')
            before = running.query(done)[0]["value"][1]
            server.models.ListModels(model_service_pb2.ListModelsRequest(), timeout=60)
            urlopen(f"http://127.0.0.1:{server.http_port}/ui/api/models", timeout=60).close()
            list(
                server.visualization.Visualize(
                    request(CUBE, SMALL, "steps: 4 snapshot_every: 2"), timeout=240
                )
            )
            running.wait_for(f"{done.replace(' or vector(0)', '')} > {before}")
        # The last scrape before a question must have its second sample.
        running.wait_for("min(count_over_time(neurofv_jobs_finished_total[1m])) >= 3")
        yield running
    finally:
        running.stop()


def test_promtool_accepts_the_rules_and_the_configuration() -> None:
    assert "SUCCESS" in promtool("check", "rules", RULES)
    assert "SUCCESS" in promtool("check", "config", CONFIG)


def test_every_alert_fires_and_keeps_silent_when_it_should() -> None:
    assert "SUCCESS" in promtool("test", "rules", RULE_TESTS)
    text = RULE_TESTS.read_text()
    for alert in _alerts():
        silent = rf"alertname: {alert}, eval_time: \w+, exp_alerts: \[\]"
        fires = rf"alertname: {alert}\n +eval_time: \w+\n +exp_alerts:\n +- exp_labels:"
        # Once in the healthy hour, once before the fault.
        assert len(re.findall(silent, text)) >= 2, f"no test that {alert} keeps silent"
        assert re.search(fires, text), f"no test that {alert} fires"


def test_the_how_to_says_what_to_do_about_each_alert() -> None:
    text = HOW_TO.read_text()
    assert set(re.findall(r"`(Neurofv\w+)`", text)) == set(_alerts())


def _alerts() -> list[str]:
    return re.findall(r"alert: (\w+)", RULES.read_text())


def test_the_metrics_page_is_as_prometheus_wants_it(server: RunningServer) -> None:
    assert promtool("check", "metrics", text=server.get("/metrics")[1]) == ""


def test_prometheus_takes_up_the_server_and_every_rule(prometheus: Prometheus) -> None:
    (target,) = prometheus.ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == set(_alerts())
    for rule in rules:
        assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule
        prometheus.query(rule["query"])


def test_every_panel_shows_something(prometheus: Prometheus) -> None:
    empty = {title for title, expression in expressions() if not prometheus.query(expression)}
    assert empty <= SILENT


def test_panels_show_what_the_jobs_did(prometheus: Prometheus) -> None:
    for title in ("Succeeded", "Jobs by state", "Steps per second", "Time of a step", "Bytes sent"):
        for expression in (expression for name, expression in expressions() if name == title):
            values = [float(series["value"][1]) for series in prometheus.query(expression)]
            assert max(values) > 0, (title, expression)
    (series,) = prometheus.query("neurofv_build_info")
    assert {"version", "revision", "torch"} <= set(series["metric"])
    assert [series["value"][1] for series in prometheus.query("neurofv_ready")] == ["1"]


def test_every_metric_that_is_named_exists(prometheus: Prometheus) -> None:
    known = {"up", "ALERTS"}
    for family in Metrics({}).registry.collect():
        known |= {family.name + suffix for suffix in _SUFFIXES.get(family.type, ("",))}
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    for where, expression in [*expressions(), *((rule["name"], rule["query"]) for rule in rules)]:
        assert names(expression) - known == set(), where
        assert names(expression), where


def test_names_are_found_in_expressions() -> None:
    text = 'sum by (le, x) (rate(a_total{b="c", d=~"e"}[5m])) / on (f) g:h offset 5m and i > 1e9 # j'
    assert names(text) == {"a_total", "g:h", "i"}


def test_the_dashboard_shows_every_metric() -> None:
    shown = set().union(*(names(expression) for _, expression in expressions()))
    for family in Metrics({}).registry.collect():
        if family.name.startswith(("neurofv", "grpc")):
            of_it = {family.name + suffix for suffix in _SUFFIXES.get(family.type, ("",))}
            assert of_it & shown, f"no panel shows {family.name}"
