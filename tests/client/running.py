"""What tests against the real server share."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from models import ZOO
from tests.server import RunningServer

MODEL = "lesion-shapes"
SMALL: dict[str, Any] = {"steps": 3, "canvas_mm": 48, "seed": 5}
SUBJECT = ZOO / MODEL / "1" / "reference.nii.gz"


def finished(server: RunningServer) -> list[dict[str, str]]:
    return [entry for entry in server.log if entry["event"] == "job_finished"]


def ended(server: RunningServer, job: str) -> str:
    """Wait until the server logs the job's end, and return its state."""
    wait_for(lambda: any(entry["job"] == job for entry in finished(server)))
    return next(entry["state"] for entry in finished(server) if entry["job"] == job)


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen within a minute"
        time.sleep(0.05)


class Restarted:
    """A server whose jobs and port outlive it.

    Parameters
    ----------
    data : Path
        Its folder.
    """

    def __init__(self, data: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._settings = {"data": data, "port": free.getsockname()[1], "checkpoint_seconds": 0.2}
        self._settings |= {"threads": 1, "device": "cpu"}
        self.start()

    def start(self) -> None:
        self.server = RunningServer(ZOO, own_group=True, **self._settings)
        self.target = self.server.target

    def drain(self) -> None:
        assert self.server.stop() == 0
        self.start()

    def kill(self) -> None:
        os.killpg(self.server.process.pid, signal.SIGKILL)
        self.server.process.wait()
        self.start()
