"""How soon GetJob answers while the device is busy, many callers watch and many jobs wait."""

import multiprocessing
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Event

import grpc
from rich.progress import track

from benchmarks.facts import summary
from benchmarks.reliability.site import Site, site
from models import ZOO
from neurofv.v1 import job_service_pb2 as jobs
from neurofv.v1 import job_service_pb2_grpc
from tests.service.requests import request

_UNIT = 'objective {{ terms {{ channel {{ layer: "blocks.1.conv" channel: {} }} }} }} snapshot_every: 16'
# Each watches a job of its own; then once more with so many at the one that runs, who get every step and
# every snapshot that they keep up with.
_CROWD = 0.1
_AT_ONCE = 8


def measure(watchers: int = 200, queued: int = 2000, calls: int = 4000) -> dict[str, object]:
    """Let so many watch and wait, and return how long GetJob takes.

    Parameters
    ----------
    watchers, queued : int
        Open streams, and jobs behind the one that runs.
    calls : int
        To time, one after the other.
    """
    with site(repository=ZOO) as place:
        stub = place.server.jobs

        def create(steps: int, channel: int = 0) -> str:
            asked = request(_UNIT.format(channel), f"steps: {steps}")
            return stub.CreateJob(jobs.CreateJobRequest(request=asked), timeout=60).job.name

        busy = create(10_000)
        with ThreadPoolExecutor(_AT_ONCE) as callers:
            created = callers.map(lambda number: create(4, number % 16), range(queued))
            names = list(track(created, "jobs that wait", total=queued))
        own = _timed(place, busy, names, [busy, *names[: watchers - 1]], calls)
        crowd = int(watchers * _CROWD)
        crowded = _timed(place, busy, names, [busy] * crowd + names[: watchers - crowd], calls)
        place.kill()
        return {"queued": len(names), **own, "with_a_crowd_at_the_running_job": {"crowd": crowd, **crowded}}


def _timed(place: Site, busy: str, names: list[str], watched: list[str], calls: int) -> dict[str, object]:
    """Time GetJob on any of the jobs while some of them are watched."""
    stub, chance = place.server.jobs, random.Random(0)
    with _Audience(place.server.target, watched) as audience:
        open_streams = int(place.server.metric("neurofv_watchers"))
        steps, begun, times = _step(stub, busy), time.monotonic(), []
        for _ in track(range(calls), "GetJob"):
            name = busy if chance.random() < 0.1 else chance.choice(names)
            clock = time.perf_counter()
            stub.GetJob(jobs.GetJobRequest(name=name), timeout=60)
            times.append(time.perf_counter() - clock)
        seconds = time.monotonic() - begun
        return {
            "watchers": open_streams,
            "get_job": summary(times),
            "steps_a_second_meanwhile": round((_step(stub, busy) - steps) / seconds, 1),
            "events_heard": audience.events(),
        }


def _step(stub: job_service_pb2_grpc.JobServiceStub, name: str) -> int:
    return int(stub.GetJob(jobs.GetJobRequest(name=name), timeout=60).job.step)


class _Audience:
    """Many watchers in a process of their own, so that their work does not delay who measures."""

    def __init__(self, target: str, names: list[str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._ready, self._count = context.Event(), context.Value("q", 0)
        arguments = (target, names, self._ready, self._count)
        self._process = context.Process(target=_watch, args=arguments, daemon=True)

    def __enter__(self) -> "_Audience":
        self._process.start()
        assert self._ready.wait(120)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def events(self) -> int:
        """Return how many events all have heard."""
        return int(self._count.value)


def _watch(
    target: str, names: list[str], ready: Event, count: "multiprocessing.sharedctypes.Synchronized[int]"
) -> None:
    """Watch every job in a thread of its own until killed."""
    channel = grpc.insecure_channel(target)
    stub = job_service_pb2_grpc.JobServiceStub(channel)
    begun = threading.Semaphore(0)

    def follow(name: str) -> None:
        for number, _ in enumerate(stub.WatchJob(jobs.WatchJobRequest(name=name))):
            if number == 0:
                begun.release()
            with count.get_lock():
                count.value += 1

    for name in names:
        threading.Thread(target=follow, args=(name,), daemon=True).start()
    for _ in names:
        begun.acquire()
    ready.set()
    threading.Event().wait()
