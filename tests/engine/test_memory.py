"""The peak of memory, beside what is known to be allocated."""

import threading

import pytest
import torch

from engine.memory import PeakMemory

MB = 1 << 20
CPU = torch.device("cpu")


def _bytes(count: int) -> torch.Tensor:
    return torch.empty(count, dtype=torch.uint8)


def test_the_peak_is_what_was_there_at_once() -> None:
    with PeakMemory(CPU) as memory:
        first = _bytes(3 * MB)
        second = _bytes(5 * MB)
        del first
        third = _bytes(2 * MB)
        del second
    assert memory.peak == pytest.approx(8 * MB, rel=0.01)
    assert memory.left == pytest.approx(2 * MB, rel=0.01)
    assert third.numel() == 2 * MB


def test_views_and_changes_in_place_cost_nothing() -> None:
    given = torch.ones(MB)
    with PeakMemory(CPU) as memory:
        given.view(2, -1).t().add_(1)[0].mul_(2)
    assert memory.peak < MB / 4


def test_what_a_gradient_needs_is_counted() -> None:
    volume = torch.rand(MB, requires_grad=True)
    with PeakMemory(CPU) as memory:
        torch.autograd.grad(volume.sin().exp().sum(), volume)
    # The sine, its exponential, and gradients on the way back.
    assert 3 * 4 * MB <= memory.peak <= 5 * 4 * MB
    assert memory.left < MB / 4


def test_other_threads_do_not_count() -> None:
    kept = []
    with PeakMemory(CPU) as memory:
        other = threading.Thread(target=lambda: kept.append(_bytes(64 * MB)))
        other.start()
        other.join()
        _bytes(MB)
    assert MB <= memory.peak < 2 * MB
