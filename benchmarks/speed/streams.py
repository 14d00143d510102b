"""What the service adds: the first event, the events' way to the caller, and what streaming costs a run."""

import time
from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks.facts import summary
from benchmarks.speed.climb import CHANNELS, asked
from models import ZOO
from neurofv.v1 import visualization_service_pb2 as vis
from tests.server import RunningServer

UNITS = 16


def measure(rounds: int = 5) -> dict[str, object]:
    """Measure on a real server whose worker is warm."""
    server = RunningServer(ZOO)
    try:
        _run(server, _shown("classifier", 1, 16))
        firsts = [_run(server, _shown("classifier", 1, 2))["first"] for _ in range(4 * rounds)]
        return {
            "first_event": summary(firsts),
            "default_canvas_of_a_class": _streaming(server, _shown("classifier", 1, 256), 2),
            "small_canvas_of_a_channel": _streaming(server, _shown(*CHANNELS[0], 256), rounds),
            "many_units": _many_units(server, rounds),
        }
    finally:
        server.stop()


def _shown(layer: str, channel: int, steps: int) -> vis.VisualizeRequest:
    request = asked(layer, channel, False, steps)
    request.ClearField("snapshot_every")  # as often as by default
    return request


def _run(server: RunningServer, request: vis.VisualizeRequest) -> dict[str, float]:
    """Run a request and note when its events came, by the caller's clock."""
    begun, found = time.time(), {"first": 0.0, "steps": 0.0, "began": 0.0, "ended": 0.0}
    delays = []
    for event in server.visualization.Visualize(request, timeout=900):
        now = time.time()
        found["first"] = found["first"] or now - begun
        delays.append(now - event.time.ToNanoseconds() / 1e9)
        if event.HasField("progress"):
            made = event.time.ToNanoseconds() / 1e9
            found["began"] = found["began"] or made - event.progress.step_seconds
            found["ended"] = made
            found["steps"] += event.progress.step_seconds
    return found | {"total": time.time() - begun, "delay": max(delays), "typical_delay": median(delays)}


def _streaming(server: RunningServer, request: vis.VisualizeRequest, rounds: int) -> dict[str, object]:
    """Return what share of the time from the first step to the last was no step, and the events' delays."""
    runs = [_run(server, request) for _ in range(rounds)]
    shares = [1 - run["steps"] / (run["ended"] - run["began"]) for run in runs]
    return {
        "run_ms": 1000 * median(run["total"] for run in runs),
        "step_ms": 1000 * median(run["steps"] for run in runs) / request.steps,
        "streaming_share": float(np.median(shares)),
        "event_delay_median_ms": 1000 * median(run["typical_delay"] for run in runs),
        "event_delay_maximum_ms": 1000 * max(run["delay"] for run in runs),
    }


def _many_units(server: RunningServer, rounds: int) -> dict[str, float]:
    """Return the time of one job of 16 units, and of 16 jobs of one, one after the other."""
    layer, _ = CHANNELS[0]
    singles = [_shown(layer, channel, 64) for channel in range(UNITS)]
    together = _shown(layer, 0, 64)
    for single in singles[1:]:
        together.batch.add().CopyFrom(single.objective)

    def timed(work: Callable[[], object]) -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    pairs = [
        (timed(lambda: _run(server, together)), timed(lambda: [_run(server, single) for single in singles]))
        for _ in range(rounds)
    ]
    one, many = (median(times) for times in zip(*pairs, strict=True))
    return {"one_job_seconds": one, "single_jobs_seconds": many, "ratio": one / many}
