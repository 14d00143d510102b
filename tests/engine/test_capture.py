"""Networks stay as they were found, and nothing behind the target runs."""

import pytest
import torch
from torch import nn

from engine import UnknownLayer, activations, frozen


class _Bomb(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("what lies behind the target must not run")


class _Swallower(nn.Module):
    """Hides exceptions of what it wraps, as some frameworks do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        try:
            return self.inner(x)
        except Exception:
            return x


def test_activations_are_those_of_the_layers() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3)).eval()
    volume = torch.randn(2, 1, 9, 9)
    found = activations(network, ["0", "2"], volume)
    torch.testing.assert_close(found["0"], network[0](volume))
    torch.testing.assert_close(found["2"], network(volume))


def test_the_run_stops_at_the_target() -> None:
    network = nn.Sequential(nn.Conv1d(1, 2, 3), _Bomb())
    assert activations(network, ["0"], torch.randn(1, 1, 8))["0"].shape == (1, 2, 6)


def test_the_run_stops_even_inside_a_swallowing_module() -> None:
    network = nn.Sequential(_Swallower(nn.Sequential(nn.Conv1d(1, 2, 3), _Bomb())), _Bomb())
    assert set(activations(network, ["0.inner.0"], torch.randn(1, 1, 8))) == {"0.inner.0"}


def test_a_layer_that_runs_twice_answers_with_its_first_output() -> None:
    shared = nn.Linear(4, 4)
    volume = torch.randn(1, 4)
    found = activations(nn.Sequential(shared, shared, nn.Identity()), ["0", "2"], volume)
    torch.testing.assert_close(found["0"], shared(volume))


def test_unknown_layers_are_named_with_the_valid_ones() -> None:
    network = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU())
    with pytest.raises(UnknownLayer, match=r"'conv9'.*0, 1"):
        activations(network, ["conv9"], torch.randn(1, 1, 8))
    assert not network[0]._forward_hooks


def test_no_hook_stays_when_one_of_several_layers_is_unknown() -> None:
    network = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU())
    with pytest.raises(UnknownLayer):
        activations(network, ["0", "conv9"], torch.randn(1, 1, 8))
    assert not any(module._forward_hooks for module in network.modules())


def test_readings_survive_what_overwrites_its_input() -> None:
    network = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(inplace=True), nn.Conv1d(4, 2, 3)).eval()
    volume = torch.randn(1, 1, 30)
    found = activations(network, ["0", "2"], volume)
    torch.testing.assert_close(found["0"], network[0](volume))
    assert found["0"].min() < 0


def test_frozen_restores_mixed_flags_also_after_an_error() -> None:
    network = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.Dropout())
    network[1].eval()
    network[0].bias.requires_grad_(False)
    before = (
        [module.training for module in network.modules()],
        [p.requires_grad for p in network.parameters()],
    )

    def fail_while_frozen() -> None:
        with frozen(network):
            assert not any(module.training for module in network.modules())
            assert not any(p.requires_grad for p in network.parameters())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_while_frozen()
    after = [module.training for module in network.modules()], [p.requires_grad for p in network.parameters()]
    assert after == before


def test_a_nonlinearity_says_what_enters_it() -> None:
    network = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(inplace=True), nn.Conv1d(4, 2, 3)).eval()
    volume = torch.randn(1, 1, 30)
    before = activations(network, ["1", "2"], volume)
    torch.testing.assert_close(before["1"], network[0](volume))
    assert before["1"].min() < 0
    behind = activations(network, ["1", "2"], volume, behind_nonlinearities=True)
    torch.testing.assert_close(behind["1"], network[0](volume).relu())
    torch.testing.assert_close(behind["2"], before["2"])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network)
