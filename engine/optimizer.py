"""How the free numbers are driven.

By torch's own functions, not by its classes around them: those import the
compiler for their first step, which costs a fresh worker one and a half seconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.nadam import nadam
from torch.optim.sgd import sgd

from engine.fields import Checked, number

Slots = dict[str, Tensor]
"""What an optimizer keeps for one tensor of free numbers from step to step, by name."""
_BETA1, _BETA2 = 0.9, 0.999


@dataclass(frozen=True)
class Adam(Checked):
    """Adam (Kingma, Ba 2015).

    Parameters
    ----------
    learning_rate : float
        Step size.
    """

    learning_rate: float = number(0.2, above=0, maximum=10, doc="Step size.")
    name: ClassVar[str] = "adam"

    def slots(self, free: Tensor) -> Slots:
        """Return what is kept for free numbers before the first step."""
        return {"step": torch.zeros((), device=free.device), **_moments(free)}

    def step(
        self, free: Sequence[Tensor], slopes: Sequence[Tensor], slots: Sequence[Slots], factor: float
    ) -> None:
        """Move free numbers in one pass over them, at a factor of the learning rate."""
        first, second, steps = _listed(slots, "exp_avg", "exp_avg_sq", "step")
        adam(
            list(free), list(slopes), first, second, [], steps, fused=True, lr=self.learning_rate * factor,
            beta1=_BETA1, beta2=_BETA2, eps=1e-8, weight_decay=0.0, amsgrad=False, maximize=False,
        )  # fmt: skip


@dataclass(frozen=True)
class Nadam(Checked):
    """Adam with Nesterov momentum (Dozat 2016).

    Parameters
    ----------
    learning_rate : float
        Step size.
    """

    learning_rate: float = number(0.2, above=0, maximum=10, doc="Step size.")
    name: ClassVar[str] = "nadam"

    def slots(self, free: Tensor) -> Slots:
        """Return what is kept for free numbers before the first step."""
        return {"step": torch.tensor(0.0), "mu_product": torch.tensor(1.0), **_moments(free)}

    def step(
        self, free: Sequence[Tensor], slopes: Sequence[Tensor], slots: Sequence[Slots], factor: float
    ) -> None:
        """Move free numbers, at a factor of the learning rate."""
        first, second, products, steps = _listed(slots, "exp_avg", "exp_avg_sq", "mu_product", "step")
        nadam(
            list(free), list(slopes), first, second, products, steps, lr=self.learning_rate * factor,
            beta1=_BETA1, beta2=_BETA2, eps=1e-8, weight_decay=0.0, momentum_decay=4e-3,
        )  # fmt: skip


@dataclass(frozen=True)
class Sgd(Checked):
    """Gradient steps with momentum (Polyak 1964).

    Unlike Adam's, its steps are as long as the gradient: the rate must fit the
    objective.

    Parameters
    ----------
    learning_rate : float
        Step size.
    momentum : float
        Share of the last step that is taken again.
    """

    learning_rate: float = number(10.0, above=0, maximum=1e6, doc="Step size.")
    momentum: float = number(0.9, minimum=0, maximum=0.999, doc="Share of the last step taken again.")
    name: ClassVar[str] = "sgd"

    def slots(self, free: Tensor) -> Slots:
        """Return what is kept for free numbers before the first step."""
        return {"momentum_buffer": torch.zeros_like(free)} if self.momentum else {}

    def step(
        self, free: Sequence[Tensor], slopes: Sequence[Tensor], slots: Sequence[Slots], factor: float
    ) -> None:
        """Move free numbers, at a factor of the learning rate."""
        buffers = [own.get("momentum_buffer") for own in slots]
        sgd(
            list(free), list(slopes), buffers, lr=self.learning_rate * factor, momentum=self.momentum,
            weight_decay=0.0, dampening=0.0, nesterov=False, maximize=False,
        )  # fmt: skip


def _moments(free: Tensor) -> Slots:
    return {"exp_avg": torch.zeros_like(free), "exp_avg_sq": torch.zeros_like(free)}


def _listed(slots: Sequence[Slots], *names: str) -> list[list[Tensor]]:
    return [[own[name] for own in slots] for name in names]


Optimizer = Adam | Nadam | Sgd
OPTIMIZERS = {kind.name: kind for kind in (Adam, Nadam, Sgd)}


class Schedule(Enum):
    """How the step size changes over a run."""

    CONSTANT = 1
    COSINE = 2

    def factor(self, step: int, steps: int) -> float:
        """Return what the learning rate is multiplied by.

        Parameters
        ----------
        step, steps : int
            The step that is taken, from 1, and their number.

        Returns
        -------
        float
            1 at the first step; with a cosine falling to almost 0 at the last
            (Loshchilov, Hutter 2017).
        """
        if self is Schedule.CONSTANT:
            return 1.0
        return (1 + math.cos(math.pi * (step - 1) / steps)) / 2
