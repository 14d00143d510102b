"""Failures, as callers of the client see them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


class InvalidRequest(ValueError):
    """What the caller gave cannot become a request; nothing was sent.

    Parameters
    ----------
    field : str
        The argument or the path of the field.
    value : object
        What was given.
    remedy : str
        What would be accepted.
    """

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(f"{field} is {value!r}: {remedy}")
        self.field = field
        self.value = value
        self.remedy = remedy


class NeurofvError(Exception):
    """A call failed.

    Parameters
    ----------
    code : grpc.StatusCode
        The canonical code.
    reason : str
        The reason in the words of docs/reference/errors.md, such as `CLASS_NOT_FOUND`; empty if the
        status has none.
    message : str
        What happened and what to do about it.
    metadata : mapping of str to str
        Facts for programs.
    field_violations : sequence of (str, str)
        Fields of the request that cannot be used, each with a description.
    retry_after_seconds : float or None
        When the server expects that a second try succeeds.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        metadata: Mapping[str, str] | None = None,
        field_violations: Sequence[tuple[str, str]] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.field_violations = tuple(field_violations)
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        more = [
            f"{field}: {description}"
            for field, description in self.field_violations
            if description not in self.message
        ]
        return "; ".join([self.message, *more]) + f" [{self.reason or self.code.name}]"


class StreamBroken(NeurofvError):
    """The stream of events has a gap, the wrong order or no end.

    Parameters
    ----------
    message : str
        What is wrong.
    """

    def __init__(self, message: str) -> None:
        super().__init__(grpc.StatusCode.DATA_LOSS, "STREAM_BROKEN", message)


class VolumeCorrupt(NeurofvError):
    """A volume that arrived is not the one that was announced.

    Parameters
    ----------
    message : str
        What is wrong.
    """

    def __init__(self, message: str) -> None:
        super().__init__(grpc.StatusCode.DATA_LOSS, "VOLUME_CORRUPT", message)


def unreachable(target: str, cause: str) -> NeurofvError:
    """Return the error of a server that does not answer.

    Parameters
    ----------
    target : str
        Its address.
    cause : str
        What was observed.
    """
    remedy = "check that the server runs there, or name another address (NEUROFV_SERVER, --server)"
    message = f"no answer from a neurofv server at {target} ({cause}); {remedy}"
    return NeurofvError(grpc.StatusCode.UNAVAILABLE, "SERVER_UNREACHABLE", message, {"target": target})


def job_cancelled(job: str, lost: bool = False) -> NeurofvError:
    """Return the error of a job that was stopped at somebody's wish.

    Parameters
    ----------
    job : str
        Its name.
    lost : bool
        Whether the stream had broken, which the server takes for a wish.
    """
    message = f"{job} was cancelled"
    if lost:
        message += (
            ": the server saw the connection break; send it again with detach=True (--detach), and the "
            "job goes on without one"
        )
    return NeurofvError(grpc.StatusCode.CANCELLED, "JOB_CANCELLED", message, {"job": job})


@contextmanager
def translated(target: str) -> Iterator[None]:
    """Turn gRPC's errors within the block into `NeurofvError`.

    Parameters
    ----------
    target : str
        The server's address, for the message.

    Raises
    ------
    NeurofvError
        In place of a `grpc.RpcError`, sync or asyncio.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error, target) from None


def from_rpc_error(error: grpc.RpcError, target: str) -> NeurofvError:
    """Read a failed call, with the google.rpc details if the server sent any.

    Parameters
    ----------
    error : grpc.RpcError
        From `grpc` or `grpc.aio`.
    target : str
        The server's address, for the message.
    """
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        # The details contradict the status they came with; the status itself still counts.
        status = None
    code, details = error.code(), error.details() or ""
    if status is not None:
        return from_status(status)
    if code is grpc.StatusCode.UNAVAILABLE:
        return unreachable(target, details or "the connection was closed")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        details = "the call's deadline has passed; the server has stopped its work"
    if code is grpc.StatusCode.CANCELLED:
        details = "the call was cancelled; the server has stopped its work"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        details = f"the server at {target} is not a neurofv server of this version ({details})"
    return NeurofvError(code, "", details or "the server gave no explanation")


def from_status(status: status_pb2.Status) -> NeurofvError:
    """Read a `google.rpc.Status`; details of unknown types are passed over."""
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    found = {type(detail) for detail in (info, request, retry) if _unpack(status, detail)}
    delay = retry.retry_delay.ToMilliseconds() / 1000 if type(retry) in found else None
    code = next((code for code in grpc.StatusCode if code.value[0] == status.code), grpc.StatusCode.UNKNOWN)
    violations = [(each.field, each.description) for each in request.field_violations]
    return NeurofvError(code, info.reason, status.message, info.metadata, violations, delay)


def _unpack(status: status_pb2.Status, detail: Message) -> bool:
    """Fill `detail` from the first detail of its type."""
    return any(packed.Unpack(detail) for packed in status.details)
