"""Latencies of the service while it works: `make bench-service`.

Two clients stream at the same time; a third asks the health service every
10 ms. Then calls are cancelled, and the time until the optimizer has stopped is
read from the server's own histogram.
"""

import threading
import time

from rich.progress import track

from benchmarks.facts import summary, write
from models import ZOO
from neurofv.v1 import visualization_service_pb2 as vis
from tests.server import RunningServer

ROUNDS = 5
CANCELS = 20
CLASSES = ("sphere", "torus")


def request(name: str, steps: int = 128) -> vis.VisualizeRequest:
    """Return a request with the method's defaults."""
    asked = vis.VisualizeRequest(model="lesion-shapes", steps=steps)
    asked.objective.terms.add().class_logit.class_name = name
    return asked


def stream(server: RunningServer, name: str, found: list[dict[str, float]]) -> None:
    """Run a visualization and note when its events came."""
    begun, first, events = time.perf_counter(), 0.0, 0
    for _event in server.visualization.Visualize(request(name), timeout=600):
        first = first or time.perf_counter() - begun
        events += 1
    found.append({"first_event": first, "total": time.perf_counter() - begun, "events": events})


def check_while_streaming(server: RunningServer) -> tuple[list[float], list[dict[str, float]]]:
    """Return the latencies of `Check` and what the two streams noted."""
    checks: list[float] = []
    found: list[dict[str, float]] = []
    threads = [threading.Thread(target=stream, args=(server, name, found)) for name in CLASSES]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        begun = time.perf_counter()
        server.check()
        checks.append(time.perf_counter() - begun)
        time.sleep(0.01)
    return checks, found


def cancel(server: RunningServer) -> None:
    """Leave a stream after its third step and wait until the server has noticed."""
    count = server.metric("neurofv_cancel_latency_seconds_count")
    call = server.visualization.Visualize(request("cube", steps=5000), timeout=600)
    next(event for event in call if event.progress.step == 3)
    call.cancel()
    while server.metric("neurofv_cancel_latency_seconds_count") == count:
        time.sleep(0.01)


def main() -> None:
    """Measure and write."""
    server = RunningServer(ZOO)
    checks: list[float] = []
    streams: list[dict[str, float]] = []
    for _ in track(range(ROUNDS), "two streams and health checks"):
        some, found = check_while_streaming(server)
        checks += some
        streams += found
    for _ in track(range(CANCELS), "cancels"):
        cancel(server)
    cancel_mean = server.metric("neurofv_cancel_latency_seconds_sum") / CANCELS
    steps = server.metric("neurofv_optimizer_step_duration_seconds_sum")
    step_mean = steps / server.metric("neurofv_optimizer_step_duration_seconds_count")
    server.stop()
    write(
        "service",
        {
            "check_during_two_streams": summary(checks),
            "streams_completed": len(streams),
            "first_event": summary([entry["first_event"] for entry in streams]),
            "stream_of_128_steps_two_at_a_time": summary([entry["total"] for entry in streams]),
            "cancel_to_stopped_mean_ms": round(1000 * cancel_mean, 2),
            "step_mean_ms": round(1000 * step_mean, 2),
        },
    )


if __name__ == "__main__":
    main()
