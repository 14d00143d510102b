"""The worker knows how much memory there is."""

from pathlib import Path

import pytest
import torch

from models import ZOO
from neurofv.v1 import visualization_service_pb2 as vis
from service.worker import memory
from tests.server import RunningServer


def test_free_memory_is_some_and_no_more_than_the_machine_has() -> None:
    total = 1024 * int(Path("/proc/meminfo").read_text().split()[1])
    assert 0 < memory.free_bytes(torch.device("cpu")) < total


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("3000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500000\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.free_bytes(torch.device("cpu")) == 2_500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes(torch.device("cpu")) > 2_500_000


def test_memory_is_given_back() -> None:
    memory.give_back()


def test_what_does_not_fit_is_computed_again_and_said_so(server: RunningServer) -> None:
    request = vis.VisualizeRequest(model="lesion-shapes", version=1, steps=3)
    request.objective.terms.add().class_logit.class_name = "cube"
    *_, roomy = server.visualization.Visualize(request, timeout=120)
    narrow = RunningServer(ZOO, max_activation_bytes=1000)
    try:
        *_, tight = narrow.visualization.Visualize(request, timeout=120)
    finally:
        narrow.stop()
    assert not roomy.completed.evaluation.recomputed
    assert tight.completed.evaluation.recomputed
    assert tight.completed.provenance.volume_sha256 == roomy.completed.provenance.volume_sha256
