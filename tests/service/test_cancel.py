"""A caller who leaves stops the optimizer, and nobody blocks anybody."""

import subprocess
import sys
import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tests.server import RunningServer
from tests.service.requests import CUBE, SMALL, Stream, request

LONG = request(CUBE, SMALL, "steps: 5000 snapshot_every: 1")
CANCELLED = 'neurofv_jobs_finished_total{model="lesion-shapes",reason="",state="CANCELLED"}'


def _wait(condition: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def _until_step(call: object, step: int) -> int:
    return next(event.progress.step for event in call if event.progress.step >= step)  # type: ignore[attr-defined]


def _steps(server: RunningServer) -> float:
    return server.metric('neurofv_optimizer_steps_total{model="lesion-shapes"}')


def test_a_cancel_stops_the_optimizer(server: RunningServer) -> None:
    before = server.metric(CANCELLED)
    call = server.visualization.Visualize(LONG, timeout=120)
    _until_step(call, 3)
    call.cancel()
    _wait(lambda: server.metric(CANCELLED) == before + 1)
    done = _steps(server)
    time.sleep(1)
    assert _steps(server) == done
    assert server.metric("neurofv_cancel_latency_seconds_count") >= 1


def test_a_deadline_stops_the_optimizer(server: RunningServer) -> None:
    late = (
        'grpc_server_handled_total{grpc_code="DEADLINE_EXCEEDED",grpc_method="Visualize",'
        'grpc_service="neurofv.v1.VisualizationService",grpc_type="server_stream"}'
    )
    before, before_late = server.metric(CANCELLED), server.metric(late)
    with pytest.raises(grpc.RpcError) as caught:
        list(server.visualization.Visualize(LONG, timeout=2))
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    _wait(lambda: server.metric(CANCELLED) == before + 1)
    assert server.metric(late) == before_late + 1


def test_a_client_that_is_killed_mid_stream(server: RunningServer) -> None:
    """A process that dies while volumes are on their way says no goodbye."""
    before = server.metric(CANCELLED)
    script = (
        "import sys, grpc\n"
        "from neurofv.v1 import visualization_service_pb2 as vis, visualization_service_pb2_grpc as api\n"
        "stub = api.VisualizationServiceStub(grpc.insecure_channel(sys.argv[1]))\n"
        "request = vis.VisualizeRequest.FromString(bytes.fromhex(sys.argv[2]))\n"
        "for event in stub.Visualize(request):\n"
        "    if event.HasField('volume_chunk'):\n"
        "        print('chunk', flush=True)\n"
    )
    command = [sys.executable, "-c", script, server.target, LONG.SerializeToString().hex()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "chunk\n"
        client.kill()
    _wait(lambda: server.metric(CANCELLED) == before + 1)
    assert server.check() == health_pb2.HealthCheckResponse.SERVING
    short = request(CUBE, SMALL, "steps: 2")
    assert Stream(list(server.visualization.Visualize(short, timeout=120))).kinds()[-1] == "completed"


def test_a_waiting_job_is_cancelled_at_once(server: RunningServer) -> None:
    running = server.visualization.Visualize(LONG, timeout=120)
    _until_step(running, 1)
    waiting = server.visualization.Visualize(LONG, timeout=120)
    assert next(waiting).accepted.job
    assert server.metric("neurofv_queue_depth") == 1
    before = server.metric(CANCELLED)
    waiting.cancel()
    _wait(lambda: server.metric(CANCELLED) == before + 1)
    assert server.metric("neurofv_queue_depth") == 0
    assert server.metric("neurofv_jobs_running") == 1
    running.cancel()
    _wait(lambda: server.metric(CANCELLED) == before + 2)


def test_two_streams_complete_and_health_answers_meanwhile(server: RunningServer) -> None:
    asked = request(CUBE, SMALL, "steps: 25 snapshot_every: 5")
    streams: list[Stream] = []

    def run() -> None:
        streams.append(Stream(list(server.visualization.Visualize(asked, timeout=240))))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    answers = 0
    while any(thread.is_alive() for thread in threads):
        assert server.check() == health_pb2.HealthCheckResponse.SERVING
        answers += 1
        time.sleep(0.01)
    assert [stream.kinds()[-1] for stream in streams] == ["completed", "completed"]
    assert len({stream.begins["final"].sha256 for stream in streams}) == 1
    assert answers > 10


def test_a_slow_reader_gets_the_newest_snapshots_and_the_whole_final(server: RunningServer) -> None:
    """Whatever it misses, sequence numbers have no gap, and progress and the final volume are complete."""
    asked = request(CUBE, SMALL, "steps: 60 snapshot_every: 1")
    events = []
    for event in server.visualization.Visualize(asked, timeout=240):
        events.append(event)
        if event.HasField("volume_begin"):
            time.sleep(0.2)
    stream = Stream(events)
    assert Stream(events).has_no_gaps()
    assert stream.kinds().count("progress") == 60
    assert "final" in stream.volumes
    assert len(stream.begins) < 60
    assert server.metric("neurofv_intermediates_coalesced_total") > 0
