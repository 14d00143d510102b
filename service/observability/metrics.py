"""Prometheus metrics: base units, no job, request or person in a label."""

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

# From a cached answer to an hour's job; the library's own end at 10 s.
_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)


class Metrics:
    """Every metric of the server, in a registry of its own.

    Attributes
    ----------
    registry : CollectorRegistry
        What `/metrics` shows.
    """

    def __init__(self, versions: dict[str, str]) -> None:
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        Info("neurofv_build", "Versions of the software.", registry=registry).info(versions)
        self._jobs(registry)
        self._volumes(registry)
        self._calls(registry)

    def _jobs(self, registry: CollectorRegistry) -> None:
        self.jobs_submitted = Counter("neurofv_jobs_submitted", "Jobs taken.", ["model"], registry=registry)
        self.jobs_finished = Counter(
            "neurofv_jobs_finished", "Jobs ended.", ["model", "state", "reason"], registry=registry
        )
        self.jobs_running = Gauge("neurofv_jobs_running", "Jobs on a worker.", registry=registry)
        self.jobs_shared = Counter(
            "neurofv_jobs_shared", "Jobs that shared a batch with others.", registry=registry
        )
        self.queue_depth = Gauge("neurofv_queue_depth", "Jobs that wait.", registry=registry)
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
        self.auth_failures = Counter(
            "neurofv_auth_failures", "Calls refused for who made them.", ["reason"], registry=registry
        )


def _seconds(name: str, text: str, registry: CollectorRegistry, *labels: str) -> Histogram:
    return Histogram(name, text, labels, buckets=_SECONDS, registry=registry)
