"""How the free numbers are driven."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor

from engine.fields import Checked, number


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

    def over(self, free: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Return the optimizer of free numbers, which passes over them once a step."""
        return torch.optim.Adam(free, lr=self.learning_rate, fused=True)


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

    def over(self, free: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Return the optimizer of free numbers."""
        return torch.optim.NAdam(free, lr=self.learning_rate)


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

    def over(self, free: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Return the optimizer of free numbers."""
        return torch.optim.SGD(free, lr=self.learning_rate, momentum=self.momentum)


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
