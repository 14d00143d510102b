"""Around every call: who makes it, its metrics, and its failure as a status."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import structlog
from google.rpc import status_pb2
from grpc_status import rpc_status

from service.errors import RoleRequired, ServiceError, Unimplemented
from service.jobs.job import JobFailed
from service.observability.handlers import KINDS, Handler
from service.observability.metrics import Metrics
from service.security.guard import Guard, as_refusal, peer_host
from service.security.identity import LOCAL, Principal, set_caller
from service.security.refusals import Refusal, Refusals
from service.status import code_of, reason_of, resource_of, to_status

_DEADLINE_SLACK_SECONDS = 0.1
_log = structlog.get_logger()
# Whatever a caller invents as a method's name stays out of metrics and logs.
_UNKNOWN = ("unknown", "unknown", "unknown")


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Asks who calls, counts and times calls and turns exceptions into statuses.

    Parameters
    ----------
    metrics : Metrics
        Where figures go.
    guard : Guard
        Who knows callers.
    refusals : Refusals
        Where refused calls are recorded.
    """

    def __init__(self, metrics: Metrics, guard: Guard, refusals: Refusals) -> None:
        self._metrics = metrics
        self._guard = guard
        self._refusals = refusals

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Wrap the method that handles the call."""
        handler = await continuation(handler_call_details)
        door = _Door(self._guard, handler_call_details)
        if handler is None or door.refusal is not None:
            call = _Call(self._metrics, _labels(handler, handler_call_details), door, self._refusals)
            # As a stream of requests, none of which is read: a caller without a credential sends nothing
            # into the server's memory.
            closed: Handler = grpc.stream_stream_rpc_method_handler(call.around(_no_method, None))
            return closed
        call = _Call(self._metrics, _labels(handler, handler_call_details), door, self._refusals)
        attribute, make, _ = KINDS[handler.request_streaming, handler.response_streaming]
        # Bytes that are no message must fail inside the call, where failures become statuses.
        parse = handler.request_deserializer
        inside = None if handler.request_streaming else parse
        wrapped: Handler = make(
            call.around(getattr(handler, attribute), inside),
            request_deserializer=None if inside else parse,
            response_serializer=handler.response_serializer,
        )
        return wrapped


def _labels(handler: "Handler | None", details: grpc.HandlerCallDetails) -> tuple[str, str, str]:
    if handler is None:
        return _UNKNOWN
    _, service, method = details.method.split("/", 2)
    return KINDS[handler.request_streaming, handler.response_streaming][2], service, method


async def _no_method(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
    """Answer a call of a method that the server has not."""
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    yield


class _Door:
    """What a call's metadata tell of who makes it; the certificate is asked in the call itself."""

    def __init__(self, guard: Guard, details: grpc.HandlerCallDetails) -> None:
        self._guard = guard
        self._method = details.method
        self._free = guard.is_free(details.method)
        self.principal: Principal | None = None
        self.refusal: ServiceError | None = None
        try:
            if not self._free:
                self.principal = guard.by_token(details.invocation_metadata)
            if self.principal is not None:
                guard.check_role(self.principal, self._method)
        except ServiceError as error:
            self.refusal = error

    def enter(self, context: grpc.aio.ServicerContext) -> None:
        """Let the caller in, or raise what bars the way."""
        if self.refusal is not None:
            raise self.refusal
        if self._free:
            set_caller(LOCAL)
            return
        if self.principal is None:
            self.principal = self._guard.by_certificate(context.auth_context())
            self._guard.check_role(self.principal, self._method)
        set_caller(self.principal)

    @property
    def name(self) -> str:
        """Who calls, as far as it is proven."""
        if self.principal is not None:
            return self.principal.name
        named = self.refusal.metadata.get("principal") if isinstance(self.refusal, RoleRequired) else None
        return named or (LOCAL.name if self._free else "anonymous")


class _Call:
    """One call's labels and caller, and the wrappers that use them."""

    def __init__(
        self, metrics: Metrics, labels: tuple[str, str, str], door: _Door, refusals: Refusals
    ) -> None:
        self._metrics = metrics
        self._labels = labels
        self._door = door
        self._refusals = refusals

    def around(
        self, behavior: Callable[..., Any], parse: Callable[[bytes], Any] | None
    ) -> Callable[..., Any]:
        """Return the behavior with metrics and statuses around it; `parse` reads its request, if given."""
        if inspect.isasyncgenfunction(behavior):

            async def stream(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
                begun = self._begin()
                try:
                    self._door.enter(context)
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
                self._door.enter(context)
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
        if isinstance(error, grpc.aio.InternalError):
            # The library could not send an answer: its caller had left, or was out of time.
            self._end(grpc.StatusCode.CANCELLED, begun)
            raise error
        if isinstance(error, grpc.aio.AbortError):
            self._end(context.code(), begun)
            raise error
        if isinstance(error, NotImplementedError) and context.code() is grpc.StatusCode.UNIMPLEMENTED:
            # What generated code does for a method that nobody has written, as the health service's List.
            error = Unimplemented(self._labels[2])
        status = error.status if isinstance(error, JobFailed) else to_status(error)
        self._end(code_of(status), begun)
        _log.info("call_failed", method=self._labels[2], code=code_of(status).name, reason=reason_of(status))
        await self._note(status, context)
        answer = rpc_status.to_status(status)
        await context.abort(answer.code, answer.details, answer.trailing_metadata)

    async def _note(self, status: status_pb2.Status, context: grpc.aio.ServicerContext) -> None:
        """Count and record a call that is refused for who made it."""
        code, reason = code_of(status), reason_of(status)
        if not as_refusal(code, reason):
            return
        if reason != "JOB_NOT_FOUND":
            self._metrics.auth_failures.labels(reason).inc()
        method, resource = "/".join(self._labels[1:]), resource_of(status)
        await self._refusals.note(Refusal(self._door.name, peer_host(context), method, reason, resource))
