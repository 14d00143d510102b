"""Around every call: its metrics, and its failure as a status."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import structlog
from grpc_status import rpc_status

from service.errors import Unimplemented
from service.jobs.job import JobFailed
from service.observability.metrics import Metrics
from service.status import code_of, reason_of, to_status

_DEADLINE_SLACK_SECONDS = 0.1
_log = structlog.get_logger()
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
# By (request streams, response streams): the handler's attribute, how to make one, the metrics' label.
_KINDS = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler, "unary"),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler, "server_stream"),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler, "client_stream"),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler, "bidi_stream"),
}


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Counts and times calls and turns exceptions into statuses.

    Parameters
    ----------
    metrics : Metrics
        Where figures go.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        """Wrap the method that handles the call."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        _, service, method = handler_call_details.method.split("/", 2)
        attribute, make, kind = _KINDS[handler.request_streaming, handler.response_streaming]
        call = _Call(self._metrics, (kind, service, method))
        # Bytes that are no message must fail inside the call, where failures become statuses.
        parse = handler.request_deserializer
        inside = None if handler.request_streaming else parse
        wrapped: _Handler = make(
            call.around(getattr(handler, attribute), inside),
            request_deserializer=None if inside else parse,
            response_serializer=handler.response_serializer,
        )
        return wrapped


class _Call:
    """One method's labels, and the wrappers that use them."""

    def __init__(self, metrics: Metrics, labels: tuple[str, str, str]) -> None:
        self._metrics = metrics
        self._labels = labels

    def around(
        self, behavior: Callable[..., Any], parse: Callable[[bytes], Any] | None
    ) -> Callable[..., Any]:
        """Return the behavior with metrics and statuses around it; `parse` reads its request, if given."""
        if inspect.isasyncgenfunction(behavior):

            async def stream(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
                begun = self._begin()
                try:
                    message = parse(request) if parse else request
                    async for response in behavior(message, context):
                        self._metrics.messages_sent.labels(*self._labels).inc()
                        yield response
                except BaseException as error:
                    await self._fail(error, context, begun)
                self._end(grpc.StatusCode.OK, begun)

            return stream

        async def single(request: Any, context: grpc.aio.ServicerContext) -> Any:
            begun = self._begin()
            try:
                response = await behavior(parse(request) if parse else request, context)
            except BaseException as error:
                await self._fail(error, context, begun)
            self._metrics.messages_sent.labels(*self._labels).inc()
            self._end(context.code() or grpc.StatusCode.OK, begun)
            return response

        return single

    def _begin(self) -> float:
        self._metrics.calls_started.labels(*self._labels).inc()
        self._metrics.messages_received.labels(*self._labels).inc()
        return time.monotonic()

    def _end(self, code: Any, begun: float) -> None:
        name = code.name if isinstance(code, grpc.StatusCode) else "OK"
        self._metrics.calls_handled.labels(*self._labels, name).inc()
        self._metrics.call_duration.labels(*self._labels).observe(time.monotonic() - begun)

    async def _fail(self, error: BaseException, context: grpc.aio.ServicerContext, begun: float) -> None:
        """End the call with the error's status; always raises."""
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            # The caller's clock runs out first and its cancel arrives a moment before our own deadline.
            left = context.time_remaining()
            late = left is not None and left < _DEADLINE_SLACK_SECONDS
            self._end(grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED, begun)
            raise error
        if isinstance(error, grpc.aio.InternalError) and context.cancelled():
            # The library could not send an answer: its caller had left.
            self._end(grpc.StatusCode.CANCELLED, begun)
            raise error
        if isinstance(error, grpc.aio.AbortError):
            self._end(context.code(), begun)
            raise error
        if isinstance(error, NotImplementedError) and context.code() is grpc.StatusCode.UNIMPLEMENTED:
            # What generated code does for a method that nobody has written, such as the health service's List.
            error = Unimplemented(self._labels[2])
        status = error.status if isinstance(error, JobFailed) else to_status(error)
        self._end(code_of(status), begun)
        _log.info("call_failed", method=self._labels[2], code=code_of(status).name, reason=reason_of(status))
        answer = rpc_status.to_status(status)
        await context.abort(answer.code, answer.details, answer.trailing_metadata)
