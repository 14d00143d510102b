"""A volume's file on its way in, apart from any stream of events.

Both clients do the calling and the waiting; nothing here does either.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import BinaryIO

from neurofv.errors import InvalidRequest, NeurofvError, VolumeCorrupt
from neurofv.retries import Patience
from neurofv.v1 import job_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis
from neurofv.volumes import Assembler, Volume, target_path

_DIGEST = re.compile(r"[0-9a-f]{64}")


def announced(job: pb.Job, volume: str) -> vis.VolumeBegin:
    """Return the announcement of one of a job's volumes.

    Parameters
    ----------
    job : Job
        As GetJob tells it.
    volume : str
        The volume's id.

    Raises
    ------
    InvalidRequest
        The job has no such volume, or not yet.
    VolumeCorrupt
        What it says of its digest is none.
    """
    kept = {begin.id: begin for begin in job.volumes}
    if volume not in kept:
        state = vis.JobState.Name(job.state).removeprefix("JOB_STATE_")
        remedy = f"{job.name} is {state} and keeps: {', '.join(kept) or 'none yet'}"
        raise InvalidRequest("volume", volume, remedy)
    # It becomes part of a file's name.
    if not _DIGEST.fullmatch(kept[volume].sha256):
        raise VolumeCorrupt(f"volume {volume!r} of {job.name} is announced with no SHA-256")
    return kept[volume]


class Fetch:
    """Reads a volume from a byte on, over as many calls as it takes.

    Parameters
    ----------
    job : str
        The job's name.
    begin : VolumeBegin
        The volume.
    sink : file
        Open for writing, with the bytes that are there already; the next ones are added.
    patience : Patience
        Whether and when to go on after a break.
    """

    def __init__(self, job: str, begin: vis.VolumeBegin, sink: BinaryIO, patience: Patience) -> None:
        self.patience = patience
        self._job, self._begin, self._sink = job, begin, sink
        self._offset = sink.seek(0, os.SEEK_END)

    @property
    def over(self) -> bool:
        """Whether every byte is there."""
        return self._offset >= self._begin.bytes

    def next_call(self) -> pb.ReadVolumeRequest:
        """Return what to ask the server for."""
        return pb.ReadVolumeRequest(name=self._job, volume=self._begin.id, offset=self._offset)

    def take(self, response: pb.ReadVolumeResponse) -> None:
        """Take a piece.

        Raises
        ------
        VolumeCorrupt
            It is not the next one, or of another volume.
        OSError
            It cannot be written.
        """
        begin = self._begin
        if response.HasField("volume") and response.volume.sha256 != begin.sha256:
            raise VolumeCorrupt(f"volume {begin.id!r} of {self._job} is another one than a moment ago")
        if response.offset != self._offset:
            raise VolumeCorrupt(
                f"volume {begin.id!r} continues at byte {response.offset}, but {self._offset} have arrived"
            )
        if self._offset + len(response.data) > begin.bytes:
            raise VolumeCorrupt(f"volume {begin.id!r} is longer than the {begin.bytes} bytes announced")
        self._sink.write(response.data)
        self._offset += len(response.data)
        self.patience.reward()

    def end(self) -> None:
        """Take note that the server has ended the stream without an error.

        Raises
        ------
        VolumeCorrupt
            Bytes are missing.
        """
        if not self.over:
            total = self._begin.bytes
            raise VolumeCorrupt(f"volume {self._begin.id!r} ends after {self._offset} of {total} bytes")

    def broken(self, error: NeurofvError) -> float:
        """Return for how many seconds to wait before the next call.

        Raises
        ------
        NeurofvError
            There is no use in one.
        """
        return 0.0 if self.over else self.patience.pause(error)


class PartialFile:
    """A download that lies beside its target until it is whole.

    Its name holds the volume's digest: whatever is found there is the beginning of the same file.

    Parameters
    ----------
    path : str or Path
        The target: a name that ends in `.nii.gz`, or a directory.
    begin : VolumeBegin
        The volume.

    Raises
    ------
    InvalidRequest
        The path is neither.
    """

    def __init__(self, path: str | Path, begin: vis.VolumeBegin) -> None:
        self._begin = begin
        self._target = target_path(path, Volume(begin, b"").file_name)
        self._part = self._target.with_name(f".{self._target.name}.{begin.sha256[:16]}.part")

    def open(self) -> BinaryIO:
        """Open what is there, to add to it.

        Raises
        ------
        OSError
            It cannot be made.
        """
        self._part.parent.mkdir(parents=True, exist_ok=True)
        if self._part.exists() and self._part.stat().st_size > self._begin.bytes:
            self._part.unlink()
        return self._part.open("ab")

    def finish(self) -> Path:
        """Verify the file, put it in place and return where.

        Raises
        ------
        VolumeCorrupt
            It is not what was announced; it is removed, so that the next try begins anew.
        """
        with self._part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != self._begin.sha256:
            self._part.unlink()
            raise VolumeCorrupt(
                f"volume {self._begin.id!r} has SHA-256 {digest}, announced was {self._begin.sha256}; "
                "what had arrived is removed, download it again"
            )
        return self._part.replace(self._target)


def assembled(begin: vis.VolumeBegin, data: bytes) -> Volume:
    """Verify a volume that was read whole.

    Raises
    ------
    VolumeCorrupt
        Length, digest, shape or affine differ from the announcement.
    """
    assembler = Assembler()
    assembler.begin(begin)
    assembler.chunk(vis.VolumeChunk(id=begin.id, data=data))
    return assembler.end(vis.VolumeEnd(id=begin.id))
