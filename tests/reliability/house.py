"""A desk in the test's own process, whose executor invents results; closed in order or abandoned."""

import asyncio
from pathlib import Path

from benchmarks.reliability.quick import QuickExecutor
from models import Repository
from service.jobs.desk import Desk
from service.jobs.journal import Journal
from service.observability.metrics import Metrics
from service.security.audit import AuditLog
from service.settings import Settings
from service.storage.store import Store


async def _ignore(ready: bool) -> None:
    """Nobody waits for the executor."""


class House:
    """The desk on a folder; all else as in the server.

    Parameters
    ----------
    folder, repository : Path
        The data, and the bundles.
    """

    def __init__(self, folder: Path, repository: Path) -> None:
        self._folder = folder
        self.settings = Settings(repository=repository, data=folder, retention_hours=0)
        self.desk: Desk

    async def open(self) -> None:
        metrics, self._audit = Metrics({}), AuditLog(self._folder / "audit.jsonl")
        self._store = Store("", self._folder, lambda change: None)
        self._journal = Journal(self._store, metrics)
        repository = Repository(self.settings.repository)
        self.metrics = metrics
        self.desk = Desk(repository, self.settings, self._store, self._journal, self._audit, metrics)
        self.desk.open(QuickExecutor(self.settings, self._journal, metrics), _ignore)
        self._journal.start()
        await self.desk.recover()
        await self.desk.dispatcher.start()

    async def close(self) -> None:
        """Shut down as the server does."""
        await self.desk.dispatcher.drain(5)
        await self._journal.close(5)
        self._let_go()

    async def abandon(self) -> None:
        """Leave everything as it is, as a crash does; what has not been written is lost."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._journal.close(0)
        self._let_go()

    def _let_go(self) -> None:
        self._store.close()
        self._audit.close()
