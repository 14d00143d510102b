"""What is asked of the jobs' database. Every method blocks; callers bring a thread."""

import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import structlog
from sqlalchemy import Connection, Select, func, select

from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import ArtifactCorrupt, RequestIdReused
from service.observability.metrics import Metrics
from service.storage import files, schema
from service.storage.database import Database
from service.storage.files import Files
from service.storage.records import ENDED, Checkpoint, Record, Usage, Volume

# A job's description names so many; who wants all of them watches it.
NEWEST_SNAPSHOTS = 16
_log = structlog.get_logger()
_OVER = [int(state) for state in ENDED]
_COLUMNS = [schema.job.c[column.name] for column in fields(Record)]


class EventGone(LookupError):
    """The event's job has been deleted meanwhile."""


class Queries:
    """The reading half of the store.

    Parameters
    ----------
    database : Database
        The rows.
    folders : Files
        The files that they speak of.
    metrics : Metrics
        Where figures go.
    """

    def __init__(self, database: Database, folders: Files, metrics: Metrics) -> None:
        self._database = database
        self.files = folders
        self._metrics = metrics

    def request(self, number: int) -> bytes:
        """Return a job's request, with its images while it has not ended."""
        table = schema.job.c
        with self._database.read() as connection:
            row = connection.execute(select(table.request, table.private).where(table.number == number)).one()
        return row.private or row.request

    def known(self, owner: str, request_id: str, body: str) -> Record | None:
        """Return the job of a request_id; raise `RequestIdReused` if its body was another."""
        with self._database.read() as connection:
            return self._known(connection, owner, request_id, body)

    def _known(self, connection: Connection, owner: str, request_id: str, body: str) -> Record | None:
        table = schema.request_id
        mine = (table.c.owner == owner) & (table.c.request_id == request_id)
        found = connection.execute(select(table).where(mine)).one_or_none()
        if found is None:
            return None
        record = _one(connection, select(*_COLUMNS).where(schema.job.c.id == found.job))
        if found.expires < time.time() or record is None:
            return None
        if found.body != body:
            raise RequestIdReused(
                "request_id belongs to a job with another request; choose a new one", job=record.name
            )
        return record

    def get(self, job: str) -> Record | None:
        """Return a job by its id."""
        with self._database.read() as connection:
            return _one(connection, select(*_COLUMNS).where(schema.job.c.id == job))

    def removed(self, job: str) -> str | None:
        """Return whose a job was that has expired, or None."""
        table = schema.tombstone
        with self._database.read() as connection:
            return connection.execute(select(table.c.owner).where(table.c.id == job)).scalar_one_or_none()

    def unfinished(self) -> list[Record]:
        """Return the jobs that have not ended, first come first."""
        query = select(*_COLUMNS).where(schema.job.c.state.not_in(_OVER)).order_by(schema.job.c.number)
        with self._database.read() as connection:
            return [Record(**row._mapping) for row in connection.execute(query)]

    def page(self, owner: str, states: Sequence[int], model: str, before: int, size: int) -> list[Record]:
        """Return jobs, newest first.

        Parameters
        ----------
        owner : str
            Whose; empty for everybody's.
        states : sequence of int
            In one of these; empty for all.
        model : str
            Of this; empty for all.
        before : int
            Numbers below this; 0 for all.
        size : int
            Most jobs.
        """
        table = schema.job.c
        query = select(*_COLUMNS).order_by(table.number.desc()).limit(size)
        query = query.where(table.owner == owner) if owner else query
        query = query.where(table.state.in_(states)) if states else query
        query = query.where(table.model == model) if model else query
        query = query.where(table.number < before) if before else query
        with self._database.read() as connection:
            return [Record(**row._mapping) for row in connection.execute(query)]

    def events(self, number: int, after: int, most: int) -> list[vis.VisualizeResponse]:
        """Return a job's events behind one."""
        table = schema.event.c
        query = select(table.payload).where((table.job == number) & (table.sequence > after))
        with self._database.read() as connection:
            found = connection.execute(query.order_by(table.sequence).limit(most)).scalars().all()
        return [vis.VisualizeResponse.FromString(payload) for payload in found]

    def event(self, number: int, sequence: int) -> vis.VisualizeResponse:
        """Return one event; raise `EventGone` if its job has been deleted."""
        found = self.events(number, sequence - 1, 1)
        if not found or found[0].sequence != sequence:
            raise EventGone
        return found[0]

    def outline(self, record: Record) -> list[vis.VisualizeResponse]:
        """Return a job's first event, those of its results and newest snapshots, and its newest one.

        Raises
        ------
        EventGone
            The job has been deleted.
        """
        table, volume = schema.event.c, schema.volume.c
        kept = select(volume.sequence).where((volume.job == record.number) & volume.kept)
        newest = kept.where(volume.snapshot).order_by(volume.sequence.desc()).limit(NEWEST_SNAPSHOTS)
        wanted = table.sequence.in_((1, record.last_sequence)) | table.sequence.in_(
            kept.where(~volume.snapshot).union_all(newest.subquery().select())
        )
        query = select(table.payload).where((table.job == record.number) & wanted).order_by(table.sequence)
        with self._database.read() as connection:
            found = connection.execute(query).scalars().all()
        if not found:
            raise EventGone
        return [vis.VisualizeResponse.FromString(payload) for payload in found]

    def volumes(self, number: int) -> list[Volume]:
        """Return a job's volumes, also those whose files made room."""
        table = schema.volume.c
        columns = [table[column.name] for column in fields(Volume)]
        query = select(*columns).where(table.job == number).order_by(table.sequence)
        with self._database.read() as connection:
            return [Volume(**row._mapping) for row in connection.execute(query)]

    def newest_checkpoint(self, record: Record) -> Checkpoint | None:
        """Return the newest checkpoint whose digest verifies."""
        table = schema.checkpoint
        query = select(table).where(table.c.job == record.number).order_by(table.c.step.desc())
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            path, what = self.files.checkpoint(record.id, row.step), f"checkpoint of step {row.step}"
            try:
                return Checkpoint(row.step, row.told, files.read(path, row.sha256, row.bytes, what))
            except ArtifactCorrupt:
                self._metrics.checkpoint_failures.inc()
                self._metrics.storage_faults.labels("corrupt").inc()
                _log.warning("checkpoint_corrupt", job=record.name, step=row.step)
        return None

    def usage(self, owner: str) -> Usage:
        """Return what a caller's jobs take up."""
        table = schema.job.c
        open_jobs = table.state.not_in(_OVER)
        work = select(func.count(), func.coalesce(func.sum(table.voxel_steps), 0))
        # An image counts as long as it is there.
        size = table.stored_bytes + func.coalesce(func.length(table.private), 0)
        kept = select(func.coalesce(func.sum(size), 0)).where(table.owner == owner)
        with self._database.read() as connection:
            jobs, voxel_steps = connection.execute(work.where((table.owner == owner) & open_jobs)).one()
            return Usage(jobs, int(voxel_steps), int(connection.execute(kept).scalar_one()))

    def stored_bytes(self) -> int:
        """Return the bytes of all volumes and checkpoints."""
        with self._database.read() as connection:
            return int(
                connection.execute(select(func.coalesce(func.sum(schema.job.c.stored_bytes), 0))).scalar_one()
            )

    def expired(self, now: float, most: int) -> list[Record]:
        """Return jobs whose time is over; pinned ones never are."""
        table = schema.job.c
        query = select(*_COLUMNS).where((table.expires < now) & ~table.pinned).limit(most)
        with self._database.read() as connection:
            return [Record(**row._mapping) for row in connection.execute(query)]


def _one(connection: Connection, query: Select[Any]) -> Record | None:
    row = connection.execute(query).one_or_none()
    return None if row is None else Record(**row._mapping)
