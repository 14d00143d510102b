"""Requests in protobuf's text format, and what comes back."""

import hashlib
from dataclasses import dataclass, field

import grpc
import nibabel
from google.protobuf import text_format
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from neurofv.v1 import visualization_service_pb2 as vis

CUBE = 'objective { terms { class_logit { class_name: "cube" } } }'
SMALL = "canvas { size_mm { i: 64 j: 64 k: 64 } }"


def request(*parts: str, model: str = "lesion-shapes") -> vis.VisualizeRequest:
    """Read a request from its parts."""
    return text_format.Merge("\n".join(parts), vis.VisualizeRequest(model=model))


@dataclass
class Stream:
    """A whole stream, with its volumes put together and verified."""

    events: list[vis.VisualizeResponse]
    volumes: dict[str, bytes] = field(default_factory=dict)
    begins: dict[str, vis.VolumeBegin] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for event in self.events:
            match event.WhichOneof("event"):
                case "volume_begin":
                    self.begins[event.volume_begin.id] = event.volume_begin
                    self.volumes[event.volume_begin.id] = b""
                case "volume_chunk":
                    chunk = event.volume_chunk
                    assert chunk.offset == len(self.volumes[chunk.id])
                    assert 0 < len(chunk.data) <= 1 << 20
                    self.volumes[chunk.id] += chunk.data
                case "volume_end":
                    name = event.volume_end.id
                    assert len(self.volumes[name]) == self.begins[name].bytes
                    assert hashlib.sha256(self.volumes[name]).hexdigest() == self.begins[name].sha256

    def has_no_gaps(self, after: int = 0) -> bool:
        """Whether events are numbered one after the other; the messages of a volume share a number."""
        within = ("volume_chunk", "volume_end")
        numbers = [event.sequence for event in self.events if event.WhichOneof("event") not in within]
        return numbers == list(range(after + 1, after + 1 + len(numbers)))

    def kinds(self) -> list[str]:
        """Each event's kind; a state change says its state."""
        return [
            vis.JobState.Name(event.state_changed.state).removeprefix("JOB_STATE_")
            if event.HasField("state_changed")
            else str(event.WhichOneof("event"))
            for event in self.events
        ]

    @property
    def accepted(self) -> vis.VisualizeRequest:
        """The resolved request."""
        return self.events[0].accepted.request

    @property
    def completed(self) -> vis.Completed:
        """The last event."""
        return self.events[-1].completed

    def image(self, name: str = "final") -> nibabel.Nifti1Image:
        """A volume as nibabel reads it."""
        import gzip

        return nibabel.Nifti1Image.from_bytes(gzip.decompress(self.volumes[name]))


def failure(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Return an error's code, its reason and its metadata."""
    info = error_details_pb2.ErrorInfo()
    for detail in rpc_status.from_call(error).details:
        if detail.Unpack(info):
            return error.code(), info.reason, dict(info.metadata)
    raise AssertionError(f"no ErrorInfo in {error}")


def violations(error: grpc.RpcError) -> list[str]:
    """Return the paths of the fields at fault."""
    found = error_details_pb2.BadRequest()
    for detail in rpc_status.from_call(error).details:
        if detail.Unpack(found):
            return [violation.field for violation in found.field_violations]
    return []
