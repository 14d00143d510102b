"""Cancels, stalled readers, load and tiny jobs at a small size, and the goals beside the figures."""

import json

import pytest

from benchmarks.facts import README, RESULTS, into_readme
from benchmarks.reliability import cancel, goals, load, soak
from benchmarks.reliability.report import table


def test_a_cancel_takes_one_step_and_a_stalled_reader_little() -> None:
    found = cancel.measure(cancels=3, snapshots=48)
    assert found["by_cancel_job"]["steps_after_most"] <= 1
    assert found["by_leaving"]["steps_after_most"] <= 1
    assert found["stalled_readers"]["stream_mib"] > 20
    assert found["stalled_readers"]["each_mib"] <= 16


def test_many_watch_and_wait() -> None:
    found = load.measure(watchers=20, queued=30, calls=100)
    assert found["watchers"] == 20
    assert found["queued"] == 30
    assert found["events_heard"] > 20
    assert found["with_a_crowd_at_the_running_job"]["watchers"] >= 20


def test_tiny_jobs_leave_nothing() -> None:
    found = soak._run(150, 60, module="benchmarks.reliability.quick")
    assert found["jobs"] == 150
    assert found["leaked"] == []


def test_a_missed_goal_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    assert not goals.show({"load": {"watchers": 3, "queued": 2000, "get_job": {"n": 2000, "p99_ms": 1.0}}})
    assert "MISSED" in capsys.readouterr().out


def test_the_readme_says_what_was_measured() -> None:
    figures = json.loads((RESULTS / "reliability.json").read_text())
    page = README.read_text()
    assert into_readme(page, "reliability", table(figures)) == page


def test_the_figures_are_those_that_goals_are_set_for() -> None:
    figures = json.loads((RESULTS / "reliability.json").read_text())
    for goal in goals.GOALS:
        if goal.part in figures:
            goal.value(figures)
