"""Everything that can go wrong for a caller, each with its status code and reason.

One exception becomes a gRPC status in one place: `service.status`.
docs/reference/errors.md lists them.
"""

from collections.abc import Sequence
from typing import ClassVar

from grpc import StatusCode

_LONGEST_NAME = 128
_MOST_LISTED = 64


class ServiceError(Exception):
    """A failure that the caller is told about.

    Parameters
    ----------
    message : str
        What happened and what to do about it; free of paths and of other callers' data.
    **metadata
        Facts for programs, sent as `google.rpc.ErrorInfo.metadata`.
    """

    code: ClassVar[StatusCode] = StatusCode.INTERNAL
    reason: ClassVar[str] = "INTERNAL"
    retry_after_seconds: ClassVar[float | None] = None
    field: str | None = None
    resource: tuple[str, str] | None = None

    def __init__(self, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = {key: str(value) for key, value in metadata.items()}


class InvalidField(ServiceError):
    """A field of the request has a value that cannot be used.

    Parameters
    ----------
    field : str
        Path of the field in the request.
    rule : str
        What is wrong, and what would be accepted.
    **metadata
        Facts for programs.
    """

    code = StatusCode.INVALID_ARGUMENT
    reason = "INVALID_FIELD"

    def __init__(self, field: str, rule: str, **metadata: object) -> None:
        super().__init__(f"{field} {rule}", field=field, **metadata)
        self.field = field


class VolumeTooLarge(InvalidField):
    """The canvas is larger than the model's grid or the server's limit."""

    reason = "VOLUME_TOO_LARGE"


class SubjectUnusable(InvalidField):
    """An image of the request cannot be brought onto the model's grid."""

    reason = "SUBJECT_UNUSABLE"


class NotFound(ServiceError):
    """Something that the request names does not exist.

    Parameters
    ----------
    name : str
        What was asked for.
    valid : sequence of str
        What there is.
    where : str
        Where it was looked for.
    """

    code = StatusCode.NOT_FOUND
    kind: ClassVar[str] = "thing"

    def __init__(self, name: str, valid: Sequence[str], where: str) -> None:
        # A status travels in headers, which have a limit of their own.
        name = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
        listed = ", ".join(valid[:_MOST_LISTED]) or "none"
        if len(valid) > _MOST_LISTED:
            listed += f" and {len(valid) - _MOST_LISTED} more"
        super().__init__(f"no {self.kind} {name!r} in {where}; there are: {listed}", valid=listed)
        self.resource = (f"neurofv.v1/{self.kind}", name)


class ModelNotFound(NotFound):
    """The repository has no such model or version."""

    reason = "MODEL_NOT_FOUND"
    kind = "model"


class LayerNotFound(NotFound):
    """The model has no such layer."""

    reason = "LAYER_NOT_FOUND"
    kind = "layer"


class ClassNotFound(NotFound):
    """The model has no such class."""

    reason = "CLASS_NOT_FOUND"
    kind = "class"


class UnitOutOfRange(InvalidField):
    """The layer has fewer units than the index says."""

    code = StatusCode.OUT_OF_RANGE
    reason = "UNIT_OUT_OF_RANGE"


class ArtifactCorrupt(ServiceError):
    """A file of the bundle is not what its manifest says."""

    code = StatusCode.DATA_LOSS
    reason = "ARTIFACT_CORRUPT"


class Diverged(ServiceError):
    """The optimization left the finite numbers."""

    code = StatusCode.FAILED_PRECONDITION
    reason = "OPTIMISATION_DIVERGED"


class DeadUnit(ServiceError):
    """The unit has no gradient, not even when it is let through shut ReLUs."""

    code = StatusCode.FAILED_PRECONDITION
    reason = "UNIT_DEAD"

    def __init__(self, unit: str) -> None:
        super().__init__(
            f"{unit} does not answer to any change of the volume, also when gradients are let through shut "
            "ReLUs; start elsewhere (start, canvas), with more noise (start.deviation), or read the layer in "
            "front of it",
            unit=unit,
        )


class OutOfMemory(ServiceError):
    """The device cannot hold the run."""

    code = StatusCode.RESOURCE_EXHAUSTED
    reason = "GPU_MEMORY_EXHAUSTED"


class QueueFull(ServiceError):
    """Too many jobs wait already."""

    code = StatusCode.RESOURCE_EXHAUSTED
    reason = "QUEUE_FULL"
    retry_after_seconds = 10.0


class Draining(ServiceError):
    """The server is shutting down."""

    code = StatusCode.UNAVAILABLE
    reason = "SERVER_DRAINING"
    retry_after_seconds = 5.0

    def __init__(self) -> None:
        super().__init__("the server is shutting down; send the request again in a few seconds")


class WorkerLost(ServiceError):
    """No process optimizes now; another one starts."""

    code = StatusCode.UNAVAILABLE
    reason = "WORKER_LOST"
    retry_after_seconds = 2.0


class AttemptsExhausted(ServiceError):
    """The process died at every attempt at this job."""

    code = StatusCode.FAILED_PRECONDITION
    reason = "ATTEMPTS_EXHAUSTED"


class ModelChanged(ServiceError):
    """The model that the job began with is no longer there, so it cannot go on."""

    code = StatusCode.FAILED_PRECONDITION
    reason = "MODEL_CHANGED"


class JobNotFound(ServiceError):
    """There is no such job, or it is somebody else's."""

    code = StatusCode.NOT_FOUND
    reason = "JOB_NOT_FOUND"

    def __init__(self, name: str) -> None:
        name = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
        super().__init__(f"you have no job {name!r}; ListJobs names those you have")
        self.resource = ("neurofv.v1/job", name)


class VolumeNotFound(NotFound):
    """The job has no such volume, or not yet."""

    reason = "VOLUME_NOT_FOUND"
    kind = "volume"


class ArtifactExpired(ServiceError):
    """The job was there, but its time is over and it has been removed."""

    code = StatusCode.NOT_FOUND
    reason = "ARTIFACT_EXPIRED"


class JobNotFinished(ServiceError):
    """The job has not ended, and only then can this be done."""

    code = StatusCode.FAILED_PRECONDITION
    reason = "JOB_NOT_FINISHED"


class RequestIdReused(ServiceError):
    """The request_id belongs to a job with another body."""

    code = StatusCode.ALREADY_EXISTS
    reason = "REQUEST_ID_REUSED"


class SequenceOutOfRange(InvalidField):
    """A stream or a file is to be continued behind its end."""

    code = StatusCode.OUT_OF_RANGE
    reason = "SEQUENCE_OUT_OF_RANGE"


class QuotaExceeded(ServiceError):
    """The caller has as much as one may have.

    Parameters
    ----------
    subject : str
        What is used up, such as `jobs waiting`.
    message : str
        How much, and what to do.
    **metadata
        Facts for programs.
    """

    code = StatusCode.RESOURCE_EXHAUSTED
    reason = "QUOTA_EXCEEDED"
    retry_after_seconds = 30.0

    def __init__(self, subject: str, message: str, **metadata: object) -> None:
        super().__init__(message, **metadata)
        self.quota = subject


class StorageFull(ServiceError):
    """The server's disk is full; nothing new is taken until there is room."""

    code = StatusCode.RESOURCE_EXHAUSTED
    reason = "STORAGE_FULL"
    retry_after_seconds = 30.0


class StorageBusy(ServiceError):
    """The server's database cannot be written now."""

    code = StatusCode.UNAVAILABLE
    reason = "STORAGE_BUSY"
    retry_after_seconds = 2.0


class Unauthenticated(ServiceError):
    """The call has no credential, or one that is not known."""

    code = StatusCode.UNAUTHENTICATED
    reason = "CREDENTIAL_INVALID"


class TokenExpired(Unauthenticated):
    """The credential's time is over."""

    reason = "TOKEN_EXPIRED"


class RoleRequired(ServiceError):
    """The caller is known, but may not do this."""

    code = StatusCode.PERMISSION_DENIED
    reason = "ROLE_REQUIRED"


class Unimplemented(ServiceError):
    """The method stands in a contract that the service knows, but is not offered."""

    code = StatusCode.UNIMPLEMENTED
    reason = "METHOD_UNIMPLEMENTED"

    def __init__(self, method: str) -> None:
        super().__init__(f"{method} is not offered here; reflection lists what is", method=method)
