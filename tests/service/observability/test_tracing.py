"""Traces of a real server, received by a real OTLP receiver."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from models import ZOO
from neurofv.v1 import model_service_pb2
from tests.server import RunningServer
from tests.service.requests import CUBE, SMALL, request

TRACE = "0af7651916cd43dd8448eb211c80319c"
CANARY = "Erika-Mustermann"
ALLOWED = {
    "rpc.system",
    "rpc.service",
    "rpc.method",
    "rpc.grpc.status_code",
    "neurofv.model",
    "neurofv.steps",
    "neurofv.attempt",
    "neurofv.state",
    "neurofv.reason",
}


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """An OpenTelemetry collector that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[trace_pb2.Span] = []
        self.resources: list[dict[str, str]] = []
        self.sent = ""
        self._server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(  # noqa: N802 (the contract's name)
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self.sent += MessageToJson(request)
        for group in request.resource_spans:
            self.resources.append({pair.key: pair.value.string_value for pair in group.resource.attributes})
            for scope in group.scope_spans:
                self.spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()

    def wait_for(
        self, name: str, wanted: Callable[[trace_pb2.Span], bool] = lambda _: True, seconds: float = 30
    ) -> trace_pb2.Span:
        """Return the newest span of a name that fits, once it is there."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for span in reversed(self.spans):
                if span.name == name and wanted(span):
                    return span
            time.sleep(0.1)
        raise AssertionError(f"no span {name}; there are {sorted({span.name for span in self.spans})}")

    def stop(self) -> None:
        self._server.stop(0).wait()


def facts(span: trace_pb2.Span) -> dict[str, str | int]:
    """Return a span's attributes."""
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in span.attributes}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def traced(receiver: Receiver) -> Iterator[RunningServer]:
    """A server that sends its traces to the receiver, five times a second."""
    os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "200"
    try:
        running = RunningServer(ZOO, otlp_endpoint=receiver.endpoint)
    finally:
        del os.environ["OTEL_BSP_SCHEDULE_DELAY"]
    yield running
    assert running.stop() == 0


def test_a_stream_is_one_span_in_the_callers_trace(traced: RunningServer, receiver: Receiver) -> None:
    caller = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"), ("tracestate", f"x={CANARY}"))
    message = request(CUBE, SMALL, "steps: 4")
    list(traced.visualization.Visualize(message, timeout=240, metadata=caller))
    span = receiver.wait_for("/neurofv.v1.VisualizationService/Visualize")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, "b7ad6b7169203331")
    assert span.kind == trace_pb2.Span.SPAN_KIND_SERVER
    assert facts(span) == {
        "rpc.system": "grpc",
        "rpc.service": "neurofv.v1.VisualizationService",
        "rpc.method": "Visualize",
        "rpc.grpc.status_code": 0,
    }
    assert span.end_time_unix_nano > span.start_time_unix_nano
    assert {"neurofv"} == {resource["service.name"] for resource in receiver.resources}


def test_a_job_and_its_stages_are_below_its_call(traced: RunningServer, receiver: Receiver) -> None:
    list(traced.visualization.Visualize(request(CUBE, SMALL, "steps: 3"), timeout=240))
    job = receiver.wait_for("job", lambda span: facts(span)["neurofv.steps"] == 3, seconds=5)
    assert facts(job) == {"neurofv.model": "lesion-shapes", "neurofv.steps": 3, "neurofv.state": "SUCCEEDED"}
    call = receiver.wait_for(
        "/neurofv.v1.VisualizationService/Visualize", lambda span: span.span_id == job.parent_span_id
    )
    assert call.trace_id == job.trace_id
    queued, running = (
        receiver.wait_for(name, lambda span: span.parent_span_id == job.span_id)
        for name in ("queued", "running")
    )
    assert queued.end_time_unix_nano <= running.start_time_unix_nano
    assert facts(running) == {"neurofv.attempt": 1}


def test_a_refusal_has_its_code_and_no_words(traced: RunningServer, receiver: Receiver) -> None:
    call = traced.models.GetModel.future(model_service_pb2.GetModelRequest(name=CANARY), timeout=30)
    assert call.code() == grpc.StatusCode.NOT_FOUND
    assert CANARY in call.details()
    agent = grpc.insecure_channel(traced.target, options=[("grpc.primary_user_agent", CANARY)])
    with agent:
        method = agent.unary_unary("/neurofv.v1.ModelService/GetModel")
        assert method.future(b"\xff" + CANARY.encode(), timeout=30).code() is not grpc.StatusCode.OK
    code = grpc.StatusCode.NOT_FOUND.value[0]
    span = receiver.wait_for(
        "/neurofv.v1.ModelService/GetModel", lambda span: facts(span)["rpc.grpc.status_code"] == code
    )
    assert not span.events
    assert not span.status.message


def test_nothing_but_what_is_allowed_leaves(traced: RunningServer, receiver: Receiver) -> None:
    traced.check()
    traced.models.ListModels(model_service_pb2.ListModelsRequest(), timeout=30)
    receiver.wait_for("/neurofv.v1.ModelService/ListModels")
    assert {key for span in receiver.spans for key in facts(span)} <= ALLOWED
    assert CANARY not in receiver.sent
    assert "127.0.0.1" not in receiver.sent
    # Probes come every few seconds.
    assert not [span.name for span in receiver.spans if "Health" in span.name]
    assert {entry["event"] for entry in traced.log}.isdisjoint({"text", "tracing_trouble"})


def test_a_caller_who_leaves_ends_the_span(traced: RunningServer, receiver: Receiver) -> None:
    cancelled = grpc.StatusCode.CANCELLED.value[0]
    stream = traced.visualization.Visualize(request(CUBE, SMALL, "steps: 2000"), timeout=240)
    next(stream)
    stream.cancel()
    receiver.wait_for(
        "/neurofv.v1.VisualizationService/Visualize",
        lambda span: facts(span)["rpc.grpc.status_code"] == cancelled,
    )
    assert {entry["event"] for entry in traced.log}.isdisjoint({"text", "tracing_trouble"})


_JOBS = """
import sys
from service.observability import tracing
from service.settings import Settings

tracing.interceptors(Settings(otlp_endpoint=sys.argv[1]))
lucky = tracing.job_span("m", 5)
lucky.running()
lucky.end("SUCCEEDED")
unlucky = tracing.job_span("m", 6)
for _ in range(2):
    unlucky.running()
unlucky.end("FAILED", "WORKER_LOST")
unlucky.end("SUCCEEDED")
tracing.job_span("m", 7).end("CANCELLED")
"""


def test_a_job_tells_its_attempts_and_its_end(receiver: Receiver) -> None:
    # A process that ends sends what it still has.
    subprocess.run([sys.executable, "-c", _JOBS, receiver.endpoint], check=True, timeout=60, cwd=_root())
    jobs = {facts(span)["neurofv.steps"]: span for span in receiver.spans if span.name == "job"}
    assert facts(jobs[6]) == {
        "neurofv.model": "m",
        "neurofv.steps": 6,
        "neurofv.state": "FAILED",
        "neurofv.reason": "WORKER_LOST",
    }
    assert jobs[6].status.code == trace_pb2.Status.STATUS_CODE_ERROR
    assert jobs[5].status.code == trace_pb2.Status.STATUS_CODE_UNSET
    stages = [span for span in receiver.spans if span.parent_span_id == jobs[6].span_id]
    stages.sort(key=lambda span: span.start_time_unix_nano)
    assert [(span.name, facts(span).get("neurofv.attempt")) for span in stages] == [
        ("queued", None),
        ("running", 1),
        ("running", 2),
    ]
    assert [span.name for span in receiver.spans if span.parent_span_id == jobs[7].span_id] == ["queued"]


def test_a_collector_that_is_away_costs_no_call_and_is_logged() -> None:
    os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "200"
    try:
        server = RunningServer(ZOO, otlp_endpoint="http://127.0.0.1:9")
    finally:
        del os.environ["OTEL_BSP_SCHEDULE_DELAY"]
    server.models.ListModels(model_service_pb2.ListModelsRequest(), timeout=30)
    end = time.monotonic() + 30
    while not any(entry["event"] == "tracing_trouble" for entry in server.log):
        assert time.monotonic() < end, server.log
        time.sleep(0.1)
    server.models.ListModels(model_service_pb2.ListModelsRequest(), timeout=30)
    begun = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begun < 15
    assert "text" not in {entry["event"] for entry in server.log}


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys; from service.observability import tracing; from service.settings import Settings;"
        "assert tracing.interceptors(Settings()) == []; span = tracing.job_span('m', 1);"
        "span.running(); span.end('SUCCEEDED'); import service.server;"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=_root())


@pytest.mark.parametrize(
    ("endpoint", "hide", "said"),
    [
        ("localhost:4317", "", "otlp_endpoint is 'localhost:4317'"),
        ("http://localhost:4317", "opentelemetry.sdk", "pip install 'neurofv-service[tracing]'"),
    ],
)
def test_what_cannot_be_traced_is_said_at_start(endpoint: str, hide: str, said: str) -> None:
    code = (
        "import sys, importlib.abc\n"
        "class Hidden(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if {hide!r} and name.startswith({hide!r}): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "from service.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"NEUROFV_OTLP_ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=_root(),
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def _root() -> Path:
    return Path(__file__).parents[3]


def test_calls_at_once_have_spans_of_their_own(traced: RunningServer, receiver: Receiver) -> None:
    before = len(receiver.spans)
    calls = 20
    threads = [
        threading.Thread(target=traced.models.ListModels, args=(model_service_pb2.ListModelsRequest(),))
        for _ in range(calls)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end = time.monotonic() + 30
    while len(receiver.spans) < before + calls:
        assert time.monotonic() < end
        time.sleep(0.1)
    new = [span for span in receiver.spans[before:] if span.name.endswith("ListModels")]
    assert len({span.trace_id for span in new}) == len(new) == calls
