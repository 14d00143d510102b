"""A dead unit is rescued where a way exists, and said to be dead where none does."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from engine import (
    Adam,
    Channel,
    Grid,
    Item,
    Noise,
    Objective,
    Result,
    Spec,
    Stop,
    Term,
    visualize,
)
from engine.evaluation import readings
from engine.network import redirected


def _dead_until_bright() -> nn.Sequential:
    """A ReLU that only opens for intensities above 0.8, in front of the unit."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1))
    with torch.no_grad():
        network[0].weight.fill_(1.0)
        network[0].bias.fill_(-0.8)
        network[2].weight.fill_(1.0)
        network[2].bias.fill_(0.0)
    return network


def _spec(**changes: object) -> Spec:
    spec = Spec(
        Grid((6, 6), (1.0, 1.0)),
        Objective((Term(Channel("2", 0)),)),
        start=Noise(0.1),
        regularizers=(),
        optimizer=Adam(0.1),
        steps=40,
        snapshot_every=0,
    )
    return replace(spec, **changes)


def _results(network: nn.Module, spec: Spec) -> list[Result]:
    return [event for event in visualize(network, spec) if isinstance(event, Result)]


def test_values_stay_and_shut_relus_pass_what_opens_them() -> None:
    relu = nn.ReLU()
    inputs = torch.tensor([[-1.0, -2.0], [1.0, -1.0], [-3.0, -1.0]], requires_grad=True)
    weights = torch.tensor([[2.0, -1.0], [1.0, 5.0], [-1.0, -2.0]])
    with redirected(nn.Sequential(relu)):
        output = relu(inputs)
        (gradient,) = torch.autograd.grad((output * weights).sum(), inputs)
    torch.testing.assert_close(output, inputs.detach().relu())
    # Shut altogether: what opens passes. Half open: the plain gradient. Shut, and nothing would open it.
    torch.testing.assert_close(gradient, torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))


def test_relu6_is_redirected_at_both_ends() -> None:
    inputs = torch.tensor([[-1.0], [7.0], [3.0]], requires_grad=True)
    layer = nn.ReLU6()
    with redirected(layer):
        (down,) = torch.autograd.grad((-layer(inputs)).sum(), inputs)
    torch.testing.assert_close(down, torch.tensor([[0.0], [-1.0], [-1.0]]))


def test_modules_are_as_found_also_after_an_error() -> None:
    network = _dead_until_bright()
    own = lambda inputs: inputs * 2  # noqa: E731
    network[1].forward = own

    def fail() -> None:
        with redirected(network):
            assert network[1].forward is not own
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert network[1].forward is own
    other = _dead_until_bright()
    with redirected(other):
        pass
    assert "forward" not in vars(other[1])


def test_a_unit_behind_shut_relus_is_brought_to_life() -> None:
    network = _dead_until_bright()
    (result,) = _results(network, _spec(steps=100))
    assert 0 < result.redirected_steps < 100
    assert result.stopped is Stop.STEPS
    assert float(readings(network, _spec().objective, result.image[None, None])[0]) > 0.1


def test_a_unit_that_answers_to_nothing_is_dead_and_the_others_go_on() -> None:
    network = _dead_until_bright()
    with torch.no_grad():
        network[2].weight[1] = 0.0
    dead = Item(Objective((Term(Channel("2", 1)),)))
    living, lifeless = _results(network, _spec(batch=(dead,)))
    assert (living.stopped, lifeless.stopped) == (Stop.STEPS, Stop.DEAD)
    (alone,) = _results(network, _spec())
    torch.testing.assert_close(living.image, alone.image, atol=1e-5, rtol=0)
    (alone,) = _results(network, _spec(objective=dead.objective))
    assert alone.stopped is Stop.DEAD
    assert alone.step < 40


def test_a_living_unit_is_never_redirected() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    (result,) = _results(network, _spec())
    assert result.redirected_steps == 0
