"""How soon a cancelled optimizer stops, and what a reader costs who does not read."""

import random
import time
from collections.abc import Callable

import grpc
from rich.progress import track

from benchmarks.facts import summary
from benchmarks.reliability import processes
from benchmarks.reliability.site import Site, site
from models import ZOO
from neurofv.v1 import job_service_pb2 as jobs
from neurofv.v1 import job_service_pb2_grpc
from neurofv.v1 import visualization_service_pb2 as vis
from tests.service.requests import CUBE, SMALL, request

_LONG = request(CUBE, SMALL, "steps: 5000 snapshot_every: 0")
_READERS = (1, 8, 16)


def measure(cancels: int = 100, snapshots: int = 96) -> dict[str, object]:
    """Cancel jobs in both ways, and open streams that nobody reads.

    Parameters
    ----------
    cancels : int
        In each way.
    snapshots : int
        Volumes of the job whose streams stall.
    """
    with site(repository=ZOO) as place:
        return {
            "by_cancel_job": _cancels(place, cancels, _by_cancel_job),
            "by_leaving": _cancels(place, cancels, _by_leaving),
            "stalled_readers": _stalled(place, snapshots),
        }


def _cancels(place: Site, count: int, way: Callable[[Site, int], str]) -> dict[str, object]:
    """Cancel jobs at steps of chance; by the server's own record, how long and how many steps it took."""
    chance = random.Random(1)
    seconds, steps = [], []
    for _ in track(range(count), way.__name__.strip("_").replace("_", " ")):
        name = way(place, chance.randrange(2, 12))
        wished, stopped, after = 0.0, 0.0, 0
        for answer in place.server.jobs.WatchJob(jobs.WatchJobRequest(name=name), timeout=60):
            event = answer.event
            if event.state_changed.state == vis.JOB_STATE_CANCELLING:
                wished = event.time.ToNanoseconds() / 1e9
            elif event.state_changed.state == vis.JOB_STATE_CANCELLED:
                stopped = event.time.ToNanoseconds() / 1e9
            elif event.HasField("progress") and wished:
                after += 1
        seconds.append(stopped - wished)
        steps.append(after)
    return {**summary(seconds), "steps_after_most": max(steps), "steps_after_mean": sum(steps) / len(steps)}


def _by_cancel_job(place: Site, step: int) -> str:
    stub = place.server.jobs
    name = stub.CreateJob(jobs.CreateJobRequest(request=_LONG), timeout=60).job.name
    call = stub.WatchJob(jobs.WatchJobRequest(name=name), timeout=60)
    next(answer for answer in call if answer.event.progress.step >= step)
    stub.CancelJob(jobs.CancelJobRequest(name=name), timeout=60)
    return name


def _by_leaving(place: Site, step: int) -> str:
    call = place.server.visualization.Visualize(_LONG, timeout=60)
    name = next(call).accepted.job
    next(event for event in call if event.progress.step >= step)
    call.cancel()
    return name


def _stalled(place: Site, snapshots: int) -> dict[str, object]:
    """Open streams of large volumes, read one event of each, and see what the server holds for them."""
    stub = place.server.jobs
    wanted = request(CUBE, SMALL, f"steps: {snapshots} snapshot_every: 1")
    name = stub.CreateJob(jobs.CreateJobRequest(request=wanted), timeout=60).job.name
    for _ in stub.WatchJob(jobs.WatchJobRequest(name=name), timeout=600):
        pass
    # Read once by somebody quick, so that the stream's own needs are no growth.
    whole = 0
    for answer in stub.WatchJob(jobs.WatchJobRequest(name=name), timeout=600):
        whole += answer.event.volume_begin.bytes
    before = processes.rss_mib(place.pid)
    grown: dict[str, float] = {}
    calls = []
    for readers in _READERS:
        while len(calls) < readers:
            # A connection of its own: readers elsewhere share none.
            options = (("grpc.use_local_subchannel_pool", 1),)
            channel = grpc.insecure_channel(place.server.target, options=options)
            call = job_service_pb2_grpc.JobServiceStub(channel).WatchJob(jobs.WatchJobRequest(name=name))
            next(call)
            calls.append((channel, call))
        time.sleep(2)
        grown[str(readers)] = round(processes.rss_mib(place.pid) - before, 1)
    for channel, call in calls:
        call.cancel()
        channel.close()
    each = max(mib / int(readers) for readers, mib in grown.items())
    return {"stream_mib": round(whole / 2**20, 1), "growth_mib": grown, "each_mib": round(each, 2)}
