"""What the volume pays for.

A regularizer may add a penalty to the loss, or act on the latent after each
step, or both. A new one is one class here, entered in `REGULARIZERS`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from engine.fields import Checked, number
from engine.grid import Grid
from engine.parameterization import Latent


@dataclass(frozen=True)
class Regularizer(Checked):
    """Does nothing: the common base."""

    name: ClassVar[str]

    def penalty(self, image: Tensor, base: Tensor, grid: Grid) -> Tensor | None:
        """Return the weighted penalty of each item, or None.

        Parameters
        ----------
        image : Tensor, (batch, 1, *shape)
            The untransformed image, model units.
        base : Tensor, broadcastable to `image`
            What it started from.
        grid : Grid
            Its grid.

        Returns
        -------
        Tensor, (batch,), or None
            What is subtracted from the objective.
        """
        return None

    def after_step(self, latent: Latent, grid: Grid) -> None:
        """Act on the latent after an optimizer step."""


@dataclass(frozen=True)
class L1(Regularizer):
    """Mean absolute departure from the start.

    Parameters
    ----------
    weight : float
        Its weight.
    """

    weight: float = number(10.0, minimum=0, doc="Weight of the penalty.")
    name: ClassVar[str] = "l1"

    def penalty(self, image: Tensor, base: Tensor, grid: Grid) -> Tensor:
        """Return weight * mean |image - base|, `(batch,)`."""
        return self.weight * (image - base).abs().flatten(1).mean(1)


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

    def penalty(self, image: Tensor, base: Tensor, grid: Grid) -> Tensor:
        """Return weight * mean (image - base)^2, `(batch,)`."""
        return self.weight * (image - base).square().flatten(1).mean(1)


@dataclass(frozen=True)
class TotalVariation(Regularizer):
    """Mean length of the intensity gradient (Rudin, Osher, Fatemi 1992).

    Parameters
    ----------
    weight : float
        Its weight.
    """

    weight: float = number(15.0, minimum=0, doc="Weight of the penalty.")
    name: ClassVar[str] = "total_variation"

    def penalty(self, image: Tensor, base: Tensor, grid: Grid) -> Tensor:
        """Return weight * mean |gradient|, model units per mm, `(batch,)`."""
        square = torch.zeros((), device=image.device)
        for axis, count, size in zip(grid.axes, grid.shape, grid.voxel_size, strict=True):
            # The border is repeated: no gradient leads out of the volume.
            step = image.diff(dim=axis, append=image.narrow(axis, count - 1, 1))
            square = square + (step / size) ** 2
        # The root of zero has no slope: a length far below a grey level keeps the gradient finite.
        return self.weight * (square + 1e-8).sqrt().flatten(1).mean(1)


@dataclass(frozen=True)
class GaussianBlur(Regularizer):
    """A Gaussian filter on the latent image after each step (Yosinski et al. 2015).

    Parameters
    ----------
    fwhm_mm : float
        Full width at half maximum, mm.
    """

    fwhm_mm: float = number(2.0, above=0, maximum=100, unit="mm", doc="Full width at half maximum.")
    name: ClassVar[str] = "gaussian_blur"

    def after_step(self, latent: Latent, grid: Grid) -> None:
        """Filter the latent in place."""
        latent.filter_(grid.gaussian_transfer(self.fwhm_mm))


REGULARIZERS: dict[str, type[Regularizer]] = {
    kind.name: kind for kind in (L1, L2, TotalVariation, GaussianBlur)
}
