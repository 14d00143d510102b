"""A server that is drained or killed in the middle: the caller of `visualize` does not notice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

import neurofv
from neurofv.v1 import visualization_service_pb2 as vis
from tests.client.running import MODEL, Restarted

CHOICES: dict[str, Any] = {
    "class_name": "cube",
    "canvas_mm": 64,
    "steps": 60,
    "snapshot_every": 10,
    "seed": 5,
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restarted]:
    restarted = Restarted(tmp_path_factory.mktemp("data"))
    yield restarted
    assert restarted.server.stop() == 0


@pytest.fixture(scope="module")
def uninterrupted(running: Restarted) -> neurofv.Visualization:
    with neurofv.Client(running.target) as client:
        return client.visualize(MODEL, **CHOICES)


class Followed:
    """Notes events, and does something at a step."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self.steps: list[int] = []
        self.attempts: list[int] = []
        self._step, self._act = step, act
        self.acted: Future[None] | None = None
        self._pool = ThreadPoolExecutor(1)

    def __call__(self, event: neurofv.Event) -> None:
        if isinstance(event, vis.Progress):
            self.steps.append(event.step)
            if event.step == self._step:
                self.acted = self._pool.submit(self._act)
        if isinstance(event, vis.StateChanged) and event.state == vis.JOB_STATE_RUNNING:
            self.attempts.append(event.attempt)


def check(result: neurofv.Visualization, expected: neurofv.Visualization, followed: Followed) -> None:
    assert followed.acted is not None
    followed.acted.result(120)
    assert followed.steps == list(range(1, 61))
    assert result.volume.bytes == expected.volume.bytes
    assert result.extras["gradient"].bytes == expected.extras["gradient"].bytes
    digests = {snapshot.step: snapshot.sha256 for snapshot in expected.snapshots}
    assert all(digests[snapshot.step] == snapshot.sha256 for snapshot in result.snapshots)


@pytest.mark.parametrize(("how", "step"), [("drain", 25), ("kill", 2), ("kill", 25)])
def test_visualize_outlives_the_server(
    running: Restarted, uninterrupted: neurofv.Visualization, how: str, step: int
) -> None:
    followed = Followed(step, getattr(running, how))
    with neurofv.Client(running.target) as client:
        result = client.visualize(MODEL, on_event=followed, **CHOICES)
    check(result, uninterrupted, followed)
    # Being drained is no failed attempt.
    assert followed.attempts == ([1, 2] if how == "kill" else [1, 1])


def test_the_other_client_outlives_the_server(
    running: Restarted, uninterrupted: neurofv.Visualization
) -> None:
    followed = Followed(20, running.kill)

    async def main() -> neurofv.Visualization:
        async with neurofv.AsyncClient(running.target) as client:
            return await client.visualize(MODEL, on_event=followed, **CHOICES)

    check(asyncio.run(main()), uninterrupted, followed)


def test_a_job_outlives_its_watcher_and_the_server(
    running: Restarted, uninterrupted: neurofv.Visualization
) -> None:
    with neurofv.Client(running.target) as client:
        job = client.create_job(MODEL, **CHOICES)
        stream = client.stream_job(job.name)
        newest = [next(stream).sequence for _ in range(10)][-1]
        stream.close()
    running.kill()
    with neurofv.Client(running.target) as client:
        result = client.watch(job.name, newest - 1)
        assert result.volume.bytes == uninterrupted.volume.bytes
        assert client.create_job(MODEL, request_id="after", **CHOICES).name != job.name


def test_who_calls_before_the_server_is_back_waits(running: Restarted) -> None:
    """Only of streams: a short call is repeated for about a second."""
    begun = threading.Event()

    def visualize() -> neurofv.Visualization:
        with neurofv.Client(running.target) as client:
            begun.set()
            return client.visualize(MODEL, **(CHOICES | {"steps": 2}))

    assert running.server.stop() == 0
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(visualize)
        begun.wait()
        running.start()
        assert result.result(120).volume.final
