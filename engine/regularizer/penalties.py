"""Penalties on the image: how far it departs from its start, how rough it is."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from engine.fields import number
from engine.itemwise import means
from engine.regularizer.base import Look, Regularizer
from engine.roughness import gradient_length


@dataclass(frozen=True)
class L1(Regularizer):
    """Mean absolute departure from the start.

    Parameters
    ----------
    weight : float
        Its weight.
    """

    weight: float = number(1.0, minimum=0, doc="Weight of the penalty.")
    name: ClassVar[str] = "l1"
    itemwise: ClassVar[bool] = True

    def penalty(self, look: Look) -> Tensor:
        """Return weight * mean |image - base|, `(batch,)`."""
        distance: Tensor = _Absolute.apply(look.image, look.home)
        return self.weight * distance


class _Absolute(torch.autograd.Function):
    """Mean absolute differences; the gradient is their signs."""

    @staticmethod
    def forward(context: Any, image: Tensor, home: Tensor) -> Tensor:
        difference = image - home
        found = means(difference.abs())
        context.save_for_backward(difference.sgn_())
        return found

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        ((signs,), (weights,)) = context.saved_tensors, slopes
        weights = weights / signs[0].numel()
        return signs * weights.reshape(-1, *(1,) * (signs.ndim - 1)), None


@dataclass(frozen=True)
class L2(Regularizer):
    """Mean squared departure from the start.

    Parameters
    ----------
    weight : float
        Its weight.
    """

    weight: float = number(10.0, minimum=0, doc="Weight of the penalty.")
    name: ClassVar[str] = "l2"
    itemwise: ClassVar[bool] = True

    def penalty(self, look: Look) -> Tensor:
        """Return weight * mean (image - base)^2, `(batch,)`."""
        return self.weight * means((look.image - look.home).square())


@dataclass(frozen=True)
class TotalVariation(Regularizer):
    """Mean length of the intensity gradient (Rudin, Osher, Fatemi 1992).

    Parameters
    ----------
    weight : float
        Its weight.
    """

    weight: float = number(3.0, minimum=0, doc="Weight of the penalty.")
    name: ClassVar[str] = "total_variation"
    itemwise: ClassVar[bool] = True

    def penalty(self, look: Look) -> Tensor:
        """Return weight * mean |gradient|, model units per mm, `(batch,)`."""
        return self.weight * gradient_length(look.image, look.grid)
