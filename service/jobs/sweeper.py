"""Who removes what has expired, and never what is pinned."""

import asyncio
import time

import structlog

from service.errors import Draining, StorageBusy, StorageFull
from service.jobs.journal import Journal
from service.observability.metrics import Metrics
from service.security.audit import AuditLog
from service.security.identity import SERVER
from service.storage.database import StorageUnusable
from service.storage.records import Record
from service.storage.store import Store

_AT_ONCE = 100
_log = structlog.get_logger()


class Sweeper:
    """Goes through the store again and again.

    Parameters
    ----------
    store : Store
        The jobs.
    journal : Journal
        Who writes.
    audit : AuditLog
        Where each removal is recorded first.
    metrics : Metrics
        Where figures go.
    """

    def __init__(self, store: Store, journal: Journal, audit: AuditLog, metrics: Metrics) -> None:
        self._store, self._journal = store, journal
        self._audit, self._metrics = audit, metrics

    async def run(self, seconds: float) -> None:
        """Sweep every so many seconds, for ever.

        Raises
        ------
        StorageUnusable
            The database is another server's by now.
        """
        while True:
            try:
                while await self.sweep():
                    pass
            except (StorageFull, StorageBusy) as error:
                _log.warning("sweep_failed", reason=error.reason)
            except (StorageUnusable, Draining):
                raise
            except Exception as error:
                # What could not be removed now is tried again; jobs go on meanwhile.
                _log.error("sweep_failed", exc_info=error)
            await asyncio.sleep(seconds)

    async def sweep(self) -> int:
        """Remove jobs whose time is over; return how many."""
        now = time.time()
        expired = await asyncio.to_thread(self._store.expired, now, _AT_ONCE)
        for record in expired:

            def act(record: Record = record) -> bool:
                # It may have been pinned since it was listed.
                still = self._store.get(record.id)
                if still is None or still.pinned or still.expires is None or still.expires >= now:
                    return False
                self._audit.record(SERVER, "job.expire", record.name, owner=record.owner)
                self._store.delete(record, expired=True)
                return True

            if await self._journal.write(act):
                self._metrics.jobs_expired.inc()
        await self._journal.write(lambda: self._store.tidy(now))
        self._metrics.stored_bytes.set(await asyncio.to_thread(self._store.stored_bytes))
        return len(expired)
