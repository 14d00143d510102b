"""The loop: it climbs, repeats bit for bit, stops when asked and leaves no trace."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import engine
from engine import (
    L2,
    Adam,
    Anatomy,
    Channel,
    ClassLogit,
    Diverged,
    Fourier,
    Grid,
    Neuron,
    Noise,
    Objective,
    Progress,
    ReferenceBrain,
    Result,
    Snapshot,
    Spec,
    Term,
    TotalVariation,
    Transforms,
    Voxels,
    visualize,
)
from engine.evaluation import readings
from engine.start import Scene
from tests.engine.networks import networks

STILL = Transforms(jitter_mm=0, rotation_degrees=0, scale=0)


def _spec(ndim: int, **changes: object) -> Spec:
    spec = Spec(
        grid=Grid((12,) * ndim, (2.0,) * ndim),
        objective=Objective([Term(Channel("0", 1))]),
        start=Noise(0.1),
        regularizers=(TotalVariation(0.01), L2(0.01)),
        steps=4,
        snapshot_every=2,
    )
    return replace(spec, **changes)


def _objective(network: nn.Module, spec: Spec, image: torch.Tensor) -> float:
    return float(spec.objective.combine(readings(network, spec.objective, image[None, None]))[0])


def _state(network: nn.Module) -> tuple:
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modules = list(network.modules())
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in modules]
    flags = [m.training for m in modules], [p.requires_grad for p in network.parameters()]
    gradients = [p.grad for p in network.parameters()]
    return tensors, hooks, flags, gradients


def _same(before: tuple, after: tuple) -> bool:
    equal = all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    return equal and before[1:] == after[1:]


@settings(max_examples=12, deadline=None)
@given(data=st.data(), ndim=st.integers(1, 3), voxels=st.booleans(), seed=st.integers(0, 2**63 - 1))
def test_same_request_same_bits_and_the_network_as_found(
    data: st.DataObject, ndim: int, voxels: bool, seed: int
) -> None:
    network = data.draw(networks(ndim))
    network.train(data.draw(st.booleans()))
    names = [name for name, module in network.named_modules() if not list(module.children())]
    objective = Objective([Term(Channel(data.draw(st.sampled_from(names)), 1))])
    spec = _spec(ndim, objective=objective, seed=seed, parameterization=Voxels() if voxels else Fourier())
    before = _state(network)
    runs = [list(visualize(network, spec)) for _ in range(2)]
    assert _same(before, _state(network))
    assert torch.equal(runs[0][-1].image, runs[1][-1].image)
    assert runs[0][-1].image.shape == spec.grid.shape


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("unit", [Channel("2", 0), Neuron("2", 1), ClassLogit("7", 2)])
@pytest.mark.parametrize("voxels", [True, False])
def test_the_unit_fires_more_than_on_any_of_many_random_images(
    ndim: int, unit: Channel, voxels: bool
) -> None:
    torch.manual_seed(ndim)
    conv, pool = (
        (nn.Conv1d, nn.Conv2d, nn.Conv3d)[ndim - 1],
        (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[ndim - 1],
    )
    network = nn.Sequential(
        conv(1, 4, 3),
        nn.ELU(),
        conv(4, 4, 3),
        nn.ELU(),
        pool(2),
        nn.Flatten(),
        nn.LazyLinear(8),
        nn.Linear(8, 3),
    )
    network(torch.zeros(1, 1, *(12,) * ndim))
    spec = _spec(
        ndim,
        objective=Objective([Term(unit)]),
        parameterization=Voxels() if voxels else Fourier(decay=ndim / 2),
        transforms=STILL,
        regularizers=(),
        optimizer=Adam(0.05),
        steps=150,
    )
    reached = _objective(network, spec, list(visualize(network, spec))[-1].image)
    random = torch.rand(64, *spec.grid.shape, generator=torch.Generator().manual_seed(9))
    assert reached > max(_objective(network, spec, image) for image in random)


def test_no_weight_gradient_is_made() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    list(visualize(network, _spec(2)))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_events_come_in_order() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3))
    events = list(visualize(network, _spec(2, steps=5)))
    kinds = [type(event) for event in events]
    assert kinds == [Progress, Progress, Snapshot, Progress, Progress, Snapshot, Progress, Result]
    assert [event.step for event in events] == [1, 2, 2, 3, 4, 4, 5, 5]
    assert set(events[0].penalties) == {"total_variation", "l2"}


def test_snapshots_keep_their_values() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3))
    events = list(visualize(network, _spec(2, steps=6, parameterization=Voxels())))
    images = [event.image for event in events if isinstance(event, Snapshot)]
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(images, 2))


def test_values_stay_within_the_intensity_range() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3))
    spec = _spec(2, intensity_range=(0.2, 1.1), optimizer=Adam(5.0), steps=20, regularizers=())
    image = list(visualize(network, spec))[-1].image
    assert 0.2 <= image.min() < 0.3
    assert 1.0 < image.max() <= 1.1


def test_a_start_on_the_brain_shows_the_brain() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3))
    brain = torch.rand(12, 12, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    spec = _spec(
        2, start=ReferenceBrain(0.0), anatomy=Anatomy(reference=brain), optimizer=Adam(1e-6), steps=1
    )
    torch.testing.assert_close(list(visualize(network, spec))[-1].image, brain, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("start", [Noise(0.1), ReferenceBrain(0.1)])
def test_a_window_leaves_the_brain_where_it_is_zero(start: Noise) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3))
    brain = torch.rand(12, 12, generator=torch.Generator().manual_seed(0))
    window = torch.ones(12, 12)
    window[:, :4] = 0
    spec = _spec(2, start=start, anatomy=Anatomy(reference=brain, window=window), optimizer=Adam(1.0))
    image = list(visualize(network, spec))[-1].image
    assert torch.equal(image[:, :4], brain[:, :4])
    assert ((image - brain)[:, 4:].abs() > 0.05).any()


def test_a_latent_of_zeros_is_exactly_the_brain_also_where_it_is_black() -> None:
    brain = torch.rand(9, 9, generator=torch.Generator().manual_seed(0))
    brain[:3] = 0
    brain[3] = 1
    scene = Scene(ReferenceBrain(), (0.0, 1.0), Anatomy(reference=brain), [], torch.device("cpu"))
    torch.testing.assert_close(scene.image(torch.zeros(1, 1, 9, 9))[0, 0], brain, atol=1e-6, rtol=0)
    assert torch.equal(scene.home[0, 0], brain)


def test_a_start_on_the_brain_needs_one() -> None:
    with pytest.raises(ValueError, match=r"anatomy\.reference"):
        next(visualize(nn.Sequential(nn.Conv2d(1, 2, 3)), _spec(2, start=ReferenceBrain())))


def test_should_stop_ends_the_run_within_one_step() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3))
    before = _state(network)
    seen: list[engine.Event] = []
    for event in visualize(network, _spec(2, steps=100), lambda: len(seen) >= 3):
        seen.append(event)
    assert not any(isinstance(event, Result) for event in seen)
    assert max(event.step for event in seen) == 2
    assert _same(before, _state(network))


def test_abandoning_the_run_leaves_the_network_as_found() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    before = _state(network)
    run = visualize(network, _spec(2))
    next(run)
    run.close()
    assert _same(before, _state(network))


def test_a_penalty_that_is_not_finite_is_no_result() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3))
    spec = _spec(2, regularizers=(L2(1e300),), start=Noise(1.0), steps=1)
    with pytest.raises(Diverged, match="step 1"):
        list(visualize(network, spec))


def test_a_volume_that_is_not_finite_is_no_result() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3))
    with torch.no_grad():
        network[0].weight.fill_(float("inf"))  # finite forward on zeros, NaN gradients
        network[0].bias.zero_()
    spec = _spec(2, intensity_range=(-1.0, 1.0), start=Noise(0.0), regularizers=(), transforms=STILL, steps=1)
    with pytest.raises(Diverged, match="step 1"):
        list(visualize(network, spec))


def test_between_events_the_network_is_as_found() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    before = _state(network)
    runs = [visualize(network, _spec(2, seed=seed)) for seed in range(2)]
    for _ in range(2):
        for run in runs:
            next(run)
            assert _same(before, _state(network))


def test_divergence_is_said_with_its_step() -> None:
    class Blowup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight / 0.0

    network = nn.Sequential(Blowup())
    with pytest.raises(Diverged, match="step 1"):
        list(visualize(network, _spec(2, objective=Objective([Term(Channel("0", 0))]))))


def test_the_penalties_enter_the_loss() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3))
    free = list(visualize(network, _spec(2, steps=60, regularizers=())))[-1].image
    tied = list(visualize(network, _spec(2, steps=60, regularizers=(L2(1000.0),))))[-1].image
    assert (tied - 0.5).square().mean() < (free - 0.5).square().mean() / 5


def test_one_step_is_adams_step_on_the_squashed_image() -> None:
    """The first step of Adam moves every free number by the learning rate against its gradient's sign."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3))
    spec = _spec(
        2,
        parameterization=Voxels(),
        transforms=STILL,
        regularizers=(),
        start=Noise(0.5),
        optimizer=Adam(0.05),
        steps=1,
    )
    latent = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(0)) * 0.5
    leaf = latent.clone().requires_grad_()
    copy.deepcopy(network)(torch.sigmoid(leaf))[:, 1].mean().backward()
    moved = torch.sigmoid(latent + 0.05 * leaf.grad.sign())[0, 0]
    torch.testing.assert_close(list(visualize(network, spec))[-1].image, moved, atol=1e-4, rtol=1e-4)
