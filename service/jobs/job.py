"""A job that has not ended, as this process knows it: its state, its newest events, what it keeps."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from neurofv.v1 import visualization_service_pb2 as vis
from service.jobs.sharing import Share
from service.observability.tracing import JobSpan
from service.storage.records import ENDED, Change, Checkpoint, Record, Volume
from service.volumes.nifti import VolumeFile

# Watchers further behind than this read from the database.
_TAIL = 256
# Who is so many snapshots behind a running job is shown the newest ones.
_BEHIND = 3


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes
    ----------
    state : JobState
        One of the ended states, or QUEUED: it was paused and is to go on later.
    status : google.rpc.Status or None
        Why, if it failed.
    completed : VisualizeResponse or None
        The last event, if it succeeded.
    """

    state: "vis.JobState"
    status: status_pb2.Status | None = None
    completed: vis.VisualizeResponse | None = None


class JobFailed(Exception):
    """The job ended with an error.

    Parameters
    ----------
    status : google.rpc.Status
        What the caller is told.
    """

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


class Job:
    """One visualization on its way.

    What happens to it becomes a `Change` first. Only once that is committed are
    watchers told, so nobody has ever seen an event that a crash could take back.

    Parameters
    ----------
    record : Record
        Its row.
    volumes : sequence of Volume
        Those that it has stored already.
    """

    def __init__(self, record: Record, volumes: "tuple[Volume, ...] | list[Volume]" = ()) -> None:
        self.record = record
        self.number, self.id, self.name = record.number, record.id, record.name
        self.model, self.created = record.model, record.created
        self.state, self.told, self.step = record.state, record.told, record.step
        self.crashes, self.started = record.crashes, record.started
        self.share = Share(record.share_method, record.share_volumes, record.share_voxels)
        self.cancel_requested = asyncio.Event()
        self.cancel_time = 0.0
        # What the next worker begins with.
        self.request = b""
        self.span = JobSpan()
        self.checkpoint: Checkpoint | None = None
        self._sequence = record.last_sequence
        self._snapshots = deque(volume for volume in volumes if volume.snapshot and volume.kept)
        self._results = sum(volume.bytes for volume in volumes if not volume.snapshot)
        self._checkpoints: deque[int] = deque(maxlen=2)
        self.has_volumes = bool(volumes)
        # What is committed.
        self.committed = record.last_sequence
        self.over = False
        self.status: status_pb2.Status | None = None
        self._tail: deque[vis.VisualizeResponse] = deque(maxlen=_TAIL)
        self._newest: dict[int, deque[int]] = {}
        self._news = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED

    @property
    def interrupted(self) -> bool:
        """Whether a worker has begun it already, so that it goes on where it was."""
        return self.told > 0 or self.crashes > 0

    def numbered(self, *events: vis.VisualizeResponse) -> list[vis.VisualizeResponse]:
        """Give events their numbers and the time."""
        now = Timestamp()
        now.GetCurrentTime()
        for event in events:
            self._sequence += 1
            event.sequence = self._sequence
            event.time.CopyFrom(now)
        return list(events)

    def tell(self, event: vis.VisualizeResponse) -> Change:
        """Take an event from the worker."""
        self.told += 1
        self.step = max(self.step, event.progress.step)
        return self._change([event], told=self.told, step=self.step)

    def keep(self, file: VolumeFile, most_bytes: int) -> Change:
        """Take a volume from the worker; older snapshots make room for a new one.

        Parameters
        ----------
        file : VolumeFile
            The volume.
        most_bytes : int
            For all snapshots of the job.
        """
        self.told += 1
        self.has_volumes = True
        change = self._change([vis.VisualizeResponse(volume_begin=file.begin)], told=self.told)
        change.volume, dropped = file, []
        if file.is_snapshot:
            begin = file.begin
            stored = Volume(begin.id, self._sequence, begin.sha256, begin.bytes, snapshot=True, kept=True)
            self._snapshots.append(stored)
            while len(self._snapshots) > 1 and sum(volume.bytes for volume in self._snapshots) > most_bytes:
                dropped.append(self._snapshots.popleft())
        else:
            self._results += file.begin.bytes
        change.dropped = dropped
        change.columns["stored_bytes"] = self._stored_bytes()
        return change

    def save(self, checkpoint: Checkpoint) -> Change:
        """Take a checkpoint from the worker."""
        self._checkpoints.append(len(checkpoint.data))
        change = self._change([], stored_bytes=self._stored_bytes())
        change.checkpoint = checkpoint
        return change

    def move(self, state: "vis.JobState", **columns: Any) -> Change:
        """Go to another state.

        Parameters
        ----------
        state : JobState
            The new one.
        **columns
            More values of the row.
        """
        self.state = state
        moved = vis.StateChanged(state=state)
        if state == vis.JOB_STATE_RUNNING:
            moved.attempt = self.crashes + 1
            moved.from_step = self.checkpoint.step if self.checkpoint else 0
            if self.started is None:
                self.started = columns["started"] = time.time()
        return self._change([vis.VisualizeResponse(state_changed=moved)], state=int(state), **columns)

    def end(self, outcome: Outcome, keep_seconds: float) -> Change:
        """Go to an ended state.

        Parameters
        ----------
        outcome : Outcome
            How it ended.
        keep_seconds : float
            How long the job is kept from now on.
        """
        self._checkpoints.clear()
        self.status = outcome.status
        now = time.time()
        error = outcome.status.SerializeToString() if outcome.status else None
        change = self.move(outcome.state, ended=now, expires=now + keep_seconds, error=error, private=None)
        if outcome.completed is not None:
            self.told += 1
            change.events = [*change.events, *self.numbered(outcome.completed)]
        change.columns |= {
            "last_sequence": self._sequence,
            "told": self.told,
            "stored_bytes": self._stored_bytes(),
        }
        change.over = True
        return change

    def cancel(self) -> None:
        """Ask for the job to be stopped; nothing happens if it has ended."""
        if not self.ended and not self.cancel_requested.is_set():
            self.cancel_time = time.monotonic()
            self.cancel_requested.set()

    def commit(self, change: Change) -> None:
        """Tell the watchers of what has been stored."""
        for event in change.events:
            self._tail.append(event)
            self.committed = event.sequence
        if change.volume is not None and change.volume.is_snapshot:
            newest = self._newest.setdefault(change.volume.begin.item, deque(maxlen=_BEHIND))
            newest.append(self.committed)
        self.over = self.over or change.over
        self.wake()

    def wake(self) -> None:
        """Let the watchers look again."""
        self._news.set()
        self._news = asyncio.Event()

    def after(self, sequence: int) -> list[vis.VisualizeResponse] | None:
        """Return the committed events behind one, or None if they are no longer held here."""
        if sequence >= self.committed:
            return []
        if not self._tail or sequence + 1 < self._tail[0].sequence:
            return None
        return list(self._tail)[sequence + 1 - self._tail[0].sequence :]

    def superseded(self, event: vis.VisualizeResponse) -> bool:
        """Whether several newer snapshots of the same item are there while the job goes on."""
        newest = self._newest.get(event.volume_begin.item, deque[int]())
        return not self.over and len(newest) == _BEHIND and newest[0] > event.sequence

    @property
    def news(self) -> asyncio.Event:
        """Set when there may be something to see; another one each time."""
        return self._news

    def _change(self, events: list[vis.VisualizeResponse], **columns: Any) -> Change:
        numbered = self.numbered(*events)
        if events:
            columns["last_sequence"] = self._sequence
        return Change(self.number, self.id, numbered, columns=columns)

    def _stored_bytes(self) -> int:
        snapshots = sum(volume.bytes for volume in self._snapshots)
        return self._results + snapshots + sum(self._checkpoints)


def first_events(name: str, request: vis.VisualizeRequest) -> list[vis.VisualizeResponse]:
    """Return what is told of a new job: that it was accepted, and that it waits.

    Parameters
    ----------
    name : str
        The job's.
    request : VisualizeRequest
        Resolved, without images.
    """
    now = Timestamp()
    now.GetCurrentTime()
    accepted = vis.Accepted(job=name, request=request)
    waits = vis.StateChanged(state=vis.JOB_STATE_QUEUED)
    return [
        vis.VisualizeResponse(sequence=1, time=now, accepted=accepted),
        vis.VisualizeResponse(sequence=2, time=now, state_changed=waits),
    ]
