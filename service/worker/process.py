"""The server's end of a worker process."""

import asyncio
import itertools
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from google.rpc import status_pb2

from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import WorkerLost
from service.jobs.job import Job, JobFailed, Outcome
from service.jobs.journal import Journal
from service.jobs.reporter import Reporter
from service.jobs.sharing import NO_ROOM, Room, room
from service.observability.metrics import Metrics
from service.oip import open_inference_pb2 as oip
from service.settings import Settings
from service.worker import wire

_START_SECONDS = 120.0
# Frames of the worker that are held while those before them are written.
_MOST_FRAMES = 8
_ANSWERS = (wire.Kind.ESTIMATED, wire.Kind.INFERRED, wire.Kind.PROBED, wire.Kind.UNANSWERED)
ENVIRONMENT = {
    # Threads of torch that wait for each other must sleep, not spin: spinning, two threads on two
    # cores of which one has other work too ran five times slower.
    "OMP_WAIT_POLICY": "PASSIVE",
    # A step takes and gives back the same large blocks again and again. glibc would hand each back to the
    # system, which clears every page before the next use: a third of the time of a large convolution. They
    # are kept instead; the worker gives them back when a job has ended.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 26),
    # Torch's profiler, which measures memory for estimates, must not write lines into the log.
    "KINETO_LOG_LEVEL": "6",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}


class WorkerProcess:
    """Starts a worker, gives it jobs and stops it.

    Parameters
    ----------
    settings : Settings
        Passed on to the worker.
    journal : Journal
        Who writes what happens to jobs.
    metrics : Metrics
        Where figures go.
    """

    def __init__(self, settings: Settings, journal: Journal, metrics: Metrics) -> None:
        self._settings = settings
        self._journal = journal
        self._metrics = metrics
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._room = NO_ROOM
        self._sorter: asyncio.Task[None] | None = None
        self._of_jobs: asyncio.Queue[wire.Frame | None] = asyncio.Queue(_MOST_FRAMES)
        self._pausing = False
        self._numbers = itertools.count(1)
        self._questions: dict[int, asyncio.Future[wire.Frame]] = {}

    @property
    def room(self) -> Room:
        """How much a batch holds that several jobs share."""
        return self._room

    @property
    def ready(self) -> bool:
        """Whether the process is up and has loaded the models."""
        return self._process is not None and self._process.returncode is None and self._reader is not None

    @property
    def pid(self) -> int | None:
        """Process id, if it runs."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises
        ------
        WorkerLost
            It ended, or was not ready in time.
        """
        await self.stop()
        try:
            reader = await self._spawn()
            hello = await asyncio.wait_for(wire.read(reader), _START_SECONDS)
        except (EOFError, OSError, TimeoutError):
            await self.stop()
            raise WorkerLost("the worker process did not start; the server's log says why") from None
        self._reader = reader
        device, *seconds = hello.data.decode().split()
        for each in seconds:
            self._metrics.model_load_duration.observe(float(each))
        self._room = room(self._settings, device)
        self._of_jobs, self._pausing = asyncio.Queue(_MOST_FRAMES), False
        self._sorter = asyncio.create_task(self._sort(reader, self._of_jobs))

    async def _spawn(self) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "service.worker",
                    f"--fd={theirs.fileno()}",
                    # Everybody on the machine can read this: the database's URL may hold a password.
                    f"--settings={self._settings.model_dump_json(exclude={'database'})}",
                    pass_fds=[theirs.fileno()],
                    env=ENVIRONMENT | os.environ,
                    stdin=asyncio.subprocess.DEVNULL,
                )
            except OSError:
                ours.close()
                raise
        reader, self._writer = await asyncio.open_connection(sock=ours)
        return reader

    async def died(self) -> None:
        """Return when the process has ended."""
        if self._process is not None:
            await self._process.wait()

    async def run(self, jobs: Sequence[Job]) -> AsyncIterator[tuple[Job, Outcome]]:
        """Run jobs as one batch and report what the worker says of them.

        Parameters
        ----------
        jobs : sequence of Job
            With their requests; one that was begun before comes alone, with its checkpoint.

        Yields
        ------
        tuple of (Job, Outcome)
            Each job as it ends, and how.

        Raises
        ------
        WorkerLost
            The process died.
        """
        watchers = []
        try:
            for job in jobs:
                if job.interrupted:
                    saved = job.checkpoint
                    step, data = (saved.step, saved.data) if saved else (0, b"")
                    await self._send(wire.Kind.RESUME, job.number, wire.pack_state(job.told, step, data))
                kind = wire.Kind.RUN if job is jobs[-1] else wire.Kind.JOIN
                await self._send(kind, job.number, job.request)
            if self._pausing:
                # A pause that arrived between two of these frames was over before the jobs began.
                await self.pause()
            watchers = [asyncio.create_task(self._pass_on_cancel(job)) for job in jobs]
            open_jobs = {
                job.number: Reporter(job, self._journal, self._settings, self._metrics) for job in jobs
            }
            while open_jobs:
                frame = await self._of_jobs.get()
                if frame is None:
                    raise EOFError
                # Others are the tail of a job that was abandoned.
                if frame.job in open_jobs and (outcome := open_jobs[frame.job].take(frame)):
                    yield open_jobs.pop(frame.job).job, outcome
                # While storage is slow the worker's socket fills, and the worker waits.
                await self._journal.room()
        except (EOFError, ConnectionError):
            raise WorkerLost("the worker process died during the job") from None
        finally:
            for watcher in watchers:
                watcher.cancel()

    async def pause(self) -> None:
        """Let the jobs that run be checkpointed and stopped within a step."""
        self._pausing = True
        with suppress(WorkerLost, ConnectionError):
            await self._send(wire.Kind.PAUSE, 0)

    async def estimate(self, request: vis.VisualizeRequest) -> vis.EstimateResponse:
        """Let the worker estimate a job, also while one runs.

        Parameters
        ----------
        request : VisualizeRequest
            Resolved.

        Returns
        -------
        EstimateResponse
            Complete but for the jobs that wait.

        Raises
        ------
        WorkerLost
            No process runs, or it died.
        JobFailed
            The job would fail with this status.
        """
        answer = await self._ask(wire.Kind.ESTIMATE, request.SerializeToString())
        return vis.EstimateResponse.FromString(answer)

    async def infer(self, request: oip.ModelInferRequest) -> oip.ModelInferResponse:
        """Let the worker show a volume to a network, also while a job runs.

        Parameters
        ----------
        request : ModelInferRequest
            See `service.worker.inference.infer`.

        Returns
        -------
        ModelInferResponse
            Every output.

        Raises
        ------
        WorkerLost
            No process runs, or it died.
        JobFailed
            The volume cannot be shown to the network, as this status says.
        """
        answer = await self._ask(wire.Kind.INFER, request.SerializeToString())
        return oip.ModelInferResponse.FromString(answer)

    async def probe(self, request: vis.ProbeRequest, volume: bytes) -> vis.ProbeResponse:
        """Let the worker probe units with an image, also while a job runs.

        Parameters
        ----------
        request : ProbeRequest
            Checked, without its image.
        volume : bytes
            The image on the model's grid, model units, float32.

        Returns
        -------
        ProbeResponse
            Complete.

        Raises
        ------
        WorkerLost
            No process runs, or it died.
        JobFailed
            The image cannot be shown to the network, as this status says.
        """
        data = wire.pack_volume(request.SerializeToString(), volume)
        return vis.ProbeResponse.FromString(await self._ask(wire.Kind.PROBE, data))

    async def _ask(self, kind: wire.Kind, data: bytes) -> bytes:
        """Ask what the worker answers between two steps of a job."""
        if not self.ready:
            raise WorkerLost("no worker process runs; send the request again")
        number = next(self._numbers)
        answer = self._questions[number] = asyncio.get_running_loop().create_future()
        try:
            await self._send(kind, number, data)
            frame = await answer
        except ConnectionError:
            raise WorkerLost(
                "the worker process died before it had answered; send the request again"
            ) from None
        finally:
            del self._questions[number]
        if frame.kind == wire.Kind.UNANSWERED:
            raise JobFailed(status_pb2.Status.FromString(frame.data))
        return frame.data

    async def stop(self) -> None:
        """End the process at once."""
        if self._sorter is not None:
            self._sorter.cancel()
        self._leave_unanswered()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._writer is not None:
            self._writer.close()
        self._process = self._reader = self._writer = self._sorter = None

    async def _sort(self, reader: asyncio.StreamReader, of_jobs: "asyncio.Queue[wire.Frame | None]") -> None:
        """Part answers from what is said of jobs until the worker is gone; None says so."""
        try:
            while True:
                frame = await wire.read(reader)
                if frame.kind not in _ANSWERS:
                    # When this is full the socket fills too, and the worker waits.
                    await of_jobs.put(frame)
                elif (waiting := self._questions.get(frame.job)) is not None and not waiting.done():
                    waiting.set_result(frame)
        except (EOFError, ConnectionError, ValueError):
            self._leave_unanswered()
            await of_jobs.put(None)

    def _leave_unanswered(self) -> None:
        """Tell who has asked that no answer comes."""
        for waiting in self._questions.values():
            if not waiting.done():
                waiting.set_exception(ConnectionResetError())

    async def _pass_on_cancel(self, job: Job) -> None:
        await job.cancel_requested.wait()
        await self._send(wire.Kind.CANCEL, job.number)

    async def _send(self, kind: wire.Kind, job: int, data: bytes = b"") -> None:
        if self._writer is None:
            raise WorkerLost("no worker process runs; send the request again")
        self._writer.write(wire.Frame(kind, job, data).encode())
        await self._writer.drain()
