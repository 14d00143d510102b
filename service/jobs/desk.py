"""What callers may do with jobs: create, find, cancel, delete, pin."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

import structlog

from models import ModelError, Repository
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import (
    ArtifactExpired,
    Draining,
    InvalidField,
    JobNotFinished,
    JobNotFound,
    ModelChanged,
    ServiceError,
    StorageBusy,
    StorageFull,
)
from service.jobs.admission import bare_request, check_quota, new_row
from service.jobs.bundles import find_bundle, find_plan
from service.jobs.dispatcher import ATTEMPTS, Dispatcher, Executor, exhausted
from service.jobs.job import Job, Outcome
from service.jobs.journal import Journal
from service.jobs.plan import Plan
from service.observability.metrics import Metrics
from service.observability.tracing import job_span
from service.security.audit import AuditLog
from service.security.identity import Principal, Role, caller
from service.settings import Settings
from service.status import reason_of, to_status
from service.storage.records import Record
from service.storage.store import Store

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ID = re.compile(r"[0-9a-f]{32}")
_READERS, _PLANNERS = 4, 2
_Answer = TypeVar("_Answer")
_log = structlog.get_logger()


class Desk:
    """Takes jobs and answers for them.

    Parameters
    ----------
    repository : Repository
        The bundles.
    settings : Settings
        The server's limits.
    store : Store
        The jobs.
    journal : Journal
        Who writes what happens to them.
    audit : AuditLog
        Where every act is recorded before it is done.
    metrics : Metrics
        Where figures go.
    """

    def __init__(
        self,
        repository: Repository,
        settings: Settings,
        store: Store,
        journal: Journal,
        audit: AuditLog,
        metrics: Metrics,
    ) -> None:
        self.repository, self.settings = repository, settings
        self.store, self._journal = store, journal
        self._audit, self._metrics = audit, metrics
        self._live: dict[str, Job] = {}
        # Tasks are held here, for the loop itself forgets them.
        self._entering: set[asyncio.Task[Record]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._planners = ThreadPoolExecutor(_PLANNERS, thread_name_prefix="planner")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="reader")
        self.dispatcher: Dispatcher

    def open(
        self,
        executor: Executor,
        on_change: Callable[[bool], Awaitable[None]],
        on_death: Callable[["asyncio.Task[None]"], None] = lambda task: None,
    ) -> None:
        """Set up the queue in front of an executor.

        Parameters
        ----------
        executor : Executor
            Where jobs run.
        on_change : callable
            Told whenever the executor becomes ready or is lost.
        on_death : callable
            Told if the queue is no longer served.
        """
        self.dispatcher = Dispatcher(
            executor,
            self.store,
            self._journal,
            self._ended,
            self.settings.queue_length,
            self._metrics,
            on_change,
            on_death,
        )

    async def recover(self) -> None:
        """Take up the jobs that a former process left: those that ran go on from their checkpoints."""
        records = await self.read(self.store.unfinished)
        ran, waited = [], []
        changed = {key: self._changed(*key) for key in {(r.model, r.version, r.digest) for r in records}}
        for record in records:
            volumes = await self.read(self.store.volumes, record.number) if record.told else []
            job = self._live[record.id] = Job(record, volumes)
            if record.state == vis.JOB_STATE_CANCELLING:
                self._ended(job, Outcome(vis.JOB_STATE_CANCELLED))
            elif (error := changed[record.model, record.version, record.digest]) is not None:
                self._ended(job, Outcome(vis.JOB_STATE_FAILED, to_status(error)))
            elif record.state == vis.JOB_STATE_RUNNING:
                job.crashes += 1
                if job.crashes >= ATTEMPTS:
                    self._ended(job, exhausted(job))
                    continue
                self._journal.add(job, job.move(vis.JOB_STATE_QUEUED, crashes=job.crashes))
                ran.append(job)
            else:
                waited.append(job)
        if records:
            _log.info("jobs_recovered", running=len(ran), waiting=len(waited))
        self.dispatcher.enqueue(*ran, *waited)

    def _changed(self, model: str, version: int, digest: str) -> ModelChanged | None:
        """Return what is wrong if a model is not the one that jobs were created for."""
        with suppress(ServiceError, ModelError):
            if find_bundle(self.repository, model, version).digest == digest:
                return None
        return ModelChanged(
            f"model {model}/{version} is no longer the one that the job was created for; "
            "create the job again",
            model=model,
        )

    async def create(self, request: vis.VisualizeRequest, pinned: bool = False) -> Record:
        """Check, store and queue a visualization.

        Parameters
        ----------
        request : VisualizeRequest
            As it came.
        pinned : bool
            Whether to keep it beyond its time.

        Returns
        -------
        Record
            Of the new job, or of that of the same request_id.

        Raises
        ------
        ServiceError
            Nothing was stored.
        """
        owner, bare, request_id = caller(), bare_request(request), request.request_id
        body = hashlib.sha256(bare.SerializeToString(deterministic=True) + bytes([pinned])).hexdigest()
        if request_id:
            if not _REQUEST_ID.fullmatch(request_id):
                rule = "must be 1 to 64 letters, digits, dots, dashes or underscores; a UUID is best"
                raise InvalidField("request_id", rule)
            known = await self.read(self.store.known, owner.name, request_id, body)
            if known is not None:
                self._adopt(known)
                return known
        self.dispatcher.admit(len(self._entering))
        plan = await self._plan(bare)
        self.dispatcher.admit(len(self._entering))
        entering = asyncio.create_task(self._enter(plan, owner, pinned, request_id, body))
        self._entering.add(entering)
        entering.add_done_callback(self._entering.discard)
        # A caller who leaves now leaves a job behind that is stored and runs, not one that is only stored.
        return await asyncio.shield(entering)

    async def estimate(self, request: vis.VisualizeRequest) -> vis.EstimateResponse:
        """Check a visualization as `create` does, and tell what it would cost; nothing is stored.

        Raises
        ------
        ServiceError, JobFailed
            It cannot be run, or it cannot be told now.
        """
        plan = await self._plan(bare_request(request))
        return await self.dispatcher.estimate(plan.request)

    async def _plan(self, request: vis.VisualizeRequest) -> Plan:
        """Plan a request in a thread of its own: large images hold up nothing but other plans."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._planners, find_plan, request, self.repository, self.settings)

    async def _enter(self, plan: Plan, owner: Principal, pinned: bool, request_id: str, body: str) -> Record:
        """Store a job and queue it."""
        columns, events = new_row(plan, owner.name, pinned)
        until = columns["created"] + self.settings.request_id_hours * 3600
        facts = {"model": plan.request.model, "digest": plan.bundle.digest, "request_sha256": body}
        span = job_span(plan.request.model, plan.spec.steps)

        def admit() -> None:
            size = len(columns["private"] or b"")
            check_quota(self.store.usage(owner.name), columns["voxel_steps"], size, self.settings)
            self._audit.record(owner, "job.create", f"jobs/{columns['id']}", **facts)

        create = partial(self.store.create, columns, events, request_id, body, until, admit)
        record, new = await self._journal.write(create)
        if new:
            job = self._live[record.id] = Job(record)
            job.span = span
            self._metrics.jobs_submitted.labels(record.model).inc()
            self.dispatcher.enqueue(job)
        return record

    def _adopt(self, record: Record) -> None:
        """Queue a job that was stored, but whose storing seemed to fail."""
        if not record.over and record.id not in self._live and not self._entering:
            job = self._live[record.id] = Job(record)
            self.dispatcher.enqueue(job)

    async def find(self, name: str) -> Record:
        """Return a job that the caller may see.

        Raises
        ------
        InvalidField
            The name is not a job's.
        JobNotFound
            There is none, or it is somebody else's.
        ArtifactExpired
            It was the caller's, and its time is over.
        """
        folder, _, number = name.partition("/")
        if folder != "jobs" or not _ID.fullmatch(number):
            raise InvalidField("name", "is no job's name; those are jobs/ and 32 hexadecimal digits")
        principal = caller()
        record = await self.read(self.store.get, number)
        if record is not None and _sees(principal, record.owner):
            return record
        if record is None:
            owner = await self.read(self.store.removed, number)
            if owner is not None and _sees(principal, owner):
                raise ArtifactExpired(f"{name} was removed when its time was over; run it again")
        raise JobNotFound(name)

    async def read(self, act: Callable[..., _Answer], *arguments: object) -> _Answer:
        """Ask the store; whoever plans or reads files in other threads does not hold this up."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, act, *arguments)

    def live(self, record: Record) -> Job | None:
        """Return a job that has not ended, as this process knows it."""
        return self._live.get(record.id)

    async def cancel(self, record: Record) -> None:
        """Stop a job; nothing happens if it has ended.

        Raises
        ------
        StorageFull, StorageBusy
            The wish could not be recorded.
        """
        job = self.live(record)
        if job is None or job.ended or job.cancel_requested.is_set():
            return
        await self.act("job.cancel", record.name)
        stored = self.dispatcher.cancel(job)
        if stored is not None:
            await stored

    def leave(self, record: Record) -> None:
        """Cancel a job whose caller has left; while the server drains, callers leave without meaning it."""
        job = self.live(record)
        if job is None or job.ended or self.dispatcher.draining:
            return
        leaving = asyncio.create_task(self._leave(job, Principal(record.owner, Role.SUBMITTER)))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _leave(self, job: Job, owner: Principal) -> None:
        try:
            await self._journal.write(lambda: self._audit.record(owner, "job.leave", job.name))
        except (StorageFull, StorageBusy, Draining) as error:
            # Nobody is there to be refused: the optimizer need not run on for the record's sake.
            _log.error("leave_not_recorded", job=job.name, reason=error.reason)
        if not self.dispatcher.draining:
            self.dispatcher.cancel(job)

    async def delete(self, record: Record) -> None:
        """Remove a job that has ended.

        Raises
        ------
        JobNotFinished
            It has not.
        StorageFull, StorageBusy
            Nothing was removed.
        """
        if not record.over or self.live(record) is not None:
            raise JobNotFinished(f"{record.name} has not ended; cancel it first, or wait", job=record.name)
        await self.act("job.delete", record.name)
        await self._journal.write(lambda: self.store.delete(record))

    async def pin(self, record: Record, pinned: bool) -> Record:
        """Keep a job beyond its time, or let it expire."""
        await self.act("job.pin" if pinned else "job.unpin", record.name)
        await self._journal.write(lambda: self.store.pin(record.number, pinned))
        return await self.find(record.name)

    def wake(self) -> None:
        """Let every watcher look again."""
        for job in self._live.values():
            job.wake()

    async def act(self, action: str, resource: str, outcome: str = "OK", **facts: str) -> None:
        """Record what the caller is about to do."""
        principal = caller()
        await self._journal.write(lambda: self._audit.record(principal, action, resource, outcome, **facts))

    def _ended(self, job: Job, outcome: Outcome) -> "asyncio.Future[None]":
        """Store a job's end, and tell who watches."""
        state = vis.JobState.Name(outcome.state).removeprefix("JOB_STATE_")
        reason = reason_of(outcome.status) if outcome.status else ""
        change = job.end(outcome, self.settings.retention_hours * 3600)
        digest = outcome.completed.completed.provenance.volume_sha256 if outcome.completed else ""
        facts = {"state": state, "reason": reason, "volume_sha256": digest}
        change.audit = {key: value for key, value in facts.items() if value}
        done = self._journal.add(job, change)
        done.add_done_callback(lambda _: self._live.pop(job.id, None))
        self._metrics.jobs_finished.labels(job.model, state, reason).inc()
        job.span.end(state, reason)
        self._metrics.job_attempts.observe(job.crashes + 1)
        _log.info("job_finished", job=job.name, model=job.model, state=state, reason=reason)
        return done


def _sees(principal: Principal, owner: str) -> bool:
    return principal.role == Role.ADMIN or principal.name == owner
