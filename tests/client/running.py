"""What tests against the real server share."""

from __future__ import annotations

import time
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
