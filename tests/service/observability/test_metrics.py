"""The metrics: those that were promised, by the names that Prometheus' conventions want."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.observability import gpu
from service.observability.metrics import STORAGE_FAULTS, Metrics, revision
from service.settings import Settings

# Family, type, labels. The first part is what the project's reference lists for every serving system.
PROMISED = """
neurofv_jobs_submitted counter model
neurofv_jobs_finished counter model state reason
neurofv_jobs_running gauge
neurofv_queue_depth gauge
neurofv_queue_wait_seconds histogram
neurofv_job_duration_seconds histogram model
neurofv_time_to_first_volume_seconds histogram
neurofv_optimizer_steps counter model
neurofv_optimizer_step_duration_seconds histogram
neurofv_cancel_latency_seconds histogram
neurofv_checkpoint_write_seconds histogram
neurofv_checkpoint_bytes histogram
neurofv_volumes_sent counter kind
neurofv_volume_bytes_sent counter
neurofv_intermediates_coalesced counter
neurofv_gpu_memory_used_bytes gauge device
neurofv_gpu_memory_total_bytes gauge device
neurofv_gpu_utilization_ratio gauge device
neurofv_auth_failures counter reason
neurofv_audit_records counter
neurofv_model_load_duration_seconds histogram
neurofv_build info version revision torch python
grpc_server_started counter grpc_type grpc_service grpc_method
grpc_server_handled counter grpc_type grpc_service grpc_method grpc_code
grpc_server_handling_seconds histogram grpc_type grpc_service grpc_method
grpc_server_msg_sent counter grpc_type grpc_service grpc_method
grpc_server_msg_received counter grpc_type grpc_service grpc_method

neurofv_jobs_resumed counter
neurofv_jobs_expired counter
neurofv_jobs_shared counter
neurofv_job_attempts histogram
neurofv_queue_limit gauge
neurofv_ready gauge
neurofv_watchers gauge
neurofv_worker_losses counter
neurofv_checkpoint_failures counter
neurofv_stored_bytes gauge
neurofv_storage_free_bytes gauge
neurofv_storage_commit_seconds histogram
neurofv_storage_faults counter kind
neurofv_ui_requests counter method status
"""
VERSIONS = {"version": "1", "torch": "2", "python": "3"}


def test_every_promised_metric_is_declared_and_no_other() -> None:
    metrics = Metrics(VERSIONS)
    # Without samples only the library's own attribute tells of labels.
    labels = {
        metric._name: metric._labelnames for metric in vars(metrics).values() if hasattr(metric, "_name")
    }
    labels["neurofv_build"] = ("version", "revision", "torch", "python")
    declared = {
        f"{family.name} {family.type} {' '.join(labels[family.name])}".strip()
        for family in metrics.registry.collect()
        if family.name.startswith(("neurofv", "grpc"))
    }
    assert declared == {line for line in PROMISED.splitlines() if line}
    shown = generate_latest(metrics.registry).decode()
    (build,) = (line for line in shown.splitlines() if line.startswith("neurofv_build_info{"))
    assert set(re.findall(r'(\w+)="', build)) == set(labels["neurofv_build"])


def test_no_label_can_tell_of_a_job_or_a_person() -> None:
    allowed = {"model", "state", "reason", "kind", "device", "version", "revision", "torch", "python"}
    allowed |= {"method", "status"}
    for line in filter(None, PROMISED.splitlines()):
        assert {label for label in line.split()[2:] if not label.startswith("grpc_")} <= allowed, line


def test_known_labels_are_there_from_the_start() -> None:
    text = generate_latest(Metrics(VERSIONS).registry).decode()
    for kind in STORAGE_FAULTS:
        assert f'neurofv_storage_faults_total{{kind="{kind}"}} 0.0' in text
    for reason in ("CREDENTIAL_INVALID", "TOKEN_EXPIRED", "ROLE_REQUIRED"):
        assert f'neurofv_auth_failures_total{{reason="{reason}"}} 0.0' in text
    # No room known is not no room left.
    assert "neurofv_storage_free_bytes NaN" in text


def test_what_the_server_knows_is_read_at_every_scrape(tmp_path: Path) -> None:
    metrics, ready = Metrics(VERSIONS), [False]
    metrics.watch(Settings(queue_length=7, device="cpu"), lambda: ready[0], tmp_path)
    assert _value(metrics, "neurofv_ready") == 0
    ready[0] = True
    assert _value(metrics, "neurofv_ready") == 1
    assert _value(metrics, "neurofv_queue_limit") == 7
    assert _value(metrics, "neurofv_storage_free_bytes") > 0


def _value(metrics: Metrics, name: str, **labels: str) -> float | None:
    text = generate_latest(metrics.registry).decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def test_the_revision_is_the_images_or_the_checkouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEUROFV_REVISION", raising=False)
    root = Path(__file__).parents[3]
    commit = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True)
    assert revision() == (commit.stdout.strip() if commit.returncode == 0 else "unknown")
    monkeypatch.setenv("NEUROFV_REVISION", "abc")
    assert revision() == "abc"


def test_without_a_gpu_its_gauges_are_empty_and_nothing_fails() -> None:
    metrics = Metrics(VERSIONS)
    # The device is asked for; this machine's driver, or its absence, answers.
    gpu.watch("cuda:7", metrics.gpu_memory_used, metrics.gpu_memory_total, metrics.gpu_utilization)
    assert _value(metrics, "neurofv_gpu_memory_used_bytes", device="cuda:7") is None


def test_a_gpu_is_found_by_the_name_that_cuda_sees_it_by(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(_: object) -> object:
        raise RuntimeError("not under MIG")

    driver = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used={3: 10, "GPU-x": 20}[handle], total=99),
        nvmlDeviceGetUtilizationRates=lambda handle: (
            SimpleNamespace(gpu=50) if handle == 3 else unsupported(handle)
        ),
    )
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-x")
    metrics = Metrics(VERSIONS)
    for device in ("cuda", "cuda:1"):
        gpu.watch(device, metrics.gpu_memory_used, metrics.gpu_memory_total, metrics.gpu_utilization)
    assert _value(metrics, "neurofv_gpu_memory_used_bytes", device="cuda:0") == 10
    assert _value(metrics, "neurofv_gpu_memory_used_bytes", device="cuda:1") == 20
    assert _value(metrics, "neurofv_gpu_memory_total_bytes", device="cuda:1") == 99
    assert _value(metrics, "neurofv_gpu_utilization_ratio", device="cuda:0") == 0.5
    assert "nan" in str(_value(metrics, "neurofv_gpu_utilization_ratio", device="cuda:1"))
