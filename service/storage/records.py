"""What the database says of jobs, and what it is told."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from neurofv.v1 import visualization_service_pb2 as vis
from service.volumes.nifti import VolumeFile

ENDED = frozenset({vis.JOB_STATE_SUCCEEDED, vis.JOB_STATE_FAILED, vis.JOB_STATE_CANCELLED})


@dataclass(frozen=True)
class Record:
    """A job's row; the columns are described in `service.storage.schema`."""

    number: int
    id: str
    owner: str
    state: "vis.JobState"
    model: str
    version: int
    digest: str
    created: float
    started: float | None
    ended: float | None
    expires: float | None
    share_method: bytes
    share_volumes: int
    share_voxels: int
    voxel_steps: int
    last_sequence: int
    told: int
    step: int
    crashes: int
    pinned: bool
    stored_bytes: int
    error: bytes | None

    @property
    def name(self) -> str:
        """The resource name."""
        return f"jobs/{self.id}"

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED


@dataclass(frozen=True)
class Volume:
    """A stored volume's row."""

    name: str
    sequence: int
    sha256: str
    bytes: int
    snapshot: bool
    kept: bool


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on its way into storage, or out of it.

    Attributes
    ----------
    step : int
        Steps done.
    told : int
        Events and volumes that the worker had told before.
    data : bytes
        Safetensors.
    """

    step: int
    told: int
    data: bytes


@dataclass(frozen=True)
class Usage:
    """What a caller has."""

    jobs: int
    voxel_steps: int
    stored_bytes: int


@dataclass
class Change:
    """What happened to a job; committed whole.

    Attributes
    ----------
    number, id : int, str
        The job's.
    events : sequence of VisualizeResponse
        Numbered.
    volume : VolumeFile or None
        The file of the only event, a `volume_begin`.
    checkpoint : Checkpoint or None
        A new one.
    dropped : sequence of Volume
        Snapshots that make room.
    columns : dict
        The row's new values.
    over : bool
        Whether the job has ended.
    filed : bool
        Whether its files are written.
    audit : dict
        What the audit log says of the end before it is stored; empty for nothing.
    """

    number: int
    id: str
    events: Sequence[vis.VisualizeResponse] = ()
    volume: VolumeFile | None = None
    checkpoint: Checkpoint | None = None
    dropped: Sequence[Volume] = ()
    columns: dict[str, Any] = field(default_factory=dict)
    over: bool = False
    filed: bool = False
    audit: dict[str, str] = field(default_factory=dict)
