"""A real server on one folder, which is started again whenever it dies."""

import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import grpc

from benchmarks.reliability.tiny import make_zoo
from tests.server import RunningServer

_Answer = TypeVar("_Answer")
# What a restart in the middle of a call looks like to the caller.
RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class Site:
    """The server, its folder and its supervisor.

    Parameters
    ----------
    root : Path
        Where the repository and the data lie.
    **settings
        The server's, beside those that make it small.
    """

    def __init__(self, root: Path, **settings: object) -> None:
        self.data = Path(str(settings.get("data", root / "data")))
        repository = settings.pop("repository", None) or make_zoo(root / "zoo")
        self._settings: dict[str, Any] = {"repository": repository, "data": self.data, "threads": 1}
        self._settings |= {"port": _free_port(), "grace_seconds": 2, **settings}
        self.starts = 0
        self._lock = threading.Lock()
        self.server = self._start()
        self._channel_lock = threading.Lock()

    def _start(self, **more: object) -> RunningServer:
        self.starts += 1
        return RunningServer(**(self._settings | more))

    @property
    def pid(self) -> int:
        """The server's process."""
        return self.server.process.pid

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self.server.process.poll() is None

    def workers(self) -> list[int]:
        """Return the processes of its workers."""
        with suppress(OSError):
            return self.server.workers()
        return []

    def revive(self, **settings: object) -> bool:
        """Start the server again if it is dead; say whether it was."""
        with self._lock:
            if self.alive:
                return False
            self.server.channel.close()
            self.server = self._start(**settings)
            return True

    def kill(self, worker: bool = False) -> bool:
        """Kill the server or its worker, as `kill -9` does; say whether there was one."""
        found = self.workers() if worker else [self.pid]
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not worker:
            self.server.process.wait()
        return bool(found)

    def call(self, ask: Callable[[RunningServer], _Answer], seconds: float = 120) -> _Answer:
        """Ask, and ask again while the server is away."""
        end = time.monotonic() + seconds
        while True:
            try:
                return ask(self.server)
            except (grpc.RpcError, ValueError) as error:
                away = not isinstance(error, grpc.RpcError) or error.code() in RETRIED
                if not away or time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def stop(self) -> int:
        """Shut the server down in good order and return its exit code."""
        if not self.alive:
            return self.server.process.returncode
        return self.server.stop()


@contextmanager
def site(**settings: object) -> Iterator[Site]:
    """Open a site in a folder of its own; it and its processes are gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="neurofv-reliability-"))
    opened = None
    try:
        opened = Site(root, **settings)
        yield opened
    finally:
        if opened is not None and opened.alive:
            opened.stop()
        shutil.rmtree(root, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
