"""The server and its worker as processes: killed, drained, misconfigured."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from models import ZOO
from tests.server import RunningServer
from tests.service.requests import CUBE, SMALL, Stream, failure, request

LONG = request(CUBE, SMALL, "steps: 5000 snapshot_every: 0")
SHORT = request(CUBE, SMALL, "steps: 2")


@pytest.fixture
def own_server() -> Iterator[RunningServer]:
    """A server that a test may kill."""
    running = RunningServer(ZOO, queue_length=1, grace_seconds=0.2)
    yield running
    running.process.kill()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def _ended(pid: int, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while _alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not _alive(pid)


def test_a_killed_worker_costs_one_job(own_server: RunningServer) -> None:
    call = own_server.visualization.Visualize(LONG, timeout=120)
    next(event for event in call if event.progress.step == 2)
    (worker,) = own_server.workers()
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert failure(caught.value)[:2] == (grpc.StatusCode.UNAVAILABLE, "WORKER_LOST")
    assert Stream(list(own_server.visualization.Visualize(SHORT, timeout=120))).kinds()[-1] == "completed"
    assert own_server.workers() != [worker]


def test_a_full_queue_refuses_and_says_when_to_come_back(own_server: RunningServer) -> None:
    running = own_server.visualization.Visualize(LONG, timeout=120)
    next(event for event in running if event.progress.step == 1)
    waiting = own_server.visualization.Visualize(LONG, timeout=120)
    next(waiting)
    with pytest.raises(grpc.RpcError) as caught:
        list(own_server.visualization.Visualize(LONG, timeout=120))
    assert failure(caught.value) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", {"limit": "1"})
    assert "RetryInfo" in str(dict(caught.value.trailing_metadata()))


def test_sigterm_drains_and_ends_with_zero(own_server: RunningServer) -> None:
    running = own_server.visualization.Visualize(LONG, timeout=120)
    next(event for event in running if event.progress.step == 1)
    waiting = own_server.visualization.Visualize(LONG, timeout=120)
    next(waiting)
    workers = own_server.workers()
    assert own_server.stop() == 0
    for call in (running, waiting):
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert failure(caught.value)[:2] == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    assert all(_ended(worker) for worker in workers)


def test_the_worker_ends_with_a_killed_server(own_server: RunningServer) -> None:
    (worker,) = own_server.workers()
    own_server.process.kill()
    assert _ended(worker)


def test_the_worker_starts_before_the_server_says_serving(own_server: RunningServer) -> None:
    assert own_server.check() == health_pb2.HealthCheckResponse.SERVING
    assert own_server.check("model/lesion-shapes") == health_pb2.HealthCheckResponse.SERVING
    assert len(own_server.workers()) == 1


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"NEUROFV_PORT": "99999"}, "port"),
        ({"NEUROFV_DEVICE": "tpu"}, "device"),
        ({"NEUROFV_CONFIG": "no/such/file.toml"}, "NEUROFV_CONFIG"),
        ({"NEUROFV_REPOSITORY": "no/such/folder"}, "repository"),
        ({"NEUROFV_HOST": "192.0.2.1"}, "NEUROFV_HOST"),
        ({"NEUROFV_HTTP_HOST": "192.0.2.1"}, "NEUROFV_HTTP_HOST"),
    ],
)
def test_bad_settings_end_the_server_with_a_reason(variables: dict[str, str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        env=os.environ | {"NEUROFV_PORT": "0", "NEUROFV_HTTP_PORT": "0"} | variables,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
