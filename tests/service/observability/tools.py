"""Prometheus' own programs, and what they say."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
RULE_TESTS = DEPLOY / "prometheus" / "alerts_test.yml"
CONFIG = DEPLOY / "prometheus" / "prometheus.yml"
START_SECONDS = 60


def program(name: str) -> str:
    """Return where a program is; without it the test is skipped, in CI it fails."""
    found = shutil.which(name)
    if found is None:
        lack = f"there is no {name} on this machine; install Debian's package prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(lack)
        pytest.skip(lack)
    return found


def promtool(*arguments: object, text: str | None = None) -> str:
    """Run promtool and return what it says; what it refuses fails the test."""
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


class Prometheus:
    """A real Prometheus that scrapes a server every second, by the shipped configuration and rules."""

    def __init__(self, folder: Path, http_port: int) -> None:
        shutil.copy(RULES, folder)
        config = CONFIG.read_text()
        assert "localhost:8002" in config
        config = config.replace("localhost:8002", f"127.0.0.1:{http_port}").replace(": 15s", ": 1s")
        (folder / "prometheus.yml").write_text(config)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{free.getsockname()[1]}"
        self._log = (folder / "log").open("w+")
        self._process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self._address}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def ask(self, path: str, **parameters: str) -> dict:
        """Ask the HTTP API; a question that it refuses fails the test."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refusal:
            raise AssertionError(f"{parameters}: {refusal.read().decode()}") from None

    def query(self, expression: str) -> list[dict]:
        """Evaluate an expression now; return its series."""
        return self.ask("query", query=expression)["result"]

    def wait_for(self, expression: str, seconds: float = 30) -> None:
        """Wait until an expression returns a series."""
        end = time.monotonic() + seconds
        while not self.query(expression):
            assert time.monotonic() < end, f"{expression} returns nothing"
            time.sleep(0.2)

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait(30)
        self._log.close()

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=5).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"Prometheus does not start: {Path(self._log.name).read_text()[-2000:]}")


_WORDS = {
    "and",
    "or",
    "unless",
    "offset",
    "bool",
    "by",
    "on",
    "without",
    "ignoring",
    "group_left",
    "group_right",
}


def names(expression: str) -> set[str]:
    """Return the metrics that a PromQL expression names."""
    rest = re.sub(r'"(\\.|[^"\\])*"', "", expression)
    rest = re.sub(r"\{[^}]*\}|\[[^\]]*\]|#.*", " ", rest)
    rest = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", rest)
    found = re.findall(r"(?<![\w:])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])", rest)
    return set(found) - _WORDS


def dashboard() -> dict:
    """Return the dashboard."""
    return json.loads((DEPLOY / "grafana" / "dashboards" / "neurofv.json").read_text())


def panels() -> list[dict]:
    """Return the dashboard's panels, those within rows too."""
    return [inner for panel in dashboard()["panels"] for inner in [panel, *panel.get("panels", [])]]


def expressions() -> list[tuple[str, str]]:
    """Return every panel's title and expressions, as Grafana sends them."""
    found = [(panel["title"], target["expr"]) for panel in panels() for target in panel.get("targets", [])]
    found += [(note["name"], note["expr"]) for note in dashboard()["annotations"]["list"]]
    values = {"$__rate_interval": "1m", "$__range": "1h", "$instance": ".*", "$model": ".*"}
    for name, value in values.items():
        found = [(title, expression.replace(name, value)) for title, expression in found]
    return found
