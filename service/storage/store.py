"""The jobs' rows, events, volumes and checkpoints. Every method blocks; callers bring a thread."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from neurofv.v1 import visualization_service_pb2 as vis
from service.failpoints import failpoint
from service.observability.metrics import Metrics
from service.storage import files, schema
from service.storage.database import Database
from service.storage.files import Files
from service.storage.queries import Queries
from service.storage.records import Change, Checkpoint, Record

_KEPT_CHECKPOINTS = 2
# An owner is told for so long that a job was there once.
_REMEMBER_SECONDS = 30 * 86400.0


class Store(Queries):
    """Jobs on disk.

    Parameters
    ----------
    url : str
        The database; empty for SQLite in the folder.
    folder : Path
        The server's own.
    metrics : Metrics
        Where figures go.
    audit : callable
        Records the end of a job before it is stored.

    Raises
    ------
    StorageUnusable
        It cannot be this server's.
    """

    def __init__(self, url: str, folder: Path, metrics: Metrics, audit: Callable[[Change], None]) -> None:
        super().__init__(Database(url, folder), Files(folder), metrics)
        self._audit = audit

    def close(self) -> None:
        """Let go of it."""
        self._database.close()

    def create(
        self,
        columns: dict[str, Any],
        events: Sequence[vis.VisualizeResponse],
        request_id: str,
        body: str,
        until: float,
        admit: Callable[[], None] = lambda: None,
    ) -> tuple[Record, bool]:
        """Store a new job with its first events, or find the one of the same request_id.

        Parameters
        ----------
        columns : dict
            The row's values but for the number.
        events : sequence of VisualizeResponse
            Numbered.
        request_id : str
            The caller's, or empty.
        body : str
            Digest of what was asked for.
        until : float
            When the request_id is forgotten.
        admit : callable
            Called before a job is stored that is new; what it raises leaves everything as it was.

        Returns
        -------
        tuple of (Record, bool)
            The job, and whether it is new.

        Raises
        ------
        RequestIdReused
            The request_id belongs to another body.
        StorageFull, StorageBusy
            Nothing was stored.
        """
        with self._database.write() as connection:
            if request_id and (known := self._known(connection, columns["owner"], request_id, body)):
                return known, False
            admit()
            answer = connection.execute(insert(schema.job).values(columns))
            key = answer.inserted_primary_key
            assert key is not None
            number = key[0]
            connection.execute(insert(schema.event), _event_rows(number, events))
            if request_id:
                table, row = schema.request_id, {"owner": columns["owner"], "request_id": request_id}
                # One whose day has passed.
                old = (table.c.owner == columns["owner"]) & (table.c.request_id == request_id)
                connection.execute(delete(table).where(old))
                row |= {"body": body, "job": columns["id"]}
                connection.execute(insert(table).values(**row, expires=until))
            failpoint("job.before_commit")
        failpoint("job.after_commit")
        return _record(number=number, **columns), True

    def commit(self, changes: Sequence[Change], tried: int = 0) -> None:
        """Store what happened, all or nothing.

        Parameters
        ----------
        changes : sequence of Change
            In order.
        tried : int
            So many of the first of them may have been stored: their commit was not answered.

        Raises
        ------
        StorageFull, StorageBusy
            Nothing was stored; the same changes may be tried again.
        """
        for change in changes:
            if not change.filed:
                self._file(change)
        over = any(change.over for change in changes)
        for change in changes:
            if change.audit:
                self._audit(change)
                change.audit = {}
        with self._database.write() as connection:
            again = [change for change in changes[:tried] if not self._is_stored(connection, change)]
            new = [*again, *changes[tried:]]
            images = any(change.over and self._has_images(connection, change) for change in new)
            old = [path for change in new for path in self._write(connection, change)]
            if any(change.columns.get("state") == vis.JOB_STATE_CANCELLING for change in changes):
                failpoint("cancel.before_commit")
            failpoint("end.before_commit" if over else "events.before_commit")
        failpoint("end.after_commit" if over else "events.after_commit")
        files.drop(old)
        for change in changes:
            if change.over:
                self.files.remove(change.id, checkpoints_only=True)
        if images:
            self._database.scrub()

    def _file(self, change: Change) -> None:
        """Write a change's files; tried again, the change need not write them once more."""
        if change.volume is not None:
            path = self.files.volume(change.id, change.events[0].sequence)
            files.write(path, change.volume.data, "volume", durable=not change.volume.is_snapshot)
        if change.checkpoint is not None:
            path = self.files.checkpoint(change.id, change.checkpoint.step)
            with self._metrics.checkpoint_write.time():
                files.write(path, change.checkpoint.data, "checkpoint")
        change.filed = True

    def _is_stored(self, connection: Connection, change: Change) -> bool:
        table = schema.job.c
        last = connection.execute(select(table.last_sequence).where(table.number == change.number)).scalar()
        return bool(change.events) and last is not None and last >= change.events[-1].sequence

    def _has_images(self, connection: Connection, change: Change) -> bool:
        table = schema.job.c
        query = select(table.private.is_not(None)).where(table.number == change.number)
        return bool(connection.execute(query).scalar())

    def _write(self, connection: Connection, change: Change) -> list[Path]:
        """Write a change; return the files that nothing will speak of any more."""
        number = change.number
        if change.events:
            connection.execute(insert(schema.event), _event_rows(number, change.events))
        old = []
        if change.volume is not None:
            begin = change.volume.begin
            row: dict[str, Any] = {"job": number, "sequence": change.events[0].sequence, "kept": True}
            row |= {"name": begin.id, "sha256": begin.sha256, "bytes": begin.bytes}
            row["snapshot"] = change.volume.is_snapshot
            connection.execute(insert(schema.volume).values(row))
        if change.checkpoint is not None:
            old += self._write_checkpoint(connection, change, change.checkpoint)
        table = schema.volume.c
        for volume in change.dropped:
            mine = (table.job == number) & (table.name == volume.name)
            connection.execute(update(schema.volume).where(mine).values(kept=False))
            old.append(self.files.volume(change.id, volume.sequence))
        if change.over:
            connection.execute(delete(schema.checkpoint).where(schema.checkpoint.c.job == number))
        if change.columns:
            connection.execute(update(schema.job).where(schema.job.c.number == number).values(change.columns))
        return old

    def _write_checkpoint(self, connection: Connection, change: Change, new: Checkpoint) -> list[Path]:
        table, number = schema.checkpoint, change.number
        # The same step again, after a crash, replaces what may have been damaged.
        connection.execute(delete(table).where((table.c.job == number) & (table.c.step >= new.step)))
        row = {"job": number, "step": new.step, "told": new.told, "bytes": len(new.data)}
        connection.execute(insert(table).values(**row, sha256=hashlib.sha256(new.data).hexdigest()))
        steps = select(table.c.step).where(table.c.job == number).order_by(table.c.step.desc())
        old = connection.execute(steps.offset(_KEPT_CHECKPOINTS)).scalars().all()
        connection.execute(delete(table).where((table.c.job == number) & table.c.step.in_(old)))
        return [self.files.checkpoint(change.id, step) for step in old]

    def pin(self, number: int, pinned: bool) -> None:
        """Keep a job, or let it expire."""
        with self._database.write() as connection:
            connection.execute(update(schema.job).where(schema.job.c.number == number).values(pinned=pinned))

    def delete(self, record: Record, expired: bool = False) -> None:
        """Remove a job with all that belongs to it; of one that has expired a tombstone stays."""
        with self._database.write() as connection:
            for table in (schema.event, schema.volume, schema.checkpoint):
                connection.execute(delete(table).where(table.c.job == record.number))
            connection.execute(delete(schema.job).where(schema.job.c.number == record.number))
            connection.execute(delete(schema.request_id).where(schema.request_id.c.job == record.id))
            if expired:
                row = {"id": record.id, "owner": record.owner, "removed": time.time()}
                connection.execute(insert(schema.tombstone).values(row))
            failpoint("delete.before_commit")
        failpoint("delete.after_commit")
        self.files.remove(record.id)

    def tidy(self, now: float) -> None:
        """Forget old request_ids and tombstones, and remove files of jobs that are not there.

        Raises
        ------
        StorageUnusable
            The database is another server's by now.
        """
        self._database.check()
        with self._database.write() as connection:
            connection.execute(delete(schema.request_id).where(schema.request_id.c.expires < now))
            old = schema.tombstone.c.removed < now - _REMEMBER_SECONDS
            connection.execute(delete(schema.tombstone).where(old))
            there = self.files.jobs()
            known = set(connection.execute(select(schema.job.c.id)).scalars())
        for stray in there - known:
            self.files.remove(stray)
        self._database.scrub()


def _event_rows(number: int, events: Sequence[vis.VisualizeResponse]) -> list[dict[str, Any]]:
    return [
        {"job": number, "sequence": event.sequence, "payload": event.SerializeToString()} for event in events
    ]


def _record(**columns: Any) -> Record:
    names: list[str] = [column.name for column in fields(Record)]
    values: Any = {name: columns.get(name) for name in names}
    return Record(**values)
