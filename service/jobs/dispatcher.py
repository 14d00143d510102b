"""Which job runs next, and where."""

import asyncio
import itertools
import time
from collections import deque

import structlog

from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import Draining, QueueFull, WorkerLost
from service.jobs.job import Job, Outcome
from service.observability.metrics import Metrics
from service.settings import Settings
from service.status import reason_of, to_status
from service.worker.process import WorkerProcess

_log = structlog.get_logger()


class Dispatcher:
    """Holds the queue and gives its jobs to the worker, first come first served.

    Parameters
    ----------
    settings : Settings
        Queue length, device, threads, repository.
    metrics : Metrics
        Where figures go.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._worker = WorkerProcess(settings)
        self._numbers = itertools.count(1)
        self._waiting: deque[Job] = deque()
        self._arrival = asyncio.Event()
        self._running: Job | None = None
        self._draining = False
        self._loop: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether a worker is up and jobs are taken."""
        return self._worker.ready and not self._draining

    async def start(self) -> None:
        """Start the worker and return when it has loaded the models."""
        await self._worker.start()
        self._loop = asyncio.create_task(self._serve())

    def submit(self, request: vis.VisualizeRequest) -> Job:
        """Queue a job.

        Parameters
        ----------
        request : VisualizeRequest
            Resolved.

        Returns
        -------
        Job
            Queued.

        Raises
        ------
        Draining, QueueFull
            It cannot be taken now.
        """
        if self._draining:
            raise Draining
        # A caller who left before the turn came makes room.
        self._waiting = deque(job for job in self._waiting if not self._gave_up(job))
        limit = self._settings.queue_length
        if len(self._waiting) >= limit:
            raise QueueFull(f"{limit} jobs wait already; try again later", limit=limit)
        job = Job(next(self._numbers), request)
        self._metrics.jobs_submitted.labels(request.model).inc()
        self._waiting.append(job)
        self._metrics.queue_depth.set(len(self._waiting))
        self._arrival.set()
        return job

    async def drain(self, grace_seconds: float) -> None:
        """Refuse new jobs, let the running one finish within the grace, stop the worker."""
        self._draining = True
        refused = Outcome(vis.JOB_STATE_FAILED, to_status(Draining()))
        while self._waiting:
            self._finish(self._waiting.popleft(), refused)
        end = time.monotonic() + grace_seconds
        while self._running is not None and time.monotonic() < end:
            await asyncio.sleep(0.05)
        if self._running is not None:
            self._finish(self._running, refused)
        if self._loop is not None:
            self._loop.cancel()
        await self._worker.stop()

    async def _serve(self) -> None:
        while True:
            while not self._waiting:
                self._arrival.clear()
                await self._arrival.wait()
            job = self._waiting.popleft()
            self._metrics.queue_depth.set(len(self._waiting))
            if self._gave_up(job):
                continue
            self._running = job
            self._metrics.jobs_running.set(1)
            await self._run(job)
            self._metrics.jobs_running.set(0)
            self._running = None

    async def _run(self, job: Job) -> None:
        started = time.monotonic()
        self._metrics.queue_wait.observe(started - job.created)
        try:
            if not self._worker.ready:
                await self._worker.start()
            job.move(vis.JOB_STATE_RUNNING)
            outcome = await self._worker.run(job, self._metrics)
        except Exception as error:
            outcome = Outcome(vis.JOB_STATE_FAILED, to_status(error))
            await self._recover(job, error)
        self._finish(job, outcome)
        self._metrics.job_duration.labels(job.request.model).observe(time.monotonic() - started)

    async def _recover(self, job: Job, error: Exception) -> None:
        _log.warning("job_failed", job=job.name, error=type(error).__name__)
        await self._worker.stop()
        try:
            await self._worker.start()
        except WorkerLost:
            _log.error("worker_does_not_start")

    def _gave_up(self, job: Job) -> bool:
        """Finish a waiting job whose caller has left."""
        if job.cancel_requested.is_set():
            self._finish(job, Outcome(vis.JOB_STATE_CANCELLED))
        return job.ended

    def _finish(self, job: Job, outcome: Outcome) -> None:
        if not job.end(outcome):
            return
        state = vis.JobState.Name(outcome.state).removeprefix("JOB_STATE_")
        reason = reason_of(outcome.status) if outcome.status else ""
        self._metrics.jobs_finished.labels(job.request.model, state, reason).inc()
        self._metrics.coalesced.inc(job.coalesced)
        _log.info("job_finished", job=job.name, model=job.request.model, state=state, reason=reason)
