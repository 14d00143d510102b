from __future__ import annotations

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details_pb2
from google.rpc import status_pb2

from neurofv.errors import NeurofvError, StreamBroken, from_rpc_error, from_status
from service import errors
from service.status import to_status


def packed(*messages: Message) -> list[any_pb2.Any]:
    found = []
    for message in messages:
        found.append(any_pb2.Any())
        found[-1].Pack(message)
    return found


def failed(code: grpc.StatusCode, text: str, details: bytes | None = None) -> grpc.aio.AioRpcError:
    """An error as gRPC raises it."""
    trailing = grpc.aio.Metadata(*([("grpc-status-details-bin", details)] if details is not None else []))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, text)


def test_what_the_service_says_arrives() -> None:
    status = to_status(errors.ClassNotFound("blob", ["cube", "none"], "model tiny/1"))
    error = from_rpc_error(
        failed(grpc.StatusCode.NOT_FOUND, status.message, status.SerializeToString()), "host:1"
    )
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "CLASS_NOT_FOUND")
    assert error.metadata == {"valid": "cube, none"}
    assert str(error) == "no class 'blob' in model tiny/1; there are: cube, none [CLASS_NOT_FOUND]"


def test_fields_and_delays_arrive() -> None:
    error = from_status(to_status(errors.InvalidField("steps", "is -1, but must be at least 1")))
    assert error.field_violations == (("steps", "steps is -1, but must be at least 1"),)
    assert str(error) == "steps is -1, but must be at least 1 [INVALID_FIELD]"
    assert error.retry_after_seconds is None
    assert from_status(to_status(errors.Draining())).retry_after_seconds == 5


def test_violations_that_the_message_leaves_out_are_shown() -> None:
    violation = details_pb2.BadRequest.FieldViolation(field="seed", description="must not be negative")
    status = status_pb2.Status(
        code=3, message="bad request", details=packed(details_pb2.BadRequest(field_violations=[violation]))
    )
    assert str(from_status(status)) == "bad request; seed: must not be negative [INVALID_ARGUMENT]"


def test_unknown_details_and_codes_do_no_harm() -> None:
    status = status_pb2.Status(code=99, message="odd", details=packed(details_pb2.Help()))
    assert from_status(status).code is grpc.StatusCode.UNKNOWN


@pytest.mark.parametrize(
    ("code", "text", "words"),
    [
        (
            grpc.StatusCode.UNAVAILABLE,
            "connection refused",
            ["host:1", "connection refused", "NEUROFV_SERVER"],
        ),
        (grpc.StatusCode.UNAVAILABLE, "", ["host:1", "closed"]),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", ["deadline"]),
        (grpc.StatusCode.CANCELLED, "", ["cancelled"]),
        (grpc.StatusCode.UNIMPLEMENTED, "unknown service", ["host:1", "unknown service"]),
        (grpc.StatusCode.INTERNAL, "", ["no explanation", "INTERNAL"]),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too large", ["too large"]),
    ],
)
def test_a_status_without_details_is_readable(code: grpc.StatusCode, text: str, words: list[str]) -> None:
    error = from_rpc_error(failed(code, text), "host:1")
    assert error.code is code
    for word in words:
        assert word in str(error)


def test_details_that_contradict_their_status_are_passed_over() -> None:
    status = status_pb2.Status(code=5, message="not found")
    error = from_rpc_error(failed(grpc.StatusCode.INTERNAL, "crash", status.SerializeToString()), "host:1")
    assert (error.code, error.message) == (grpc.StatusCode.INTERNAL, "crash")


def test_one_class_catches_all() -> None:
    assert issubclass(StreamBroken, NeurofvError)
    assert str(StreamBroken("lost")) == "lost [STREAM_BROKEN]"
