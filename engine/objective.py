"""What is maximized: units of a network, weighted and signed.

A unit reads its layer's activations `(n, channels, *spatial)` and returns one
number for each of the n volumes, so that volumes never mix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from engine.fields import Checked, number

# Below this cosine a dot product counts no less (Lucid's caricatures): two vectors at right angles, as at
# the start, would otherwise have no slope to climb.
_LEAST_COSINE = 0.1
_TINY = 1e-8


class UnitOutOfRange(IndexError):
    """The layer has fewer units than the index says.

    Parameters
    ----------
    unit : str
        The unit, as `layer:channel`.
    what : str
        Which index: `channel` or `position`.
    index, size : int
        The index asked for and the number there are.
    """

    def __init__(self, unit: str, what: str, index: int, size: int) -> None:
        super().__init__(f"{what} of {unit} is {index}, but must be 0 to {size - 1}")
        self.unit = unit
        self.size = size


class Unit(Protocol):
    """What is read of a network."""

    name: ClassVar[str]

    @property
    def layer(self) -> str:
        """Name of the layer that it belongs to."""

    def read(self, activation: Tensor) -> Tensor:
        """Return the unit's activation for each volume, `(n,)`."""


@dataclass(frozen=True)
class Channel(Checked):
    """A channel: the mean of its activation map (Olah et al. 2017).

    Parameters
    ----------
    layer : str
        Name of the layer.
    channel : int
        Index of the channel.
    """

    layer: str
    channel: int = number(minimum=0, doc="Index of the channel.")
    name: ClassVar[str] = "channel"

    def __str__(self) -> str:
        return f"{self.layer}:{self.channel}"

    def read(self, activation: Tensor) -> Tensor:
        """Return the mean over the channel's map for each volume, `(n,)`."""
        return self._map(activation).reshape(len(activation), -1).mean(1)

    def _map(self, activation: Tensor) -> Tensor:
        if self.channel >= activation.shape[1]:
            raise UnitOutOfRange(str(self), "channel", self.channel, activation.shape[1])
        return activation[:, self.channel]


@dataclass(frozen=True)
class Neuron(Channel):
    """One position of a channel's activation map.

    Parameters
    ----------
    layer : str
        Name of the layer.
    channel : int
        Index of the channel.
    position : tuple of int or None
        Index into the activation map; None for its middle.
    """

    position: tuple[int, ...] | None = None
    name: ClassVar[str] = "neuron"

    def read(self, activation: Tensor) -> Tensor:
        """Return the activation at the position for each volume, `(n,)`."""
        return _at(self._map(activation)[:, None], self.position, str(self))[:, 0]


@dataclass(frozen=True)
class ClassLogit(Channel):
    """The logit of a class before softmax: a channel of the classifier.

    Logits make better pictures than probabilities, which also rise when the
    other classes fall (Olah et al. 2017).
    """

    name: ClassVar[str] = "class_logit"


@dataclass(frozen=True)
class WholeLayer:
    """A whole layer: the mean of its squared activations (DeepDream, Mordvintsev et al. 2015).

    Parameters
    ----------
    layer : str
        Name of the layer.
    """

    layer: str
    name: ClassVar[str] = "whole_layer"

    def __str__(self) -> str:
        return f"{self.layer}:layer"

    def read(self, activation: Tensor) -> Tensor:
        """Return the mean square over channels and positions for each volume, `(n,)`."""
        return activation.square().flatten(1).mean(1)


class Measure(Enum):
    """How activations are compared with a direction."""

    DOT = 1
    COSINE = 2


@dataclass(frozen=True)
class Direction:
    """A direction in channel space (Olah et al. 2017, "Interaction between neurons").

    Parameters
    ----------
    layer : str
        Name of the layer.
    weights : tuple of float
        One for each channel; only their direction counts.
    measure : Measure
        The dot product with the unit vector, or the cosine.
    position : tuple of int or None
        Index into the activation map; None for the mean over all positions.
    """

    layer: str
    weights: tuple[float, ...]
    measure: Measure = Measure.DOT
    position: tuple[int, ...] | None = None
    name: ClassVar[str] = "direction"

    def __str__(self) -> str:
        return f"{self.layer}:direction"

    def read(self, activation: Tensor) -> Tensor:
        """Return the dot product or the cosine for each volume, `(n,)`."""
        if len(self.weights) != activation.shape[1]:
            raise UnitOutOfRange(str(self), "channel", len(self.weights) - 1, activation.shape[1])
        if self.position is not None:
            activation = _at(activation, self.position, str(self))
        vectors = activation.flatten(2) if activation.ndim > 2 else activation[..., None]
        # Its length may be beyond float32, or its square beyond any float: only the direction counts.
        weights = torch.tensor(self.weights, dtype=torch.float64)
        weights = weights / weights.abs().max().clamp_min(torch.finfo(weights.dtype).tiny)
        direction = functional.normalize(weights, dim=0).to(vectors)
        if self.measure is Measure.COSINE:
            vectors = functional.normalize(vectors, dim=1, eps=_TINY)
        return torch.einsum("c,ncp->np", direction, vectors).mean(1)


class Comparison(Enum):
    """What is made of a subject's activations."""

    INVERSION = 1
    CARICATURE = 2


@dataclass(frozen=True)
class SubjectActivations:
    """A layer's activations on a given image.

    Inversion wants the same activations (Mahendran, Vedaldi 2015): it reads minus
    the squared distance, relative to the target's square, so that 0 is perfect.
    A caricature wants more of them (Olah et al. 2017): it reads the dot product
    times the squared cosine, relative to the target's square.

    Parameters
    ----------
    layer : str
        Name of the layer.
    comparison : Comparison
        Inversion or caricature.
    target : Tensor or None, (1, channels, *spatial)
        The image's activations; None until the image has been read.
    """

    layer: str
    comparison: Comparison = Comparison.INVERSION
    target: Tensor | None = field(default=None, compare=False)
    name: ClassVar[str] = "subject_activations"

    def __str__(self) -> str:
        return f"{self.layer}:{self.comparison.name.lower()}"

    def read(self, activation: Tensor) -> Tensor:
        """Return how near the activations come to the target's for each volume, `(n,)`."""
        if self.target is None:
            raise ValueError(f"{self} has no target yet")
        found, target = activation.flatten(1), self.target.flatten(1).to(activation)
        power = target.square().mean(1) + _TINY
        if self.comparison is Comparison.INVERSION:
            return -(found - target).square().mean(1) / power
        cosine = functional.cosine_similarity(found, target, dim=1, eps=_TINY).clamp(min=_LEAST_COSINE)
        return (found * target).mean(1) / power * cosine.square()


def _at(activation: Tensor, position: tuple[int, ...] | None, unit: str) -> Tensor:
    """Return the channels at one position, `(n, channels)`; None is the middle."""
    sizes = activation.shape[2:]
    position = tuple(size // 2 for size in sizes) if position is None else position
    for index, size in zip(position, sizes, strict=True):
        if not 0 <= index < size:
            raise UnitOutOfRange(unit, "position", index, size)
    for index in position:
        activation = activation[:, :, index]
    return activation


UNITS: dict[str, type[Unit]] = {
    kind.name: kind for kind in (Channel, Neuron, ClassLogit, WholeLayer, Direction, SubjectActivations)
}


class Sense(Enum):
    """The direction in which a term is driven."""

    MAXIMIZE = 1
    MINIMIZE = -1


@dataclass(frozen=True)
class Term(Checked):
    """A unit with its share in the objective.

    Parameters
    ----------
    unit : Unit
        What is read.
    weight : float
        Share, above 0.
    sense : Sense
        Whether the unit is to fire or to be silenced.
    spread : float
        The difference in activation that counts as 1, such as the width of the
        unit's activations on real images. It makes units of unlike scale, and
        the weights of the regularizers, comparable.
    real : tuple of tuple of float or None
        Levels and values of the quantiles of the unit's activation on real images.
    """

    unit: Unit
    weight: float = number(1.0, above=0, doc="The share of the term in the objective.")
    sense: Sense = Sense.MAXIMIZE
    spread: float = number(1.0, above=0, doc="The difference in activation that counts as 1.")
    real: tuple[tuple[float, ...], tuple[float, ...]] | None = None


@dataclass(frozen=True)
class Objective:
    """The weighted, signed sum of units.

    Parameters
    ----------
    terms : sequence of Term
        At least one.
    behind_nonlinearities : bool
        Whether units of a non-linearity are read behind it; see `engine.network.capture.activations`.
    """

    terms: Sequence[Term]
    behind_nonlinearities: bool = False

    @property
    def layers(self) -> set[str]:
        """Names of the layers that are read."""
        return {term.unit.layer for term in self.terms}

    def read(self, activations: Mapping[str, Tensor]) -> Tensor:
        """Return the activation of every term's unit, `(terms, n)`, unweighted."""
        return torch.stack([term.unit.read(activations[term.unit.layer]) for term in self.terms])

    def combine(self, readings: Tensor) -> Tensor:
        """Return the objective for each volume, `(n,)`, from `(terms, n)` readings."""
        shares = [term.weight * term.sense.value / term.spread for term in self.terms]
        return torch.as_tensor(shares, dtype=readings.dtype, device=readings.device) @ readings

    def with_targets(self, activations: Mapping[str, Tensor]) -> "Objective":
        """Return the objective with the activations of a subject's image as targets."""
        terms = [
            replace(term, unit=replace(term.unit, target=activations[term.unit.layer]))
            if isinstance(term.unit, SubjectActivations)
            else term
            for term in self.terms
        ]
        return replace(self, terms=tuple(terms))
