"""What leaves the server as OpenTelemetry spans, and how. Needs the extra `tracing`."""

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.grpc import aio_server_interceptor, filters
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, Status, StatusCode

from service import __version__
from service.observability.handlers import KINDS, Handler
from service.observability.tracing import JobSpan

_CODE = "rpc.grpc.status_code"
# The instrumentation also notes addresses, user agents and the messages and traces of errors.
_ALLOWED = frozenset(
    {
        "rpc.system",
        "rpc.service",
        "rpc.method",
        _CODE,
        "neurofv.model",
        "neurofv.steps",
        "neurofv.attempt",
        "neurofv.state",
        "neurofv.reason",
    }
)
# By (request streams, response streams): the handler's attribute, and how to make one.
# The library tries for 10 s, at the server's end too, which would then be killed for being slow.
_TRY_SECONDS = 3.0
_log = structlog.get_logger()


class DiscreetExporter(SpanExporter):
    """Hands on of each span its name, times, relations and the attributes that are allowed.

    Parameters
    ----------
    inner : SpanExporter
        Who sends them.
    """

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans without what nobody outside shall know."""
        return self._inner.export([_bare(span) for span in spans])

    def shutdown(self) -> None:
        """End."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what waits."""
        return self._inner.force_flush(timeout_millis)


def make_provider(endpoint: str) -> TracerProvider:
    """Return a provider whose spans go to an OTLP collector, in batches from a thread of its own.

    Parameters
    ----------
    endpoint : str
        `http://host:port` for plaintext, `https://host:port` for TLS.
    """
    logger = logging.getLogger("opentelemetry")
    logger.handlers, logger.propagate = [_ToStructlog(logging.WARNING)], False
    # A stream that its caller leaves is thrown away in another context than its own: known, and harmless.
    logging.getLogger("opentelemetry.context").setLevel(logging.CRITICAL)
    standard = Resource.create()  # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win
    own = {"service.name": "neurofv", "service.version": __version__}
    if not str(standard.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
        del own["service.name"]
    provider = TracerProvider(resource=standard.merge(Resource(own)))
    provider.add_span_processor(
        BatchSpanProcessor(DiscreetExporter(OTLPSpanExporter(endpoint, timeout=_TRY_SECONDS)))
    )
    return provider


def call_interceptors(provider: TracerProvider) -> list[grpc.aio.ServerInterceptor]:
    """Return the interceptors that make a span of each call but health checks, outermost first."""
    wanted = filters.negate(filters.health_check())
    return [aio_server_interceptor(tracer_provider=provider, filter_=wanted), _CodeInterceptor()]


class _CodeInterceptor(grpc.aio.ServerInterceptor):
    """Notes the code of calls that end well or are left.

    The instrumentation notes OK at first and the code of a refusal. But a stream whose caller leaves is
    merely thrown away, so each call counts as cancelled until it ends.
    """

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Wrap the method that handles the call."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        attribute, make, _ = KINDS[handler.request_streaming, handler.response_streaming]
        wrapped: Handler = make(
            _with_code(getattr(handler, attribute)),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return wrapped


def _with_code(behavior: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(behavior):

        async def stream(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            span = trace.get_current_span()
            span.set_attribute(_CODE, grpc.StatusCode.CANCELLED.value[0])
            async for response in behavior(request, context):
                yield response
            span.set_attribute(_CODE, grpc.StatusCode.OK.value[0])

        return stream

    async def single(request: Any, context: grpc.aio.ServicerContext) -> Any:
        span = trace.get_current_span()
        span.set_attribute(_CODE, grpc.StatusCode.CANCELLED.value[0])
        response = await behavior(request, context)
        span.set_attribute(_CODE, grpc.StatusCode.OK.value[0])
        return response

    return single


class RecordedJobSpan(JobSpan):
    """A job's span, with one below it for each stage: queued, then running, once for every attempt.

    Parameters
    ----------
    tracer : Tracer
        Who makes spans.
    model : str
        The job's model.
    steps : int
        Optimizer steps that it asks for.
    """

    def __init__(self, tracer: trace.Tracer, model: str, steps: int) -> None:
        self._tracer = tracer
        self._attempt = 0
        self._job = tracer.start_span("job", attributes={"neurofv.model": model, "neurofv.steps": steps})
        self._stage = self._begin("queued", {})

    def running(self) -> None:
        """Say that an attempt begins."""
        self._attempt += 1
        self._stage.end()
        self._stage = self._begin("running", {"neurofv.attempt": self._attempt})

    def end(self, state: str, reason: str = "") -> None:
        """Say how the job ended; what is said later is not heard."""
        if not self._job.is_recording():
            return
        self._stage.end()
        self._job.set_attribute("neurofv.state", state)
        if reason:
            self._job.set_attribute("neurofv.reason", reason)
        if state == "FAILED":
            self._job.set_status(Status(StatusCode.ERROR))
        self._job.end()

    def _begin(self, stage: str, attributes: dict[str, int]) -> trace.Span:
        parent = trace.set_span_in_context(self._job, Context())
        return self._tracer.start_span(stage, context=parent, attributes=attributes)


def _bare(span: ReadableSpan) -> ReadableSpan:
    attributes = span.attributes or {}
    return ReadableSpan(
        name=span.name,
        context=_plain(span.context),
        parent=_plain(span.parent),
        resource=span.resource,
        attributes={key: value for key, value in attributes.items() if key in _ALLOWED},
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _plain(context: SpanContext | None) -> SpanContext | None:
    """Drop `tracestate`, which is a caller's free text."""
    if context is None:
        return None
    return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags)


class _ToStructlog(logging.Handler):
    """Writes OpenTelemetry's own complaints as the server writes its log."""

    def emit(self, record: logging.LogRecord) -> None:
        # The exporter's words name the collector; others' may name a caller.
        known = record.name.startswith("opentelemetry.exporter")
        _log.warning("tracing_trouble", source=record.name, why=record.getMessage() if known else record.msg)
