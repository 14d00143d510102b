"""What a caller is promised of jobs, in as few words as possible."""

from dataclasses import dataclass, field

from neurofv.v1 import visualization_service_pb2 as vis
from service.jobs.dispatcher import ATTEMPTS


@dataclass
class PromisedJob:
    asked: tuple[int, bool]
    pinned: bool
    told: dict[int, bytes] = field(default_factory=dict)
    ended: "vis.JobState | None" = None
    cancelled: bool = False
    crashes: int = 0

    def may_end_as(self, state: "vis.JobState") -> bool:
        if self.ended is not None:
            return state == self.ended
        if state == vis.JOB_STATE_CANCELLED:
            return self.cancelled
        if state == vis.JOB_STATE_FAILED:
            return self.crashes >= ATTEMPTS
        return state == vis.JOB_STATE_SUCCEEDED

    def hear(self, sequence: int, event: bytes) -> bool:
        """Take what was told; what was told once must stay the same."""
        return self.told.setdefault(sequence, event) == event


class Promise:
    """Jobs are never lost, never doubled, and removed for two reasons alone."""

    def __init__(self) -> None:
        self.jobs: dict[str, PromisedJob] = {}
        self.removed: dict[str, str] = {}
        self.request_ids: dict[str, str] = {}

    def create(self, name: str, asked: tuple[int, bool], request_id: str) -> bool:
        """Take an answer to a creation; return whether it may be so."""
        if (known := self.expected(request_id)) is not None:
            return known == name and self.jobs[known].asked == asked
        fresh = name not in self.jobs and name not in self.removed
        self.jobs[name] = PromisedJob(asked, asked[1])
        if request_id:
            self.request_ids[request_id] = name
        return fresh

    def expected(self, request_id: str) -> str | None:
        """Return the job that a request_id stands for."""
        name = self.request_ids.get(request_id)
        return name if name in self.jobs else None

    def remove(self, name: str, reason: str) -> None:
        del self.jobs[name]
        self.removed[name] = reason
