"""The service with an executor that invents its results: everything but the optimizer is real.

`python -m benchmarks.reliability.quick` takes the settings of `python -m service`.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence

import service.__main__
import service.server
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import WorkerLost
from service.jobs.job import Job, Outcome
from service.jobs.journal import Journal
from service.jobs.reporter import Reporter
from service.jobs.sharing import NO_ROOM, Room
from service.observability.metrics import Metrics
from service.oip import open_inference_pb2 as oip
from service.settings import Settings
from service.worker import wire

_CHUNK = bytes(range(256)) * 8


class QuickExecutor:
    """Keeps the promise of `Executor` without a process: what it tells depends on the request alone.

    Parameters
    ----------
    settings, journal, metrics
        As for `WorkerProcess`.
    """

    def __init__(self, settings: Settings, journal: Journal, metrics: Metrics) -> None:
        self._settings, self._journal, self._metrics = settings, journal, metrics
        self._pausing = False
        self.ready = False

    @property
    def room(self) -> Room:
        """Nobody shares."""
        return NO_ROOM

    async def start(self) -> None:
        """Become ready."""
        self.ready, self._pausing = True, False

    async def run(self, jobs: Sequence[Job]) -> AsyncIterator[tuple[Job, Outcome]]:
        """Tell of each job's steps, its volume and its end, behind what has been told before."""
        for job in jobs:
            reporter = Reporter(job, self._journal, self._settings, self._metrics)
            outcome = None
            for frame in frames(job.number, job.request, job.told):
                await asyncio.sleep(0)
                if job.cancel_requested.is_set():
                    frame = wire.Frame(wire.Kind.STOPPED, job.number)
                elif self._pausing:
                    frame = wire.Frame(wire.Kind.PAUSED, job.number)
                outcome = reporter.take(frame)
                await self._journal.room()
                if outcome is not None:
                    break
            assert outcome is not None
            yield job, outcome

    async def pause(self) -> None:
        """Stop at the next step."""
        self._pausing = True

    async def estimate(self, request: vis.VisualizeRequest) -> vis.EstimateResponse:
        """Estimate nothing."""
        raise WorkerLost("nothing is estimated here")

    async def infer(self, request: oip.ModelInferRequest) -> oip.ModelInferResponse:
        """Show nothing to a network."""
        raise WorkerLost("no network is here")

    async def probe(self, request: vis.ProbeRequest, volume: bytes) -> vis.ProbeResponse:
        """Show nothing to a network."""
        raise WorkerLost("no network is here")

    async def died(self) -> None:
        """Never."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """End."""
        self.ready = False


def frames(number: int, request: bytes, told: int) -> list[wire.Frame]:
    """Return what a worker would say of a job behind the first so many events."""
    asked = vis.VisualizeRequest.FromString(request)
    said = []
    for step in range(1, asked.steps + 1):
        progress = vis.VisualizeResponse(
            progress=vis.Progress(step=step, steps=asked.steps, step_seconds=1e-3)
        )
        said.append(wire.Frame(wire.Kind.EVENT, number, progress.SerializeToString()))
    data = hashlib.sha256(request).digest() + _CHUNK
    digest = hashlib.sha256(data).hexdigest()
    begin = vis.VolumeBegin(id="final", kind=vis.VOLUME_KIND_FINAL, bytes=len(data), sha256=digest)
    said.append(wire.Frame(wire.Kind.VOLUME, number, wire.pack_volume(begin.SerializeToString(), data)))
    completed = vis.Completed()
    completed.provenance.volume_sha256 = completed.provenance.volumes["final"] = digest
    done = vis.VisualizeResponse(completed=completed)
    said.append(wire.Frame(wire.Kind.SUCCEEDED, number, done.SerializeToString()))
    return said[told:]


if __name__ == "__main__":
    service.server.WorkerProcess = QuickExecutor  # type: ignore[misc,assignment]
    service.__main__.main()
