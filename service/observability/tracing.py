"""Traces: a span for each call, and below it what became of its job. Off unless `otlp_endpoint` is set.

OpenTelemetry is the extra `tracing` and is imported only when it is wanted;
`service.observability.otlp` holds all that needs it.
"""

import importlib
from typing import Any

import grpc

from service.settings import Settings


class JobSpan:
    """What a trace tells of a job; this one tells nothing, for nobody traces."""

    def running(self) -> None:
        """Say that an attempt begins."""

    def end(self, state: str, reason: str = "") -> None:
        """Say how the job ended; what is said later is not heard.

        Parameters
        ----------
        state : str
            As in `neurofv_jobs_finished_total`.
        reason : str
            Why, if it failed.
        """


_tracer: Any = None


def interceptors(settings: Settings) -> list[grpc.aio.ServerInterceptor]:
    """Begin to trace if the operator wants it.

    Parameters
    ----------
    settings : Settings
        What the operator has decided.

    Returns
    -------
    list of grpc.aio.ServerInterceptor
        To be the server's outermost, which see how a call ends; empty without `otlp_endpoint`.
    """
    global _tracer
    _tracer = None
    if settings.otlp_endpoint is None:
        return []
    otlp = importlib.import_module("service.observability.otlp")
    provider = otlp.make_provider(settings.otlp_endpoint)
    _tracer = provider.get_tracer("neurofv")
    found: list[grpc.aio.ServerInterceptor] = otlp.call_interceptors(provider)
    return found


def job_span(model: str, steps: int) -> JobSpan:
    """Begin the span of a job, queued, below the call that is being handled if there is one.

    Parameters
    ----------
    model : str
        Its model.
    steps : int
        Optimizer steps that it asks for.
    """
    if _tracer is None:
        return JobSpan()
    otlp = importlib.import_module("service.observability.otlp")
    span: JobSpan = otlp.RecordedJobSpan(_tracer, model, steps)
    return span
