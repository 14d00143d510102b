"""The one place where a failure becomes a gRPC status with google.rpc details."""

import re
import uuid

import structlog
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

import engine
from models import BundleCorrupt, BundleInvalid, ModelError
from service import errors

DOMAIN = "neurofv"
# Anything else that was sent as a job's name is free text.
_JOB_NAME = re.compile(r"jobs/[0-9A-Za-z_-]{1,64}")
_log = structlog.get_logger()


def to_status(error: BaseException) -> status_pb2.Status:
    """Describe a failure to the caller.

    What is not foreseen becomes INTERNAL with an error id; its text stays in
    the log, where the id is found.

    Parameters
    ----------
    error : BaseException
        Any failure.

    Returns
    -------
    google.rpc.Status
        Code, message and details.
    """
    known = _known(error)
    if known is None:
        error_id = uuid.uuid4().hex
        _log.error("internal_error", error_id=error_id, exc_info=error)
        known = errors.ServiceError(
            "internal error; quote the error_id when you report it", error_id=error_id
        )
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=known.reason, domain=DOMAIN, metadata=known.metadata)
    ]
    if known.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=known.field, description=known.message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if known.resource:
        kind, name = known.resource
        details.append(error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name))
    if isinstance(known, errors.QuotaExceeded):
        excess = error_details_pb2.QuotaFailure.Violation(subject=known.quota, description=known.message)
        details.append(error_details_pb2.QuotaFailure(violations=[excess]))
    if known.retry_after_seconds:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(known.retry_after_seconds * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return status_pb2.Status(
        code=known.code.value[0], message=known.message, details=[_any(detail) for detail in details]
    )


def code_of(status: status_pb2.Status) -> StatusCode:
    """Return grpc's constant for a status."""
    return next(code for code in StatusCode if code.value[0] == status.code)


def info_of(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    """Return the `ErrorInfo` of a status, or an empty one."""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info
    return error_details_pb2.ErrorInfo()


def reason_of(status: status_pb2.Status) -> str:
    """Return the `ErrorInfo` reason of a status, or an empty string."""
    return info_of(status).reason


def resource_of(status: status_pb2.Status) -> str:
    """Return the name of the job that a status is about, if it looks like one, or an empty string."""
    for detail in status.details:
        info = error_details_pb2.ResourceInfo()
        if detail.Unpack(info) and _JOB_NAME.fullmatch(info.resource_name):
            return info.resource_name
    return ""


def _known(error: BaseException) -> errors.ServiceError | None:
    if isinstance(error, errors.ServiceError):
        return error
    if isinstance(error, DecodeError):
        return errors.InvalidField("request", "is not a message of this contract; send protobuf bytes")
    if isinstance(error, engine.Diverged):
        return errors.Diverged(str(error), step=error.step)
    if isinstance(error, engine.InvalidField):
        return errors.InvalidField(error.field, f"is {error.value}, but must be {error.rule}")
    if isinstance(error, BundleCorrupt):
        return errors.ArtifactCorrupt(str(error), file=error.file)
    if isinstance(error, BundleInvalid):
        return errors.ArtifactCorrupt(str(error), field=error.field)
    if isinstance(error, ModelError):
        return errors.ArtifactCorrupt(str(error))
    if (
        isinstance(error, MemoryError)
        or "out of memory" in str(error)
        or "can't allocate memory" in str(error)
    ):
        return errors.OutOfMemory("the device has too little memory for this canvas; ask for a smaller one")
    return None


def _any(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
