"""Every regularizer in a run: it has its effect, and the balanced ones are balanced."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine import (
    L1,
    L2,
    ActivationCeiling,
    Adam,
    Anatomy,
    BrainMask,
    Channel,
    Decay,
    Diversity,
    FeatureDistance,
    GaussianBlur,
    GradientBlur,
    Grid,
    ImageDistance,
    IntensityClip,
    Item,
    Objective,
    ReferenceBrain,
    Result,
    Sgd,
    Spec,
    SpectrumMatch,
    Term,
    TotalVariation,
    Transforms,
    Voxels,
    visualize,
)
from engine.regularizer import REGULARIZERS, Look, Regularizer
from tests.engine.networks import CONVOLUTIONS

STILL = Transforms(jitter_mm=0, rotation_degrees=0, scale=0)
SIZE = 14


def _network(ndim: int) -> nn.Sequential:
    torch.manual_seed(20 + ndim)
    convolution = CONVOLUTIONS[ndim - 1]
    first = convolution(1, 6, 3, padding=1)
    # Strong enough for the nonlinearity to count: where a run ends depends on where it starts.
    nn.init.normal_(first.weight, std=4 / 3 ** (ndim / 2))
    return nn.Sequential(first, nn.Tanh(), convolution(6, 3, 3, padding=1))


def _anatomy(ndim: int) -> Anatomy:
    line = torch.linspace(-1, 1, SIZE)
    square = sum(line.view(-1, *(1,) * axis) ** 2 for axis in range(ndim))
    reference = 0.2 + 0.5 * torch.exp(-2 * square)
    magnitude = torch.fft.rfftn(reference, norm="ortho").abs() + 0.01
    quantiles = torch.tensor([0.0, 1.0]), torch.tensor([0.25, 0.65])
    return Anatomy(reference, square < 0.5, magnitude, quantiles)


def _spec(ndim: int, **changes: object) -> Spec:
    objective = Objective((Term(Channel("2", 0), spread=0.1),))
    spec = Spec(
        grid=Grid((SIZE,) * ndim, (2.0,) * ndim),
        objective=objective,
        parameterization=Voxels(),
        start=ReferenceBrain(0.1),
        transforms=STILL,
        regularizers=(),
        optimizer=Adam(0.1),
        anatomy=_anatomy(ndim),
        batch=(Item(objective, seed=1),),
        steps=40,
    )
    return replace(spec, **changes)


@cache
def _images(ndim: int, regularizer: Regularizer | None = None) -> Tensor:
    """The results of a run, `(2, 1, *shape)`."""
    spec = _spec(ndim) if regularizer is None else _spec(ndim, regularizers=(regularizer,))
    if isinstance(regularizer, ActivationCeiling):
        term = replace(spec.objective.terms[0], real=((0.0, 1.0), (-9.0, _ceiling(ndim))))
        spec = replace(spec, objective=Objective((term,)), batch=(Item(Objective((term,)), seed=1),))
    events = visualize(_network(ndim), spec)
    return torch.stack([event.image for event in events if isinstance(event, Result)])[:, None]


def _departure(images: Tensor) -> float:
    return (images - _anatomy(images.ndim - 2).reference).square().mean().item()


def _roughness(images: Tensor) -> float:
    change = images - _anatomy(images.ndim - 2).reference
    return (change.diff(dim=-1).square().mean() / change.square().mean()).item()


def _variation(images: Tensor) -> float:
    return np.sqrt(sum(np.square(part) for part in _slopes(images))).mean().item()


def _slopes(images: Tensor) -> list[np.ndarray]:
    slopes = np.gradient(images.numpy(), axis=tuple(range(2, images.ndim)))
    return slopes if isinstance(slopes, list | tuple) else [slopes]


def _out_of_quantiles(images: Tensor) -> float:
    reference = _anatomy(images.ndim - 2).reference
    inside = images.clamp(reference.clamp(max=0.25), reference.clamp(min=0.65))
    return (images - inside).abs().max().item()


def _outside(images: Tensor) -> float:
    anatomy = _anatomy(images.ndim - 2)
    return (images - anatomy.reference)[..., ~anatomy.mask].abs().max().item()


def _features(images: Tensor) -> float:
    ndim = images.ndim - 2
    first = _network(ndim)[0]
    with torch.no_grad():
        change = first(images) - first(_anatomy(ndim).reference[None, None])
    return change.square().sum(1).sqrt().mean().item()


def _decades(images: Tensor) -> float:
    magnitude = _anatomy(images.ndim - 2).magnitude
    found = torch.fft.rfftn(images[:, 0], dim=tuple(range(1, images.ndim - 1)), norm="ortho").abs()
    # The highest frequencies along the last axis, where noise shows most.
    return (found[..., -3:].log10() - magnitude[..., -3:].log10()).mean().abs().item()


def _reading(images: Tensor) -> Tensor:
    with torch.no_grad():
        return _network(images.ndim - 2)(images)[:, 0].flatten(1).mean(1)


def _ceiling(ndim: int) -> float:
    """Return half of what can be gained."""
    start = _anatomy(ndim).reference[None, None]
    return (_reading(torch.cat([_images(ndim), start]))[1:].mean()).item()


def _from_ceiling(images: Tensor) -> float:
    return (_reading(images) - _ceiling(images.ndim - 2)).abs().max().item()


def _likeness(images: Tensor) -> float:
    with torch.no_grad():
        maps = _network(images.ndim - 2)[0](images).flatten(2)
    one, other = (np.ravel(each @ each.T) for each in maps.numpy())
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


@dataclass(frozen=True)
class Case:
    regularizer: Regularizer
    measure: Callable[[Tensor], float]
    # The measure with the regularizer is at most so much of what it is without.
    share: float


CASES = {
    case.regularizer.name: case
    for case in (
        Case(L1(100.0), _departure, 0.5),
        Case(L2(100.0), _departure, 0.5),
        Case(TotalVariation(100.0), _variation, 0.5),
        Case(GaussianBlur(3.0), _roughness, 0.5),
        Case(GradientBlur(4.0), _roughness, 0.9),
        Case(Decay(0.1), _departure, 0.8),
        Case(IntensityClip(low=0.0, high=1.0), _out_of_quantiles, 1e-4),
        Case(BrainMask(), _outside, 0.0),
        Case(ImageDistance(2.0), _departure, 0.5),
        Case(FeatureDistance("0", 4.0), _features, 0.5),
        Case(SpectrumMatch(100.0), _decades, 0.5),
        Case(ActivationCeiling(1.0), _from_ceiling, 0.2),
        Case(Diversity("0", 1000.0), _likeness, 0.8),
    )
}


def test_every_regularizer_is_registered_under_its_name_and_says_what_its_fields_do() -> None:
    assert {name: kind.name for name, kind in REGULARIZERS.items()} == {name: name for name in REGULARIZERS}
    for kind in REGULARIZERS.values():
        for setting in fields(kind):
            assert setting.metadata.get("doc") or setting.metadata["bounds"].doc


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("name", REGULARIZERS)
def test_each_has_its_effect(name: str, ndim: int) -> None:
    case = CASES[name]
    tied, loose = (case.measure(_images(ndim, regularizer)) for regularizer in (case.regularizer, None))
    assert loose > 0
    assert tied <= case.share * loose


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_volume_of_a_batch_comes_out_as_alone(name: str) -> None:
    """With copies, under transforms; the two volumes' objectives differ, so they are no group."""
    regularizer = CASES[name].regularizer
    real = (0.0, 1.0), (-9.0, 0.0)
    objectives = [Objective((Term(Channel("2", channel), spread=0.1, real=real),)) for channel in range(2)]
    changes = {"regularizers": (regularizer,), "transforms": Transforms(copies=2), "steps": 6}
    spec = _spec(2, objective=objectives[0], batch=(Item(objectives[1], seed=1),), **changes)
    together = [event.image for event in visualize(_network(2), spec) if isinstance(event, Result)]
    for item, image in zip(spec.items, together, strict=True):
        single = replace(spec, objective=item.objective, seed=item.seed, batch=())
        *_, alone = visualize(_network(2), single)
        torch.testing.assert_close(image, alone.image, atol=1e-5, rtol=0)


@dataclass(frozen=True)
class Recorder(Regularizer):
    """Notes the volumes that every step is taken from; they are computed together, as on a GPU."""

    name: ClassVar[str] = "recorder"
    couples: ClassVar[bool] = True
    seen: list[Tensor] = field(default_factory=list)

    def penalty(self, look: Look) -> None:
        self.seen.append(look.image.detach().double())


class Idle(Regularizer):
    """Does nothing."""

    name: ClassVar[str] = "idle"


def _gradient(function: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """By central differences in every voxel."""
    steps = 1e-5 * torch.eye(image.numel(), dtype=torch.float64).reshape(-1, *image.shape)
    return ((function(image + steps) - function(image - steps)) / 2e-5).reshape(image.shape)


@pytest.mark.parametrize("weight", [0.5, 3.0])
@pytest.mark.parametrize("blur", [Idle(), GradientBlur(4.0)], ids=["plain", "blurred"])
@pytest.mark.parametrize("kind", [ImageDistance, FeatureDistance])
def test_a_balanced_gradient_is_at_first_weight_times_as_long_as_the_objectives(
    kind: type[Regularizer], blur: Regularizer, weight: float
) -> None:
    recorder = Recorder()
    regularizer = FeatureDistance("0", weight) if kind is FeatureDistance else ImageDistance(weight)
    spec = _spec(2, regularizers=(recorder, regularizer, blur), optimizer=Sgd(1e-3), steps=2)
    first, second, *_ = visualize(_network(2), spec)
    network, home = _network(2).double(), spec.anatomy.reference.double()[None, None]

    def objective(images: Tensor) -> Tensor:
        return network(images)[:, 0].flatten(1).mean(1) / 0.1

    def penalty(images: Tensor) -> Tensor:
        if kind is ImageDistance:
            return (images - home).square().flatten(1).mean(1).sqrt()
        return (network[0](images) - network[0](home)).square().sum(1).sqrt().flatten(1).mean(1)

    with torch.no_grad():
        for item in range(2):
            start, later = recorder.seen[0][item], recorder.seen[1][item]
            # The loop reports the penalty times the factor that balances it.
            factor = first.items[item].penalties[regularizer.name] / penalty(start[None]).item()
            pull, push = (_gradient(function, start) for function in (penalty, objective))
            followed = blur.gradient(push[None], spec.grid).norm().item()
            assert factor * pull.norm().item() == pytest.approx(weight * followed, rel=1e-3)
            # It is found once: later the penalty is free to grow.
            again = second.items[item].penalties[regularizer.name] / penalty(later[None]).item()
            assert again == pytest.approx(factor, rel=1e-4)
