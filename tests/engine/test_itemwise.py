"""Volumes computed together on a CPU: the bits they have alone, whatever the method, batch and grid."""

from collections.abc import Callable
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from engine import (
    Anatomy,
    Channel,
    Grid,
    Item,
    Neuron,
    Noise,
    Objective,
    Progress,
    ReferenceBrain,
    Result,
    Spec,
    Stop,
    Stopping,
    Term,
    Transforms,
    visualize,
)
from engine import regularizer as kinds
from engine.batch import joint
from engine.itemwise import each, means, parts
from engine.optimizer import OPTIMIZERS
from engine.parameterization import Fourier, LaplacianPyramid, Maco, Parameterization, Voxels
from engine.regularizer import REGULARIZERS, Regularizer
from tests.engine.networks import networks

CPU = torch.device("cpu")
ITEMWISE = [
    kinds.TotalVariation(0.1),
    kinds.L1(0.1),
    kinds.L2(0.1),
    kinds.SpectrumMatch(0.1),
    kinds.GaussianBlur(3.0),
    kinds.GradientBlur(2.0),
    kinds.Decay(0.05),
    kinds.IntensityClip(0.1, 0.9),
    kinds.BrainMask(1.0),
    kinds.ActivationCeiling(0.9),
]
REAL = ((0.0, 1.0), (-1.0, 0.2))


def _spec(shape: tuple[int, ...], units: list, **changes: object) -> Spec:
    grid = Grid(shape, (2.0,) * len(shape))
    torch.manual_seed(1)
    reference = torch.rand(shape) * (torch.rand(shape) > 0.3)
    magnitude = torch.rand(grid.frequencies.shape) + 0.1
    quantiles = torch.tensor([0.0, 1.0]), torch.tensor([0.1, 0.8])
    window = 0.2 + 0.8 * torch.rand(shape)
    anatomy = Anatomy(reference, torch.rand(shape) > 0.5, magnitude, quantiles, window=window)
    first, *rest = (Item(Objective((Term(unit, real=REAL),)), seed) for seed, unit in enumerate(units))
    spec = Spec(grid, first.objective, seed=0, batch=tuple(rest), steps=5, anatomy=anatomy, snapshot_every=0)
    return replace(spec, **changes)


def _assert_each_as_alone(network: nn.Module, spec: Spec) -> list[Result]:
    events = list(visualize(network, spec))
    results = [event for event in events if isinstance(event, Result)]
    steps = [event.items for event in events if isinstance(event, Progress)]
    for result, item in zip(results, spec.items, strict=True):
        alone = list(visualize(network, replace(spec, objective=item.objective, seed=item.seed, batch=())))
        (one,) = (event for event in alone if isinstance(event, Result))
        assert torch.equal(result.image, one.image)
        assert result.extras.keys() == one.extras.keys()
        assert all(torch.equal(result.extras[name], one.extras[name]) for name in one.extras)
        assert (result.step, result.stopped, result.redirected_steps) == (
            one.step,
            one.stopped,
            one.redirected_steps,
        )
        told = [event.items[0] for event in alone if isinstance(event, Progress)]
        # A volume that is finished says no more.
        assert [items[result.item] for items in steps] == told + told[-1:] * (len(steps) - len(told))
    return results


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    shape=st.lists(st.integers(5, 11), min_size=1, max_size=3).map(tuple),
    parameterization=st.sampled_from((Voxels(), Fourier())),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    regularizers=st.lists(st.sampled_from(ITEMWISE), max_size=4, unique=True),
    start=st.sampled_from((Noise(0.5), ReferenceBrain(0.1))),
    transforms=st.sampled_from(
        (
            Transforms(),
            Transforms(0, 0, 0, flip=0.5, gain=0.2),
            Transforms(crop_last=0.7, noise=0.01, gain=0.1, gamma=0.3, bias_field=0.2),
            Transforms(0, 0, 0),
        )
    ),
    copies=st.integers(1, 3),
    weights_seed=st.integers(0, 2**31),
)
def test_volumes_that_are_computed_together_have_the_bits_they_have_alone(
    data: st.DataObject,
    shape: tuple[int, ...],
    parameterization: Parameterization,
    optimizer: str,
    regularizers: list[Regularizer],
    start: Noise,
    transforms: Transforms,
    copies: int,
    weights_seed: int,
) -> None:
    torch.manual_seed(weights_seed)
    network = data.draw(networks(len(shape)))
    units = data.draw(
        st.lists(st.sampled_from((Channel("0", 0), Channel("0", 1), Neuron("0", 1))), min_size=2)
    )
    spec = _spec(
        shape,
        units[:6],
        parameterization=parameterization,
        optimizer=OPTIMIZERS[optimizer](),
        regularizers=tuple(regularizers),
        start=start,
        transforms=replace(transforms, copies=copies),
    )
    ((_, whole),) = joint(spec, CPU)
    assert whole.items == spec.items
    _assert_each_as_alone(network, spec)


def test_every_part_that_says_it_is_itemwise_is_tested_here() -> None:
    assert {type(one) for one in ITEMWISE} == {kind for kind in REGULARIZERS.values() if kind.itemwise}


@pytest.mark.parametrize(
    "changes",
    [
        {"parameterization": LaplacianPyramid()},
        {"parameterization": Maco(), "regularizers": ()},
        {"regularizers": (kinds.ImageDistance(), kinds.TotalVariation())},
        {"regularizers": (kinds.FeatureDistance("0"),)},
    ],
)
def test_where_a_part_of_the_method_is_not_itemwise_each_volume_is_a_run_of_its_own(changes: dict) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 3, 3), nn.Tanh())
    spec = _spec((7, 9, 6), [Channel("0", n) for n in range(3)], **changes)
    assert [len(part.items) for _, part in joint(spec, CPU)] == [1, 1, 1]
    _assert_each_as_alone(network, spec)


def test_large_volumes_are_computed_in_groups_that_change_nothing() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 3, 3), nn.Tanh())
    spec = _spec((7, 9, 6), [Channel("0", n % 3) for n in range(5)], transforms=Transforms(copies=2))
    with patch("engine.batch._JOINT_VOXELS", 2 * 2 * 7 * 9 * 6):
        assert [(first, len(part.items)) for first, part in joint(spec, CPU)] == [(0, 2), (2, 2), (4, 1)]
        _assert_each_as_alone(network, spec)


def test_finished_and_dead_volumes_leave_the_others_alone() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3))
    with torch.no_grad():
        network[2].weight[2] = 0
    stopping = Stopping(look_every=2, activation=0.18)
    units = [Channel("2", 0), Channel("2", 2), Channel("2", 1)]
    results = _assert_each_as_alone(
        network, _spec((9, 11), units, stopping=stopping, steps=30, regularizers=())
    )
    assert results[1].stopped is Stop.DEAD
    assert any(result.stopped is Stop.ACTIVATION for result in results)


@pytest.mark.parametrize(
    "operation",
    [
        torch.lerp,
        torch.addcmul,
        lambda a, b, c: torch.addcmul(a, a, a, value=-1),
        lambda a, b, c: torch.add(a, b, alpha=0.3),
        lambda a, b, c: torch.sub(a, b, alpha=0.3),
        lambda a, b, c: torch.complex(a, b).abs(),
        lambda a, b, c: torch.view_as_real(torch.complex(a, b) * c).flatten(1),
        lambda a, b, c: a / b,
        lambda a, b, c: c.sqrt(),
    ],
)
@pytest.mark.parametrize("size", [3, 13, 2197, 40001])
def test_what_is_done_for_all_volumes_at_once_does_not_depend_on_where_a_number_lies(
    operation: Callable[..., Tensor], size: int
) -> None:
    torch.manual_seed(0)
    first, second, share = torch.randn(5, size), torch.randn(5, size), torch.rand(5, size)
    rows = zip(first.split(1), second.split(1), share.split(1), strict=True)
    alone = [operation(*(part.clone() for part in row)) for row in rows]
    assert torch.equal(operation(first, second, share), torch.cat(alone))


def test_means_are_of_each_item_by_itself_and_have_a_slope() -> None:
    values = torch.randn(3, 1, 40, 41, requires_grad=True)
    found = means(values)
    assert torch.equal(found[1:2], values[1:2].flatten(1).mean(1))
    (slope,) = torch.autograd.grad(found[1], values)
    torch.testing.assert_close(slope[1], torch.full((1, 40, 41), 1 / 1640))
    assert not slope[[0, 2]].any()


def test_each_shows_a_function_one_item_at_a_time_and_parts_are_copies() -> None:
    seen = []
    values = torch.arange(12.0).reshape(4, 3)
    out = each(lambda one, other: seen.append(one.shape) or one + other, values, values)
    assert torch.equal(out, 2 * values)
    assert seen == [(1, 3)] * 4
    assert [part.storage_offset() for part in parts(values, 2)] == [0, 0]
