"""A desk in the test's own process, with everything behind it; closed in order or abandoned."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.reliability.quick import QuickExecutor
from models import ZOO, Repository
from service.jobs.desk import Desk
from service.jobs.journal import Journal
from service.jobs.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.security.audit import AuditLog
from service.settings import Settings
from service.storage.store import Store


async def _ignore(ready: bool) -> None:
    """Nobody waits for the executor."""


class House:
    """The desk on a folder; all as in the server, but for an executor that may invent its results.

    Parameters
    ----------
    folder : Path
        The data.
    executor : type
        Takes settings, journal and metrics, as `WorkerProcess` does.
    on_change : callable
        Told whether the executor is ready.
    **settings
        Others than the defaults.
    """

    def __init__(
        self,
        folder: Path,
        executor: Callable[..., Any] = QuickExecutor,
        on_change: Callable[[bool], Awaitable[None]] = _ignore,
        **settings: Any,
    ) -> None:
        self._folder, self._kind, self._on_change = folder, executor, on_change
        self.settings = Settings(**({"repository": ZOO, "data": folder, "threads": 1} | settings))

    async def open(self) -> "House":
        self.metrics, self.audit = Metrics({}), AuditLog(self._folder / "audit.jsonl")
        self.deaths: list[BaseException | None] = []
        self.store = Store("", self._folder, self.metrics, lambda change: None)
        self.journal = Journal(self.store, self.metrics)
        repository = Repository(self.settings.repository)
        self.desk = Desk(repository, self.settings, self.store, self.journal, self.audit, self.metrics)
        self.executor = self._kind(self.settings, self.journal, self.metrics)
        self.sweeper = Sweeper(self.store, self.journal, self.audit, self.metrics)
        self.desk.open(self.executor, self._on_change, self._died)
        self.journal.start(self._died)
        await self.desk.recover()
        await self.desk.dispatcher.start()
        return self

    async def close(self, grace_seconds: float = 5) -> None:
        """Shut down as the server does."""
        await self.desk.dispatcher.drain(grace_seconds)
        await self.journal.close(grace_seconds)
        self._let_go()

    async def abandon(self) -> None:
        """Leave everything as it is, as a crash does; what has not been written is lost."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.journal.close(0)
        self._let_go()

    def _died(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            self.deaths.append(task.exception())

    def _let_go(self) -> None:
        self.store.close()
        self.audit.close()
