"""What is maximized: units of a network, weighted and signed.

A unit reads its layer's activations `(batch, channels, *spatial)` and returns
one number for each item of the batch, so that items never mix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import torch
from torch import Tensor

from engine.fields import Checked, number


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
    """A unit of a network."""

    @property
    def layer(self) -> str:
        """Name of the layer that it belongs to."""

    def read(self, activation: Tensor) -> Tensor:
        """Return the unit's activation for each item, `(batch,)`."""


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

    def __str__(self) -> str:
        return f"{self.layer}:{self.channel}"

    def read(self, activation: Tensor) -> Tensor:
        """Return the mean over the channel's map for each item, `(batch,)`."""
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

    def read(self, activation: Tensor) -> Tensor:
        """Return the activation at the position for each item, `(batch,)`."""
        values = self._map(activation)
        sizes = values.shape[1:]
        position = tuple(size // 2 for size in sizes) if self.position is None else self.position
        for index, size in zip(position, sizes, strict=True):
            if not 0 <= index < size:
                raise UnitOutOfRange(str(self), "position", index, size)
        for index in position:
            values = values[:, index]
        return values


@dataclass(frozen=True)
class ClassLogit(Channel):
    """The logit of a class before softmax: a channel of the classifier.

    Logits make better pictures than probabilities, which also rise when the
    other classes fall (Olah et al. 2017).
    """


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
    """

    unit: Unit
    weight: float = number(1.0, above=0, doc="The share of the term in the objective.")
    sense: Sense = Sense.MAXIMIZE
    spread: float = number(1.0, above=0, doc="The difference in activation that counts as 1.")


@dataclass(frozen=True)
class Objective:
    """The weighted, signed sum of units.

    Parameters
    ----------
    terms : sequence of Term
        At least one.
    """

    terms: Sequence[Term]

    @property
    def layers(self) -> set[str]:
        """Names of the layers that are read."""
        return {term.unit.layer for term in self.terms}

    def read(self, activations: Mapping[str, Tensor]) -> Tensor:
        """Return the activation of every term's unit, `(terms, batch)`, unweighted."""
        return torch.stack([term.unit.read(activations[term.unit.layer]) for term in self.terms])

    def combine(self, readings: Tensor) -> Tensor:
        """Return the objective for each item, `(batch,)`, from `(terms, batch)` readings."""
        shares = [term.weight * term.sense.value / term.spread for term in self.terms]
        return torch.as_tensor(shares, dtype=readings.dtype, device=readings.device) @ readings
