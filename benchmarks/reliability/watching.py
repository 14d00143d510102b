"""A caller who follows a job however often the connection breaks."""

import hashlib
import threading
import time

import grpc

from benchmarks.reliability.site import RETRIED, Site
from neurofv.v1 import job_service_pb2 as jobs
from neurofv.v1 import visualization_service_pb2 as vis

_WITHIN = ("volume_chunk", "volume_end")


class History:
    """What is known of a job's events: each by its number, and the volumes' digests."""

    def __init__(self) -> None:
        self.events: dict[int, bytes] = {}
        self.volumes: dict[str, str] = {}
        self.faults: list[str] = []
        self.last = 0
        self.state = vis.JOB_STATE_QUEUED
        self.attempt = 0
        self.steps: list[int] = []
        self.completed: vis.Completed | None = None
        self._open: vis.VolumeBegin | None = None
        self._bytes = b""

    def take(self, event: vis.VisualizeResponse) -> None:
        """Note an event; the parts of a volume count when they are complete."""
        kind = event.WhichOneof("event")
        if kind not in _WITHIN and event.sequence != self.last + 1:
            self.faults.append(f"event {event.sequence} came after {self.last}")
        if kind == "volume_begin":
            self._open, self._bytes = event.volume_begin, b""
        elif kind == "volume_chunk":
            self._bytes += event.volume_chunk.data
        elif kind == "volume_end":
            self._volume(event.sequence)
        else:
            self._plain(event, str(kind))

    def _plain(self, event: vis.VisualizeResponse, kind: str) -> None:
        self.last = event.sequence
        if kind == "volume_skipped":
            self.events[event.sequence] = b"volume " + event.volume_skipped.id.encode()
            return
        self.events[event.sequence] = event.SerializeToString(deterministic=True)
        if kind == "state_changed":
            self.state = event.state_changed.state
            self.attempt = max(self.attempt, event.state_changed.attempt)
        elif kind == "progress":
            self.steps.append(event.progress.step)
        elif kind == "completed":
            self.completed = event.completed

    def _volume(self, sequence: int) -> None:
        begin = self._open
        assert begin is not None
        digest = hashlib.sha256(self._bytes).hexdigest()
        if digest != begin.sha256:
            self.faults.append(f"volume {begin.id} is not what its description says")
        if self.volumes.setdefault(begin.id, digest) != digest:
            self.faults.append(f"volume {begin.id} came twice and differs")
        self.last, self._open = sequence, None
        self.events[sequence] = b"volume " + begin.id.encode()

    def results(self) -> dict[str, str]:
        """Return the digests of all volumes but snapshots."""
        if self.completed is None:
            return {}
        return {name: self.volumes.get(name, "") for name in self.completed.provenance.volumes}


class Watcher(threading.Thread):
    """Follows a job to its end, and takes it up again behind the last whole event.

    Parameters
    ----------
    site : Site
        Where the job runs.
    name : str
        The job's.
    """

    def __init__(self, site: Site, name: str) -> None:
        super().__init__(daemon=True)
        self.site, self.job, self.history = site, name, History()
        self.reconnects = 0
        self.end: grpc.StatusCode | None = None
        self.over = threading.Event()

    def run(self) -> None:
        """Watch until the stream ends by itself."""
        try:
            while self.end is None:
                self._once()
        finally:
            self.over.set()

    def _once(self) -> None:
        history = self.history
        request = jobs.WatchJobRequest(name=self.job, after_sequence=history.last)
        try:
            for answer in self.site.server.jobs.WatchJob(request, timeout=300):
                history.take(answer.event)
            self.end = grpc.StatusCode.OK
        except grpc.RpcError as error:
            if error.code() not in RETRIED:
                self.end = error.code()
                return
        except ValueError:  # the channel was closed a moment ago
            pass
        self.reconnects += 1
        time.sleep(0.05)


def read_again(site: Site, name: str) -> tuple[History, grpc.StatusCode]:
    """Return a job's history as somebody sees it who comes afterwards."""
    watcher = Watcher(site, name)
    watcher.run()
    assert watcher.end is not None
    return watcher.history, watcher.end
