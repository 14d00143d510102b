"""What `Estimate` predicts beside what a job takes, each on a worker of its own."""

import re
from pathlib import Path
from statistics import median

from benchmarks.speed.climb import asked
from models import ZOO
from neurofv.v1 import visualization_service_pb2 as vis
from tests.server import RunningServer

CASES = (
    ("blocks.1.conv", 5, False),
    ("blocks.1.conv", 5, True),
    ("blocks.3.conv", 7, False),
    ("classifier", 1, False),
    ("classifier", 1, True),
)
_STEPS = 24


def measure() -> dict[str, dict[str, float]]:
    """Return, by case, predicted and actual milliseconds of a step and megabytes that a job adds."""
    return {f"{layer}, {'whole grid' if whole else 'default canvas'}": _case(layer, channel, whole)
            for layer, channel, whole in CASES}  # fmt: skip


def _case(layer: str, channel: int, whole: bool) -> dict[str, float]:
    request = asked(layer, channel, whole, _STEPS)
    server = RunningServer(ZOO)
    try:
        (worker,) = server.workers()
        before = _peak(worker)
        steps = [
            event.progress.step_seconds
            for event in server.visualization.Visualize(request, timeout=900)
            if event.HasField("progress")
        ]
        added = _peak(worker) - before
        told = server.visualization.Estimate(vis.EstimateRequest(request=request), timeout=900)
    finally:
        server.stop()
    return {
        "predicted_ms": 1000 * told.step_seconds,
        "actual_ms": 1000 * median(steps),
        "time_ratio": told.step_seconds / median(steps),
        "predicted_mb": told.peak_bytes / 1e6,
        "actual_mb": added / 1e6,
        "memory_ratio": told.peak_bytes / added,
    }


def _peak(pid: int) -> int:
    """Return the most memory that a process has had, bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])  # type: ignore[index]
