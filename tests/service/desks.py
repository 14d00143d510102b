"""A desk with a real worker process, inside the test's own."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from models import ZOO, Repository
from service.jobs.desk import Desk
from service.jobs.journal import Journal
from service.observability.metrics import Metrics
from service.security.audit import AuditLog
from service.settings import Settings
from service.storage.store import Store
from service.worker.process import WorkerProcess


async def _ignore(ready: bool) -> None:
    """Whoever waits for the worker does not mind."""


async def open_desk(
    folder: Path, on_change: Callable[[bool], Awaitable[None]] = _ignore, **settings: object
) -> tuple[Desk, WorkerProcess, Callable[[], Awaitable[None]]]:
    """Open a desk on a folder; the last of what is returned closes it."""
    chosen = Settings(repository=ZOO, data=folder, **({"threads": 1} | settings))  # type: ignore[arg-type]
    metrics, audit = Metrics({}), AuditLog(folder / "audit.jsonl")
    store = Store(chosen.database, folder, metrics, lambda change: None)
    journal = Journal(store, metrics)
    desk = Desk(Repository(ZOO), chosen, store, journal, audit, metrics)
    worker = WorkerProcess(chosen, journal, metrics)
    desk.open(worker, on_change)
    journal.start()
    await desk.recover()
    await desk.dispatcher.start()

    async def close() -> None:
        await desk.dispatcher.drain(5)
        await journal.close(5)
        store.close()
        audit.close()

    return desk, worker, close
