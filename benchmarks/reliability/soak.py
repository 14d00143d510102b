"""Ten thousand tiny jobs: what the server holds before and after."""

import asyncio
import os
import time
from pathlib import Path

import grpc.aio
from rich.progress import Progress

from benchmarks.reliability import processes
from benchmarks.reliability.ledger import asked
from benchmarks.reliability.site import Site, site
from neurofv.v1 import job_service_pb2 as jobs
from neurofv.v1 import job_service_pb2_grpc
from neurofv.v1 import visualization_service_pb2 as vis

_TINY = (
    'objective {{ terms {{ channel {{ layer: "blocks.0.conv" channel: {} }} }} }} steps: 1 snapshot_every: 0'
)
_SMALL = "canvas { size_mm { i: 8 j: 8 k: 8 } }"
_AT_ONCE = 32
# Jobs expire while others run, so that what is measured does not grow with what is kept.
_SETTINGS = {"retention_hours": 0.001, "sweep_seconds": 0.5, "request_id_hours": 0.001, "log_level": "info"}
_WARM_SHARE = 0.1
# The database's pool opens connections when several calls read at once: up to five, three files each.
_SLACK = {"descriptors": 15, "threads": 6}


def measure(total: int = 10_000, seconds: float = 1200.0) -> dict[str, object]:
    """Run jobs on the real worker for a while, and all of them on one that invents its results.

    Parameters
    ----------
    total : int
        Jobs.
    seconds : float
        How long the real worker gets; what it does not reach is extrapolated.
    """
    return {
        "fast_executor": _run(total, seconds, module="benchmarks.reliability.quick"),
        "real_worker": _run(total, seconds),
    }


def _run(total: int, seconds: float, **settings: object) -> dict[str, object]:
    with site(**_SETTINGS, **settings) as place:
        asyncio.run(_submit(place, max(20, int(total * _WARM_SHARE)), seconds * _WARM_SHARE))
        _quiet(place)
        before = _holdings(place)
        begun = time.monotonic()
        done = asyncio.run(_submit(place, total, seconds))
        took = time.monotonic() - begun
        _quiet(place)
        after = _holdings(place)
        growth = after["rss_mib"] - before["rss_mib"]
        kinds = ("descriptors", "threads", "children", "files")
        return {
            "jobs": done,
            "seconds": round(took, 1),
            "jobs_a_second": round(done / took, 1),
            "before": before,
            "after": after,
            "growth_mib": round(growth, 1),
            "growth_mib_at_10000": round(growth * 10_000 / done, 1),
            "leaked": [kind for kind in kinds if after[kind] > before[kind] + _SLACK.get(kind, 0)],
        }


async def _submit(place: Site, total: int, seconds: float) -> int:
    """Create, watch and end jobs, many at once; return how many succeeded."""
    end, done = time.monotonic() + seconds, 0
    with Progress() as bar:
        task = bar.add_task("tiny jobs", total=total)
        async with grpc.aio.insecure_channel(place.server.target) as channel:
            stub, left = job_service_pb2_grpc.JobServiceStub(channel), iter(range(total))

            async def caller(number: int) -> None:
                nonlocal done
                request = asked(f"{_TINY.format(number % 4)} {_SMALL}")
                for _ in left:
                    if time.monotonic() > end:
                        return
                    name = (await stub.CreateJob(jobs.CreateJobRequest(request=request))).job.name
                    watched = stub.WatchJob(jobs.WatchJobRequest(name=name))
                    states = [answer.event.state_changed.state async for answer in watched]
                    assert vis.JOB_STATE_SUCCEEDED in states
                    done += 1
                    bar.advance(task)

            await asyncio.gather(*(caller(number) for number in range(_AT_ONCE)))
    return done


def _quiet(place: Site) -> None:
    """Wait until everything has expired and been removed, or half a minute has removed nothing."""
    least, end = _files(place.data), time.monotonic() + 30
    while least and time.monotonic() < end:
        time.sleep(0.5)
        if (left := _files(place.data)) < least:
            least, end = left, time.monotonic() + 30
    time.sleep(2)


def _holdings(place: Site) -> dict[str, float]:
    return {
        "rss_mib": round(processes.rss_mib(place.pid), 1),
        "descriptors": processes.descriptors(place.pid),
        "threads": processes.threads(place.pid),
        "children": processes.children(place.pid),
        "files": _files(place.data),
    }


def _files(data: Path) -> int:
    # Unlike a glob, a walk minds no folder that is removed meanwhile.
    folders = (data / "volumes", data / "checkpoints")
    return sum(len(names) + len(files) for folder in folders for _, names, files in os.walk(folder))
