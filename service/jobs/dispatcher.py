"""Which job runs next, and where."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import Draining, QueueFull, WorkerLost
from service.jobs.job import Job, Outcome
from service.jobs.sharing import ALONE, Room, Share, company
from service.observability.metrics import Metrics
from service.status import reason_of, to_status

_LONGEST_PAUSE = 30.0
_log = structlog.get_logger()


class Executor(Protocol):
    """Where jobs run, one batch at a time: a process on this machine, or what keeps the same promise."""

    @property
    def ready(self) -> bool:
        """Whether a job can be run now."""

    async def start(self) -> None:
        """Become ready, or raise `WorkerLost`."""

    @property
    def room(self) -> Room:
        """How much a batch holds that several jobs share."""

    def run(self, jobs: Sequence[Job], metrics: Metrics) -> AsyncIterator[tuple[Job, Outcome]]:
        """Run jobs as one batch, publish their events, and say how each ended; raise if they were lost."""

    async def estimate(self, request: vis.VisualizeRequest) -> vis.EstimateResponse:
        """Tell what a resolved request would cost, also while a job runs; raise `WorkerLost` if it cannot."""

    async def died(self) -> None:
        """Return when nothing can be run any more."""

    async def stop(self) -> None:
        """End at once."""


class Dispatcher:
    """Holds the queue and gives its jobs to the executor, first come first served.

    Who waits and can share the next job's batch runs with it; nobody waits for company.

    Parameters
    ----------
    executor : Executor
        Where jobs run.
    queue_length : int
        Jobs that may wait.
    metrics : Metrics
        Where figures go.
    on_change : callable
        Told whenever the executor becomes ready (True) or is lost (False).
    """

    def __init__(
        self,
        executor: Executor,
        queue_length: int,
        metrics: Metrics,
        on_change: Callable[[bool], Awaitable[None]],
    ) -> None:
        self._executor = executor
        self._queue_length = queue_length
        self._metrics = metrics
        self._on_change = on_change
        self._numbers = itertools.count(1)
        self._waiting: deque[Job] = deque()
        self._arrival = asyncio.Event()
        self._running: list[Job] = []
        self._draining = False
        self._loop: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether the executor is up and jobs are taken."""
        return self._executor.ready and not self._draining

    async def start(self) -> None:
        """Start the executor and return when it is ready.

        Raises
        ------
        WorkerLost
            It does not start.
        """
        await self._executor.start()
        await self._on_change(True)
        self._loop = asyncio.create_task(self._serve())

    def submit(self, request: vis.VisualizeRequest, share: Share = ALONE) -> Job:
        """Queue a job.

        Parameters
        ----------
        request : VisualizeRequest
            Resolved.
        share : Share
            With whom it may run.

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
        limit = self._queue_length
        if len(self._waiting) >= limit:
            raise QueueFull(f"{limit} jobs wait already; try again later", limit=limit)
        job = Job(next(self._numbers), request, share)
        self._metrics.jobs_submitted.labels(request.model).inc()
        self._waiting.append(job)
        self._metrics.queue_depth.set(len(self._waiting))
        self._arrival.set()
        return job

    async def estimate(self, request: vis.VisualizeRequest) -> vis.EstimateResponse:
        """Tell what a request would cost; nothing is queued.

        Parameters
        ----------
        request : VisualizeRequest
            Resolved.

        Raises
        ------
        Draining, WorkerLost
            It cannot be told now.
        JobFailed
            The job would fail with this status.
        """
        if self._draining:
            raise Draining
        answer = await self._executor.estimate(request)
        answer.jobs_waiting = len(self._waiting)
        return answer

    def cancel(self, job: Job) -> None:
        """Stop a job whose caller has left: at once if it waits, within one step if it runs."""
        job.cancel()
        if job in self._waiting:
            self._waiting.remove(job)
            self._metrics.queue_depth.set(len(self._waiting))
            self._finish(job, Outcome(vis.JOB_STATE_CANCELLED))

    async def drain(self, grace_seconds: float) -> None:
        """Refuse new jobs, let the running ones finish within the grace, stop the executor."""
        self._draining = True
        refused = Outcome(vis.JOB_STATE_FAILED, to_status(Draining()))
        self._fail_waiting(refused)
        end = time.monotonic() + grace_seconds
        while self._running and time.monotonic() < end:
            await asyncio.sleep(0.05)
        for job in self._running:
            self._finish(job, refused)
        if self._loop is not None:
            self._loop.cancel()
        await self._executor.stop()

    async def _serve(self) -> None:
        while not self._draining:
            await self._revive()
            self._running = await self._next()
            if self._running:
                await self._run(self._running)
                self._running = []
            self._metrics.jobs_running.set(0)

    async def _revive(self) -> None:
        """Start the executor if it is gone; while it does not start, nobody waits in vain."""
        pause = 1.0
        while not self._executor.ready and not self._draining:
            await self._on_change(False)
            try:
                await self._executor.start()
                await self._on_change(True)
            except WorkerLost as error:
                _log.error("worker_does_not_start", next_try_seconds=pause)
                self._fail_waiting(Outcome(vis.JOB_STATE_FAILED, to_status(error)))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _next(self) -> list[Job]:
        """Return the next job and who shares its batch; none if the executor has died meanwhile."""
        while not self._waiting:
            self._arrival.clear()
            events = {asyncio.create_task(self._arrival.wait()), asyncio.create_task(self._executor.died())}
            _, rest = await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
            for task in rest:
                task.cancel()
            if not self._executor.ready:
                return []
        job = self._waiting.popleft()
        others = company(job.share, [other.share for other in self._waiting], self._executor.room)
        jobs = [job, *(self._waiting[index] for index in others)]
        for other in jobs[1:]:
            self._waiting.remove(other)
        self._metrics.queue_depth.set(len(self._waiting))
        return jobs

    async def _run(self, jobs: Sequence[Job]) -> None:
        started = time.monotonic()
        self._metrics.jobs_running.set(len(jobs))
        if len(jobs) > 1:
            self._metrics.jobs_shared.inc(len(jobs))
            _log.info("jobs_share_a_batch", jobs=[job.name for job in jobs])
        for job in jobs:
            self._metrics.queue_wait.observe(started - job.created)
            job.move(vis.JOB_STATE_RUNNING)
        rest = list(jobs)

        def end(job: Job, outcome: Outcome) -> None:
            rest.remove(job)
            self._finish(job, outcome)
            self._metrics.jobs_running.dec()
            self._metrics.job_duration.labels(job.request.model).observe(time.monotonic() - started)

        try:
            async for job, outcome in self._executor.run(jobs, self._metrics):
                end(job, outcome)
        except Exception as error:
            # A job's failure must not end the loop; nor must the next job hear what was left unsaid.
            lost = Outcome(vis.JOB_STATE_FAILED, to_status(error))
            await self._executor.stop()
            for job in list(rest):
                end(job, lost)

    def _fail_waiting(self, outcome: Outcome) -> None:
        while self._waiting:
            self._finish(self._waiting.popleft(), outcome)
        self._metrics.queue_depth.set(0)

    def _finish(self, job: Job, outcome: Outcome) -> None:
        if not job.end(outcome):
            return
        state = vis.JobState.Name(outcome.state).removeprefix("JOB_STATE_")
        reason = reason_of(outcome.status) if outcome.status else ""
        self._metrics.jobs_finished.labels(job.request.model, state, reason).inc()
        self._metrics.coalesced.inc(job.coalesced)
        _log.info("job_finished", job=job.name, model=job.request.model, state=state, reason=reason)
