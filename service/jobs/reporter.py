"""What a worker says of a job, on its way into the journal."""

import time

from google.rpc import status_pb2

from neurofv.v1 import visualization_service_pb2 as vis
from service.jobs.job import Job, Outcome
from service.jobs.journal import Journal
from service.observability.metrics import Metrics
from service.settings import Settings
from service.storage.records import Checkpoint
from service.volumes.nifti import VolumeFile
from service.worker import wire


class Reporter:
    """Takes the frames of one job while it runs.

    Parameters
    ----------
    job : Job
        The job.
    journal : Journal
        Who writes.
    settings : Settings
        The server's limits.
    metrics : Metrics
        Where figures go.
    """

    def __init__(self, job: Job, journal: Journal, settings: Settings, metrics: Metrics) -> None:
        self.job = job
        self._journal, self._settings, self._metrics = journal, settings, metrics

    def take(self, frame: wire.Frame) -> Outcome | None:
        """Report what a frame says; return how the job ended if it has."""
        job, metrics = self.job, self._metrics
        match frame.kind:
            case wire.Kind.EVENT:
                event = vis.VisualizeResponse.FromString(frame.data)
                metrics.steps.labels(job.model).inc()
                metrics.step_duration.observe(event.progress.step_seconds)
                self._journal.add(job, job.tell(event))
            case wire.Kind.VOLUME:
                self._keep(*wire.unpack_volume(frame.data))
            case wire.Kind.CHECKPOINT:
                told, step, data = wire.unpack_state(frame.data)
                metrics.checkpoint_bytes.observe(len(data))
                self._journal.add(job, job.save(Checkpoint(step, told, data)))
            case wire.Kind.SUCCEEDED:
                completed = vis.VisualizeResponse.FromString(frame.data)
                return Outcome(vis.JOB_STATE_SUCCEEDED, completed=completed)
            case wire.Kind.STOPPED:
                metrics.cancel_latency.observe(time.monotonic() - job.cancel_time)
                return Outcome(vis.JOB_STATE_CANCELLED)
            case wire.Kind.PAUSED:
                return Outcome(vis.JOB_STATE_QUEUED)
            case wire.Kind.FAILED:
                return Outcome(vis.JOB_STATE_FAILED, status_pb2.Status.FromString(frame.data))
        return None

    def _keep(self, begin: bytes, data: bytes) -> None:
        job = self.job
        if not job.has_volumes:
            self._metrics.time_to_first_volume.observe(max(0.0, time.time() - job.created))
        file = VolumeFile(vis.VolumeBegin.FromString(begin), data)
        change = job.keep(file, self._settings.max_snapshot_bytes)
        self._metrics.coalesced.inc(len(change.dropped))
        self._journal.add(job, change)
