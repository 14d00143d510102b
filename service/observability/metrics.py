"""Prometheus metrics: base units, no job, request or person in a label."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)

from service.errors import RoleRequired, TokenExpired, Unauthenticated
from service.observability import gpu
from service.settings import Settings

# From a cached answer to an hour's job; the library's own end at 10 s.
_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
# A commit takes a tenth of a millisecond to a fifth of a second, on a bad day ten.
_COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 2.5, 10)
_BYTES = (1e5, 3e5, 1e6, 3e6, 1e7, 3e7, 1e8, 3e8, 1e9)
_ATTEMPTS = (1, 2, 3)
# What befalls the store: no room, a database or disk that cannot be written, bytes other than those written.
STORAGE_FAULTS = ("full", "busy", "corrupt")
_CREDENTIAL_FAULTS = (Unauthenticated, TokenExpired, RoleRequired)


class Metrics:
    """Every metric of the server, in a registry of its own.

    Where the labels' values are known beforehand they are there from the start, at 0: `increase` does not
    see a series begin.

    Parameters
    ----------
    versions : dict of str to str
        Versions of the software, for `neurofv_build_info`; the revision is added.

    Attributes
    ----------
    registry : CollectorRegistry
        What `/metrics` shows.
    """

    def __init__(self, versions: dict[str, str]) -> None:
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        Info("neurofv_build", "Versions of the software.", registry=registry).info(
            {"revision": revision(), **versions}
        )
        self._state(registry)
        self._jobs(registry)
        self._volumes(registry)
        self._storage(registry)
        self._security(registry)
        self._calls(registry)

    def watch(self, settings: Settings, is_ready: Callable[[], bool], storage: Path | None = None) -> None:
        """Show what only the running server knows: readiness, limits, the disk, the GPU.

        Parameters
        ----------
        settings : Settings
            What the operator has decided.
        is_ready : callable
            Whether jobs are taken.
        storage : Path, optional
            Folder of jobs.
        """
        self.ready.set_function(lambda: float(is_ready()))
        self.queue_limit.set(settings.queue_length)
        if storage is not None:
            self.storage_free.set_function(lambda: _free_bytes(storage))
        gpu.watch(settings.device, self.gpu_memory_used, self.gpu_memory_total, self.gpu_utilization)

    def _state(self, registry: CollectorRegistry) -> None:
        self.ready = Gauge("neurofv_ready", "Whether jobs are taken: 1 or 0.", registry=registry)
        self.watchers = Gauge("neurofv_watchers", "Streams of jobs that are open.", registry=registry)
        self.worker_losses = Counter(
            "neurofv_worker_losses", "Deaths of the worker that nobody asked for.", registry=registry
        )
        self.model_load_duration = _seconds(
            "neurofv_model_load_duration_seconds", "Time to read and prepare a model.", registry
        )
        device = ["device"]
        self.gpu_memory_used = Gauge(
            "neurofv_gpu_memory_used_bytes",
            "Memory of the GPU in use, by whomever.",
            device,
            registry=registry,
        )
        self.gpu_memory_total = Gauge(
            "neurofv_gpu_memory_total_bytes", "Memory of the GPU.", device, registry=registry
        )
        self.gpu_utilization = Gauge(
            "neurofv_gpu_utilization_ratio",
            "Part of the time in which the GPU computes.",
            device,
            registry=registry,
        )

    def _jobs(self, registry: CollectorRegistry) -> None:
        self.jobs_submitted = Counter("neurofv_jobs_submitted", "Jobs taken.", ["model"], registry=registry)
        self.jobs_finished = Counter(
            "neurofv_jobs_finished", "Jobs ended.", ["model", "state", "reason"], registry=registry
        )
        self.jobs_running = Gauge("neurofv_jobs_running", "Jobs on a worker.", registry=registry)
        self.jobs_shared = Counter(
            "neurofv_jobs_shared", "Jobs that shared a batch with others.", registry=registry
        )
        self.jobs_resumed = Counter(
            "neurofv_jobs_resumed", "Jobs taken up again after a restart or a death.", registry=registry
        )
        self.jobs_expired = Counter(
            "neurofv_jobs_expired", "Jobs removed when their time was over.", registry=registry
        )
        self.job_attempts = Histogram(
            "neurofv_job_attempts", "Attempts that a job took.", buckets=_ATTEMPTS, registry=registry
        )
        self.queue_depth = Gauge("neurofv_queue_depth", "Jobs that wait.", registry=registry)
        self.queue_limit = Gauge("neurofv_queue_limit", "Jobs that may wait.", registry=registry)
        self.queue_wait = _seconds("neurofv_queue_wait_seconds", "Wait for a worker.", registry)
        self.job_duration = _seconds("neurofv_job_duration_seconds", "Time on a worker.", registry, "model")
        self.steps = Counter("neurofv_optimizer_steps", "Optimizer steps.", ["model"], registry=registry)
        self.step_duration = _seconds("neurofv_optimizer_step_duration_seconds", "Time of a step.", registry)
        self.cancel_latency = _seconds(
            "neurofv_cancel_latency_seconds", "From the wish to cancel to the optimizer's stop.", registry
        )

    def _volumes(self, registry: CollectorRegistry) -> None:
        self.time_to_first_volume = _seconds(
            "neurofv_time_to_first_volume_seconds", "From the request to the first volume.", registry
        )
        self.volumes_sent = Counter("neurofv_volumes_sent", "Volumes streamed.", ["kind"], registry=registry)
        self.volume_bytes_sent = Counter(
            "neurofv_volume_bytes_sent", "Bytes of volumes streamed.", registry=registry
        )
        self.coalesced = Counter(
            "neurofv_intermediates_coalesced", "Snapshots dropped for a newer one.", registry=registry
        )

    def _storage(self, registry: CollectorRegistry) -> None:
        self.checkpoint_write = _seconds(
            "neurofv_checkpoint_write_seconds", "Time to write a checkpoint.", registry
        )
        self.checkpoint_bytes = Histogram(
            "neurofv_checkpoint_bytes", "Size of a checkpoint.", buckets=_BYTES, registry=registry
        )
        self.checkpoint_failures = Counter(
            "neurofv_checkpoint_failures", "Checkpoints that could not be written or read.", registry=registry
        )
        self.stored_bytes = Gauge(
            "neurofv_stored_bytes", "Bytes of volumes and checkpoints kept.", registry=registry
        )
        self.storage_free = Gauge(
            "neurofv_storage_free_bytes", "Room left on the disk of jobs.", registry=registry
        )
        self.storage_free.set(float("nan"))  # until it is known, which is not the same as none
        self.storage_commit = Histogram(
            "neurofv_storage_commit_seconds", "Time of a commit.", buckets=_COMMIT_SECONDS, registry=registry
        )
        self.storage_faults = Counter(
            "neurofv_storage_faults",
            f"Faults of the store: {', '.join(STORAGE_FAULTS)}.",
            ["kind"],
            registry=registry,
        )
        for kind in STORAGE_FAULTS:
            self.storage_faults.labels(kind)

    def _security(self, registry: CollectorRegistry) -> None:
        self.auth_failures = Counter(
            "neurofv_auth_failures", "Calls refused for who made them.", ["reason"], registry=registry
        )
        for fault in _CREDENTIAL_FAULTS:
            self.auth_failures.labels(fault.reason)
        self.audit_records = Counter(
            "neurofv_audit_records", "Records added to the audit log.", registry=registry
        )

    def _calls(self, registry: CollectorRegistry) -> None:
        labels = ["grpc_type", "grpc_service", "grpc_method"]
        self.calls_started = Counter("grpc_server_started", "Calls begun.", labels, registry=registry)
        self.calls_handled = Counter(
            "grpc_server_handled", "Calls ended.", [*labels, "grpc_code"], registry=registry
        )
        self.call_duration = _seconds("grpc_server_handling_seconds", "Time of a call.", registry, *labels)
        self.messages_sent = Counter("grpc_server_msg_sent", "Messages sent.", labels, registry=registry)
        self.messages_received = Counter(
            "grpc_server_msg_received", "Messages received.", labels, registry=registry
        )
        self.ui_requests = Counter(
            "neurofv_ui_requests",
            "Requests for the page's data, by the gRPC method that tells the same and by HTTP status.",
            ["method", "status"],
            registry=registry,
        )


def _seconds(name: str, text: str, registry: CollectorRegistry, *labels: str) -> Histogram:
    return Histogram(name, text, labels, buckets=_SECONDS, registry=registry)


def revision() -> str:
    """Return the software's revision: what the image says, or the checkout's commit, or `unknown`."""
    told = os.environ.get("NEUROFV_REVISION")
    if told:
        return told
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return "unknown"
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


def _free_bytes(folder: Path) -> float:
    try:
        return float(shutil.disk_usage(folder).free)
    except OSError:
        return float("nan")
