"""Which job runs next, and where."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

import structlog

from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import AttemptsExhausted, Draining, QueueFull, StorageBusy, StorageFull, WorkerLost
from service.jobs.job import Job, Outcome
from service.jobs.journal import Journal
from service.jobs.sharing import ALONE, Room, company
from service.observability.metrics import Metrics
from service.oip import open_inference_pb2 as oip
from service.status import to_status
from service.storage.store import Store

# A job whose process has died so often is not begun again.
ATTEMPTS = 3
_LONGEST_PAUSE = 30.0
_READ_AGAIN = 1.0
_Answer = TypeVar("_Answer")
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

    def run(self, jobs: Sequence[Job]) -> AsyncIterator[tuple[Job, Outcome]]:
        """Run jobs as one batch, report what happens to them, and say how each ended; raise if lost."""

    async def pause(self) -> None:
        """Let the jobs that run be checkpointed and stopped within a step."""

    async def estimate(self, request: vis.VisualizeRequest) -> vis.EstimateResponse:
        """Tell what a resolved request would cost, also while a job runs; raise `WorkerLost` if it cannot."""

    async def infer(self, request: oip.ModelInferRequest) -> oip.ModelInferResponse:
        """Show a volume to a network, also while a job runs; raise `WorkerLost` if it cannot."""

    async def probe(self, request: vis.ProbeRequest, volume: bytes) -> vis.ProbeResponse:
        """Probe units with an image, also while a job runs; raise `WorkerLost` if it cannot."""

    async def died(self) -> None:
        """Return when nothing can be run any more."""

    async def stop(self) -> None:
        """End at once."""


class Dispatcher:
    """Holds the queue and gives its jobs to the executor, first come first served.

    Who waits and can share the next job's batch runs with it; nobody waits for company.
    A job whose process dies goes on from its newest checkpoint, by itself.

    Parameters
    ----------
    executor : Executor
        Where jobs run.
    store : Store
        Where requests and checkpoints are read.
    journal : Journal
        Who writes what happens.
    on_end : callable
        Told of every job that has ended, and how; returns the change that says so.
    queue_length : int
        Jobs that may wait.
    metrics : Metrics
        Where figures go.
    on_change : callable
        Told whenever the executor becomes ready (True) or is lost (False).
    on_death : callable
        Told if the queue is no longer served.
    """

    def __init__(
        self,
        executor: Executor,
        store: Store,
        journal: Journal,
        on_end: Callable[[Job, Outcome], "asyncio.Future[None]"],
        queue_length: int,
        metrics: Metrics,
        on_change: Callable[[bool], Awaitable[None]],
        on_death: Callable[["asyncio.Task[None]"], None],
    ) -> None:
        self._on_death = on_death
        self._executor = executor
        self._store = store
        self._journal = journal
        self._on_end = on_end
        self._queue_length = queue_length
        self._metrics = metrics
        self._on_change = on_change
        self._waiting: deque[Job] = deque()
        self._arrival = asyncio.Event()
        self._running: list[Job] = []
        self.draining = False
        self._loop: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether the executor is up and jobs are taken."""
        return self._executor.ready and not self.draining

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
        self._loop.add_done_callback(self._on_death)

    def admit(self, entering: int = 0) -> None:
        """Make sure that another job can be taken.

        Parameters
        ----------
        entering : int
            Jobs that are being stored.

        Raises
        ------
        Draining, QueueFull
            It cannot be taken now.
        """
        if self.draining:
            raise Draining
        limit = self._queue_length
        if len(self._waiting) + entering >= limit:
            raise QueueFull(f"{limit} jobs wait already; try again later", limit=limit)

    def enqueue(self, *jobs: Job) -> None:
        """Queue jobs that are stored."""
        self._waiting.extend(jobs)
        self._metrics.queue_depth.set(len(self._waiting))
        self._arrival.set()

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
        if self.draining:
            raise Draining
        answer = await self._executor.estimate(request)
        answer.jobs_waiting = len(self._waiting)
        return answer

    def cancel(self, job: Job) -> "asyncio.Future[None] | None":
        """Stop a job: at once if it waits, within one step if it runs.

        Returns
        -------
        Future or None
            Done when the wish is stored; None if the job has ended or the wish is known.
        """
        if job.ended or job.cancel_requested.is_set():
            return None
        job.cancel()
        if job in self._waiting:
            self._waiting.remove(job)
            self._metrics.queue_depth.set(len(self._waiting))
            return self._on_end(job, Outcome(vis.JOB_STATE_CANCELLED))
        return self._journal.add(job, job.move(vis.JOB_STATE_CANCELLING))

    async def drain(self, grace_seconds: float) -> None:
        """Take no more jobs, checkpoint those that run, stop the executor; all go on at the next start."""
        self.draining = True
        if self._running:
            await self._executor.pause()
        end = time.monotonic() + grace_seconds
        while self._running and time.monotonic() < end:
            await asyncio.sleep(0.01)
        if self._loop is not None:
            self._loop.cancel()
        await self._executor.stop()
        # A step, or a result, that took longer than the grace: it is done again, and is no attempt either.
        for job in [job for job in self._running if job.state != vis.JOB_STATE_QUEUED and not job.ended]:
            self._put_off(job)

    def _put_off(self, job: Job) -> None:
        """Let a job wait for the next start of the server."""
        if job.cancel_requested.is_set():
            self._on_end(job, Outcome(vis.JOB_STATE_CANCELLED))
        else:
            self._journal.add(job, job.move(vis.JOB_STATE_QUEUED))

    async def _serve(self) -> None:
        while not self.draining:
            await self._revive()
            self._running = await self._next()
            if self._running:
                await self._run(self._running)
                self._running = []
            self._metrics.jobs_running.set(0)

    async def _revive(self) -> None:
        """Start the executor if it is gone; until it starts, jobs wait."""
        pause = 1.0
        while not self._executor.ready and not self.draining:
            await self._on_change(False)
            try:
                await self._executor.start()
                await self._on_change(True)
            except WorkerLost:
                _log.error("worker_does_not_start", next_try_seconds=pause)
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
        share = ALONE if job.interrupted else job.share
        waiting = [ALONE if other.interrupted else other.share for other in self._waiting]
        jobs = [job, *(self._waiting[index] for index in company(share, waiting, self._executor.room))]
        for other in jobs[1:]:
            self._waiting.remove(other)
        self._metrics.queue_depth.set(len(self._waiting))
        return jobs

    async def _run(self, jobs: Sequence[Job]) -> None:
        begun = time.monotonic()
        rest = list(jobs)

        def end(job: Job, outcome: Outcome) -> None:
            rest.remove(job)
            self._metrics.jobs_running.dec()
            self._metrics.job_duration.labels(job.model).observe(time.monotonic() - begun)
            if outcome.state == vis.JOB_STATE_QUEUED:
                self._put_off(job)
            else:
                self._on_end(job, outcome)

        try:
            rest[:] = await self._begin(jobs)
            if rest:
                async for job, outcome in self._executor.run(list(rest)):
                    end(job, outcome)
        except WorkerLost:
            await self._executor.stop()
            self._metrics.worker_losses.inc()
            for job in list(rest):
                self._again(job, partial(end, job))
        except Exception as error:
            # A job's failure must not end the loop; nor must the next job hear what was left unsaid.
            lost = Outcome(vis.JOB_STATE_FAILED, to_status(error))
            await self._executor.stop()
            for job in [job for job in rest if not job.ended]:
                end(job, lost)
        for job in jobs:
            job.request, job.checkpoint = b"", None

    async def _begin(self, jobs: Sequence[Job]) -> list[Job]:
        """Fetch what the worker needs, and say that the jobs run; return those that are still wanted."""
        for job in jobs:
            job.request = await _read(partial(self._store.request, job.number))
            if job.interrupted:
                job.checkpoint = await _read(partial(self._store.newest_checkpoint, job.record))
                self._metrics.jobs_resumed.inc()
        for job in [job for job in jobs if job.cancel_requested.is_set()]:
            self._on_end(job, Outcome(vis.JOB_STATE_CANCELLED))
        # While the server drains, who has not begun goes on waiting.
        rest = [] if self.draining else [job for job in jobs if not job.ended]
        self._metrics.jobs_running.set(len(rest))
        if len(rest) > 1:
            self._metrics.jobs_shared.inc(len(rest))
            _log.info("jobs_share_a_batch", jobs=[job.name for job in rest])
        for job in rest:
            self._metrics.queue_wait.observe(max(0.0, time.time() - job.created))
            job.span.running()
            self._journal.add(job, job.move(vis.JOB_STATE_RUNNING))
        return rest

    def _again(self, job: Job, end: Callable[[Outcome], None]) -> None:
        """Let a job whose process died go on from its checkpoint, unless that was its last attempt."""
        if job.cancel_requested.is_set():
            end(Outcome(vis.JOB_STATE_CANCELLED))
            return
        job.crashes += 1
        if job.crashes >= ATTEMPTS:
            end(exhausted(job))
            return
        _log.warning("job_goes_on", job=job.name, attempt=job.crashes + 1)
        self._journal.add(job, job.move(vis.JOB_STATE_QUEUED, crashes=job.crashes))
        self._waiting.appendleft(job)
        self._metrics.jobs_running.dec()
        self._metrics.queue_depth.set(len(self._waiting))


async def _read(act: Callable[[], _Answer]) -> _Answer:
    """Read from the store, again and again while it cannot be read."""
    while True:
        try:
            return await asyncio.to_thread(act)
        except (StorageFull, StorageBusy) as error:
            _log.warning("storage_fault", reason=error.reason, next_try_seconds=_READ_AGAIN)
            await asyncio.sleep(_READ_AGAIN)


def exhausted(job: Job) -> Outcome:
    """Return the end of a job whose process died at every attempt."""
    error = AttemptsExhausted(
        f"the process died at each of {job.crashes} attempts; ask for a smaller canvas or fewer volumes, and "
        "see the server's log",
        attempts=job.crashes,
    )
    return Outcome(vis.JOB_STATE_FAILED, to_status(error))
