"""Several volumes at once: each as it would be alone, and the network as found."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine import (
    Channel,
    Grid,
    InvalidField,
    Item,
    Neuron,
    Noise,
    Objective,
    Progress,
    Result,
    Snapshot,
    Spec,
    Stop,
    Stopping,
    Term,
    Transforms,
    prepared,
    visualize,
)
from engine.optimizer import OPTIMIZERS
from engine.parameterization import Fourier, LaplacianPyramid, Voxels
from engine.regularizer import L1, L2, GaussianBlur, TotalVariation
from engine.run import Run
from tests.engine.networks import networks


def _spec(ndim: int, units: list, seeds: list[int], **changes: object) -> Spec:
    first, *rest = [Item(Objective((Term(unit),)), seed) for unit, seed in zip(units, seeds, strict=True)]
    spec = Spec(
        grid=Grid((10,) * ndim, (2.0,) * ndim),
        objective=first.objective,
        seed=first.seed,
        batch=tuple(rest),
        start=Noise(0.5),
        steps=6,
        snapshot_every=3,
        regularizers=(TotalVariation(0.01), L2(0.01)),
    )
    return replace(spec, **changes)


def _results(network: nn.Module, spec: Spec) -> list[Result]:
    return [event for event in visualize(network, spec) if isinstance(event, Result)]


def _computed_together(network: nn.Module, spec: Spec) -> Iterator[Result]:
    """Compute a batch in one go also on a CPU, as a GPU does."""
    with ExitStack() as stack:
        for module in ("itemwise", "batch", "transform"):
            stack.enter_context(patch(f"engine.{module}.separate", lambda device: False))
        run = Run(prepared(network), spec, 0)
        for step in range(1, spec.steps + 1):
            run.step(step)
        run.look(spec.steps)
        return run.results(Stop.STEPS)


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    ndim=st.integers(1, 3),
    parameterization=st.sampled_from((Voxels(), Fourier(), LaplacianPyramid())),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    copies=st.integers(1, 3),
    weights_seed=st.integers(0, 2**31),
)
def test_each_volume_is_as_it_would_be_alone_to_the_bit(
    data: st.DataObject,
    ndim: int,
    parameterization: Fourier,
    optimizer: str,
    copies: int,
    weights_seed: int,
) -> None:
    torch.manual_seed(weights_seed)
    network = data.draw(networks(ndim)).double().float()
    channels = data.draw(st.lists(st.integers(0, 1), min_size=2, max_size=4))
    seeds = data.draw(st.lists(st.integers(0, 99), min_size=len(channels), max_size=len(channels)))
    units = [Channel("0", channel) for channel in channels]
    together = _spec(
        ndim,
        units,
        seeds,
        parameterization=parameterization,
        optimizer=OPTIMIZERS[optimizer](),
        transforms=Transforms(jitter_mm=2, noise=0.01, flip=0.5, copies=copies),
        regularizers=(TotalVariation(0.01), L1(0.01), GaussianBlur(3.0))[: data.draw(st.integers(0, 3))],
    )
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    many = _results(network, together)
    computed_together = list(_computed_together(network, replace(together, steps=2)))
    assert [result.item for result in many] == list(range(len(units)))
    for result, item in zip(many, together.items, strict=True):
        alone = replace(together, objective=item.objective, seed=item.seed, batch=())
        (one,) = _results(network, alone)
        assert one.step == result.step
        assert torch.equal(result.image, one.image)
        assert torch.equal(result.extras["gradient"], one.extras["gradient"])
        # As a GPU does it, in one batch: to rounding, which every step of Adam amplifies.
        (begun,) = _results(network, replace(alone, steps=2))
        torch.testing.assert_close(computed_together[result.item].image, begun.image, atol=1e-5, rtol=0)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(
        m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in network.modules()
    )
    assert all(weight.grad is None and weight.requires_grad for weight in network.parameters())


def test_the_same_batch_twice_is_bit_equal() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.Conv3d(4, 4, 3))
    spec = _spec(3, [Channel("2", 0), Neuron("2", 3)], [1, 2])
    first, second = _results(network, spec), _results(network, spec)
    assert all(torch.equal(one.image, other.image) for one, other in zip(first, second, strict=True))
    assert not torch.equal(first[0].image, first[1].image)


def test_progress_and_snapshots_tell_of_every_volume() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3))
    events = list(visualize(network, _spec(2, [Channel("0", 0), Channel("0", 1)], [0, 0])))
    progress = [event for event in events if isinstance(event, Progress)]
    assert all(len(event.items) == 2 for event in progress)
    assert progress[0].items[0].objective != progress[0].items[1].objective
    assert [e.item for e in events if type(e) is Snapshot] == [0, 1]


def test_a_finished_volume_waits_for_the_others_unchanged() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False))
    with torch.no_grad():
        network[0].weight[0] = 1.0
        network[0].weight[1] = 0.01
    stopping = Stopping(look_every=1, activation=4.6)
    spec = _spec(2, [Channel("0", 0), Channel("0", 1)], [0, 0], stopping=stopping, steps=40)
    early, late = _results(network, spec)
    assert early.step < 40
    assert early.stopped.name == "ACTIVATION"
    assert late.stopped.name == "STEPS"
    (alone,) = _results(network, replace(spec, batch=()))
    assert torch.equal(early.image, alone.image)


def test_a_batch_reads_all_units_on_the_same_side_of_nonlinearities() -> None:
    objective = Objective((Term(Channel("0", 0)),), behind_nonlinearities=True)
    with pytest.raises(InvalidField, match="whole batch"):
        _spec(2, [Channel("0", 0)], [0], batch=(Item(objective),))
