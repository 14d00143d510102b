"""Frames between the server and a worker: a kind, a job number, protobuf bytes.

Nothing is pickled. A volume travels whole, as its description and its bytes, so
that the server can drop a snapshot that nobody has begun to read.
"""

import socket
import struct
from asyncio import StreamReader
from dataclasses import dataclass
from enum import IntEnum

_HEADER = struct.Struct("!BQQ")
_LENGTH = struct.Struct("!I")
_STATE = struct.Struct("!QI")
MAX_FRAME_BYTES = 1 << 30


class Kind(IntEnum):
    """What a frame says."""

    RUN = 1  # to the worker: a resolved VisualizeRequest
    CANCEL = 2  # to the worker: stop this job within one step
    READY = (
        3  # from the worker: models are loaded; the kind of its device, such as cpu, and each one's seconds
    )
    EVENT = 4  # from the worker: a VisualizeResponse
    VOLUME = 5  # from the worker: length, VolumeBegin, file
    STOPPED = 6  # from the worker: cancelled, as asked
    FAILED = 7  # from the worker: a google.rpc.Status
    SUCCEEDED = 8  # from the worker: a VisualizeResponse with `completed`
    JOIN = 9  # to the worker: a resolved VisualizeRequest that shares its batch with the next RUN
    ESTIMATE = 10  # to the worker: a resolved VisualizeRequest; the number is not a job's but the question's
    ESTIMATED = 11  # from the worker: an EstimateResponse
    UNANSWERED = 12  # from the worker: a google.rpc.Status, why a question has no answer
    RESUME = 13  # to the worker, before the job's RUN or JOIN: what was told of it, its newest checkpoint
    CHECKPOINT = 14  # from the worker: what was told of the job so far, the step, safetensors
    PAUSE = 15  # to the worker: checkpoint all jobs and stop them; the number is 0
    PAUSED = 16  # from the worker: stopped, to go on later
    INFER = 17  # to the worker: a ModelInferRequest of one volume; the number is the question's
    INFERRED = 18  # from the worker: a ModelInferResponse
    PROBE = 19  # to the worker: length, ProbeRequest without its image, the image on the grid as float32
    PROBED = 20  # from the worker: a ProbeResponse


@dataclass(frozen=True)
class Frame:
    """One message.

    Attributes
    ----------
    kind : Kind
        What it says.
    job : int
        Which job, or question, it is about; 0 for none.
    data : bytes
        Protobuf bytes.
    """

    kind: Kind
    job: int = 0
    data: bytes = b""

    def encode(self) -> bytes:
        """Return the bytes on the wire."""
        return _HEADER.pack(self.kind, self.job, len(self.data)) + self.data


def pack_volume(begin: bytes, data: bytes) -> bytes:
    """Join a volume's description and its file."""
    return _LENGTH.pack(len(begin)) + begin + data


def unpack_volume(payload: bytes) -> tuple[bytes, bytes]:
    """Part a volume's description from its file."""
    (length,) = _LENGTH.unpack_from(payload)
    return payload[_LENGTH.size : _LENGTH.size + length], payload[_LENGTH.size + length :]


def pack_state(told: int, step: int, data: bytes) -> bytes:
    """Join a checkpoint, its step and the number of events and volumes that had been told before it.

    Parameters
    ----------
    told : int
        Frames EVENT, VOLUME and SUCCEEDED of the job. One that goes on does not tell them again.
    step : int
        Steps done; 0 without a checkpoint.
    data : bytes
        Safetensors; empty for a start from the beginning.
    """
    return _STATE.pack(told, step) + data


def unpack_state(payload: bytes) -> tuple[int, int, bytes]:
    """Part what `pack_state` has joined."""
    told, step = _STATE.unpack_from(payload)
    return told, step, payload[_STATE.size :]


def _parse(header: bytes) -> tuple[Kind, int, int]:
    kind, job, length = _HEADER.unpack(header)
    if length > MAX_FRAME_BYTES:
        raise ConnectionError(f"a frame of {length} bytes is larger than any volume")
    return Kind(kind), job, length


async def read(reader: StreamReader) -> Frame:
    """Read a frame in the server.

    Raises
    ------
    EOFError
        The worker is gone.
    """
    kind, job, length = _parse(await reader.readexactly(_HEADER.size))
    return Frame(kind, job, await reader.readexactly(length))


def receive(connection: socket.socket) -> Frame:
    """Read a frame in the worker.

    Raises
    ------
    EOFError
        The server is gone.
    """
    kind, job, length = _parse(_exactly(connection, _HEADER.size))
    return Frame(kind, job, _exactly(connection, length))


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
