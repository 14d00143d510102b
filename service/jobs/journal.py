"""The one who writes: what happens to jobs becomes durable in order, many changes at a time."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import structlog

from service.errors import Draining, StorageBusy, StorageFull
from service.jobs.job import Job
from service.observability.metrics import Metrics
from service.status import reason_of, to_status
from service.storage.records import Change
from service.storage.store import Store

# More than this is not taken before some of it is written: whoever reports waits.
_MOST_CHANGES, _MOST_BYTES = 2048, 64 << 20
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_Answer = TypeVar("_Answer")
_log = structlog.get_logger()


class Journal:
    """Commits changes and tells the jobs' watchers.

    While the disk is full or the database locked, changes wait and are tried
    again; nothing is lost and nobody is told of them.

    Parameters
    ----------
    store : Store
        Where to.
    metrics : Metrics
        Where figures go.
    """

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._pending: list[tuple[Job, Change, asyncio.Future[None]]] = []
        self._bytes = 0
        self._work = asyncio.Event()
        self._progress = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def start(self, on_death: Callable[["asyncio.Task[None]"], None] = lambda task: None) -> None:
        """Begin to write; `on_death` is told if that ends."""
        self._task = asyncio.create_task(self._serve())
        self._task.add_done_callback(on_death)

    async def write(self, act: Callable[[], _Answer]) -> _Answer:
        """Do something else that changes the storage, in its turn.

        Raises
        ------
        StorageFull, StorageBusy, Draining
            Nothing has changed.
        """
        if self._closed:
            raise Draining
        return await self._in_turn(act)

    async def _in_turn(self, act: Callable[[], _Answer]) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._writer, act)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of volumes and checkpoints that are not written yet."""
        return self._bytes

    def add(self, job: Job, change: Change) -> asyncio.Future[None]:
        """Take a change; the future is done when it is committed and told."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((job, change, done))
        self._bytes += _size(change)
        self._work.set()
        return done

    async def room(self) -> None:
        """Return when few changes wait."""
        while len(self._pending) > _MOST_CHANGES or self._bytes > _MOST_BYTES:
            self._progress.clear()
            await self._progress.wait()

    async def close(self, seconds: float) -> None:
        """Write what waits, for so long, and end."""
        end = time.monotonic() + seconds
        self._closed = True
        while self._pending and time.monotonic() < end:
            await asyncio.sleep(0.01)
        if self._task is not None:
            self._task.cancel()
        self._writer.shutdown()

    async def _serve(self) -> None:
        pause, tried = _FIRST_PAUSE, 0
        while True:
            await self._work.wait()
            batch = list(self._pending)
            changes = [change for _, change, _ in batch]
            begun = time.monotonic()
            try:
                await self._in_turn(partial(self._store.commit, changes, tried))
            except (StorageFull, StorageBusy) as error:
                self._metrics.storage_faults.labels(
                    "full" if isinstance(error, StorageFull) else "busy"
                ).inc()
                _log.warning("storage_fault", reason=error.reason, changes=len(batch), next_try_seconds=pause)
                tried = max(tried, len(batch))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            except Exception as error:
                _log.critical("journal_failed", reason=reason_of(to_status(error)))
                raise
            self._metrics.storage_commit.observe(time.monotonic() - begun)
            pause, tried = _FIRST_PAUSE, 0
            self._told(batch)

    def _told(self, batch: list[tuple[Job, Change, asyncio.Future[None]]]) -> None:
        del self._pending[: len(batch)]
        for job, change, done in batch:
            self._bytes -= _size(change)
            job.commit(change)
            if not done.cancelled():
                done.set_result(None)
        if not self._pending:
            self._work.clear()
        self._progress.set()


def _size(change: Change) -> int:
    return len(change.volume.data if change.volume else b"") + len(
        change.checkpoint.data if change.checkpoint else b""
    )
