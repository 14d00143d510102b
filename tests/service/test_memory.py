"""The worker knows how much memory there is."""

from pathlib import Path

import pytest
import torch

from service.worker import memory


def test_free_memory_is_some_and_no_more_than_the_machine_has() -> None:
    total = 1024 * int(Path("/proc/meminfo").read_text().split()[1])
    assert 0 < memory.free_bytes(torch.device("cpu")) < total


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("3000000\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.free_bytes(torch.device("cpu")) == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes(torch.device("cpu")) > 2_000_000


def test_memory_is_given_back() -> None:
    memory.give_back()
