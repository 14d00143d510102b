"""How TorchServe's callers are answered: a stream of events, one answer, or an error."""

import io
import uuid
from collections.abc import Mapping
from typing import Any

from google.protobuf import any_pb2, json_format, proto
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2
from grpc import StatusCode
from ts.handler_utils.utils import send_intermediate_predict_response
from ts.utils.util import PredictionException

from neurofv.v1 import visualization_service_pb2 as vis
from service.jobs.job import first_events
from service.status import code_of, reason_of
from service.volumes.nifti import VolumeFile

_CHUNK = 1 << 20
_NEXT = "ts_stream_next"
# TorchServe speaks HTTP to its handlers; these become the very codes of gRPC again, but for those that it
# does not know, which become INTERNAL. None becomes UNAVAILABLE, after which clients try again by themselves.
_HTTP = {
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.NOT_FOUND: 404,
    StatusCode.FAILED_PRECONDITION: 412,
    StatusCode.OUT_OF_RANGE: 416,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.UNIMPLEMENTED: 501,
}


def refusal(status: status_pb2.Status) -> PredictionException:
    """Return what to raise for a call to which nothing has been said yet."""
    return PredictionException(f"{reason_of(status)}: {status.message}", _HTTP.get(code_of(status), 500))


def over_http(context: Any) -> bool:
    """Tell a call over HTTP from one over gRPC, of which TorchServe passes no headers on."""
    headers: Mapping[str, Any] = context.get_all_request_header(0)
    return any(isinstance(value, str) and key.lower() == "host" for key, value in headers.items())


def end_single(context: Any) -> None:
    """Mark an answer as the only one, without which TorchServe breaks off its streaming calls.

    Over HTTP the same mark would leave the answer without its head.
    """
    if not over_http(context):
        context.set_response_header(0, _NEXT, "false")


class Stream:
    """The events of one visualization, numbered as the service numbers a job's.

    Each message is a `google.protobuf.Any` that holds a VisualizeResponse or, at the end of a run that
    failed, a `google.rpc.Status`: TorchServe cannot end a stream over HTTP with an error.

    Parameters
    ----------
    context : ts.context.Context
        Of the call.
    as_json : bool
        Whether messages are lines of JSON; otherwise they are protobuf, each behind its length (a varint).
    """

    def __init__(self, context: Any, as_json: bool) -> None:
        self._context, self._as_json = context, as_json
        self._sequence = 0
        self.begun = False
        content_type = "application/x-ndjson" if as_json else "application/x-protobuf"
        context.set_response_content_type(0, content_type)

    def accept(self, request: vis.VisualizeRequest) -> None:
        """Tell that a request was understood, and that it runs."""
        for event in first_events(f"torchserve/{self._context.get_request_id() or uuid.uuid4()}", request):
            self.tell(event)
        self.tell(_moved(vis.JOB_STATE_RUNNING, attempt=1))

    def tell(self, event: vis.VisualizeResponse) -> None:
        """Tell an event."""
        self._send(self._numbered(event))

    def volume(self, file: VolumeFile) -> None:
        """Tell a volume, in pieces of 1 MiB, whatever TorchServe's limit of a message is."""
        self.tell(vis.VisualizeResponse(volume_begin=file.begin))
        name = file.begin.id
        for offset in range(0, len(file.data), _CHUNK):
            data = file.data[offset : offset + _CHUNK]
            self._again(
                vis.VisualizeResponse(volume_chunk=vis.VolumeChunk(id=name, offset=offset, data=data))
            )
        self._again(vis.VisualizeResponse(volume_end=vis.VolumeEnd(id=name)))

    def complete(self, event: vis.VisualizeResponse) -> bytes:
        """Tell that the run succeeded, and return its last message."""
        self.tell(_moved(vis.JOB_STATE_SUCCEEDED))
        return self._encoded(self._numbered(event))

    def fail(self, status: status_pb2.Status) -> bytes:
        """Tell that the run failed, and return why, the last message."""
        self.tell(_moved(vis.JOB_STATE_FAILED))
        return self._encoded(status)

    def _numbered(self, event: vis.VisualizeResponse) -> vis.VisualizeResponse:
        self._sequence += 1
        return self._stamped(event)

    def _again(self, event: vis.VisualizeResponse) -> None:
        """Tell a part of an event, which has its number."""
        self._send(self._stamped(event))

    def _stamped(self, event: vis.VisualizeResponse) -> vis.VisualizeResponse:
        now = Timestamp()
        now.GetCurrentTime()
        event.sequence = self._sequence
        event.time.CopyFrom(now)
        return event

    def _send(self, event: vis.VisualizeResponse) -> None:
        self.begun = True
        context = self._context
        send_intermediate_predict_response([self._encoded(event)], context.request_ids, "ok", 200, context)

    def _encoded(self, message: Message) -> bytes:
        packed = any_pb2.Any()
        packed.Pack(message)
        if self._as_json:
            text = json_format.MessageToJson(packed, indent=None, preserving_proto_field_name=True)
            return text.encode() + b"\n"
        out = io.BytesIO()
        proto.serialize_length_prefixed(packed, out)
        return out.getvalue()


def _moved(state: "vis.JobState", attempt: int = 0) -> vis.VisualizeResponse:
    return vis.VisualizeResponse(state_changed=vis.StateChanged(state=state, attempt=attempt))
