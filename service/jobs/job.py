"""A job: its state, and the events that wait to be streamed."""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from neurofv.v1 import visualization_service_pb2 as vis
from service.jobs.images import without_images
from service.jobs.sharing import ALONE, Share
from service.volumes import nifti

_ENDED = frozenset({vis.JOB_STATE_SUCCEEDED, vis.JOB_STATE_FAILED, vis.JOB_STATE_CANCELLED})
Item = vis.VisualizeResponse | nifti.VolumeFile


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes
    ----------
    state : JobState
        One of the ended states.
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
    """One visualization.

    A reader that falls behind costs little: of the snapshots it has not begun
    to read only the newest is kept. State changes, progress and the final
    volume are never dropped.

    Parameters
    ----------
    number : int
        Its number on the wire to the workers.
    request : VisualizeRequest
        Resolved.
    share : Share
        With whom it may run.
    """

    def __init__(self, number: int, request: vis.VisualizeRequest, share: Share = ALONE) -> None:
        self.number = number
        self.request = request
        self.share = share
        self.name = f"jobs/{uuid.uuid4().hex}"
        self.state = vis.JOB_STATE_QUEUED
        self.created = time.monotonic()
        self.cancel_requested = asyncio.Event()
        self.cancel_time = 0.0
        self.coalesced = 0
        self._status: status_pb2.Status | None = None
        self._outbox: deque[tuple[Timestamp, Item]] = deque()
        self._news = asyncio.Event()
        self.publish(
            vis.VisualizeResponse(accepted=vis.Accepted(job=self.name, request=without_images(request)))
        )
        self._announce()

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in _ENDED

    def publish(self, item: Item) -> None:
        """Add an event or a volume to what is streamed."""
        if isinstance(item, nifti.VolumeFile) and _is_snapshot(item):
            kept = [entry for entry in self._outbox if not _is_snapshot(entry[1])]
            self.coalesced += len(self._outbox) - len(kept)
            self._outbox = deque(kept)
        now = Timestamp()
        now.GetCurrentTime()
        self._outbox.append((now, item))
        self._news.set()

    def move(self, state: "vis.JobState") -> None:
        """Go to another state; an ended job stays as it is."""
        if not self.ended:
            self.state = state
            self._announce()

    def end(self, outcome: Outcome) -> bool:
        """Go to an ended state; return whether the job had not ended before."""
        if self.ended:
            return False
        self._status = outcome.status
        self.move(outcome.state)
        if outcome.completed is not None:
            self.publish(outcome.completed)
        return True

    def cancel(self) -> None:
        """Ask for the job to be stopped; nothing happens if it has ended."""
        if not self.ended and not self.cancel_requested.is_set():
            self.cancel_time = time.monotonic()
            self.cancel_requested.set()

    async def stream(self) -> AsyncIterator[vis.VisualizeResponse]:
        """Yield the events, numbered without gaps, until the job has ended.

        Raises
        ------
        JobFailed
            After the last event of a job that failed.
        """
        sequence = 0
        while True:
            while self._outbox:
                made, item = self._outbox.popleft()
                whole = (
                    [item] if isinstance(item, vis.VisualizeResponse) else nifti.events(item.begin, item.data)
                )
                for event in whole:
                    sequence += 1
                    event.sequence = sequence
                    event.time.CopyFrom(made)
                    yield event
            if self.ended:
                break
            self._news.clear()
            await self._news.wait()
        if self._status is not None:
            raise JobFailed(self._status)

    def _announce(self) -> None:
        self.publish(vis.VisualizeResponse(state_changed=vis.StateChanged(state=self.state)))


def _is_snapshot(item: Item) -> bool:
    return isinstance(item, nifti.VolumeFile) and item.begin.kind == vis.VOLUME_KIND_INTERMEDIATE
