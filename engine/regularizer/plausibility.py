"""Bounds that real brains set: their intensities, their outline, the activations they reach."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from engine.anatomy import Anatomy, MissingAnatomy
from engine.fields import InvalidField, number
from engine.grid import Grid
from engine.objective import Sense, Term
from engine.parameterization.base import FreeImage, Latent
from engine.regularizer.base import Regularizer

# Distances are sums of squares of voxel sizes: what is meant to be equal may differ in the last digits.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class IntensityClip(Regularizer):
    """Intensities as real brains have them, after each step.

    A voxel whose start lies outside may stay there, as the black around the
    brain does, but goes no further out.

    Parameters
    ----------
    low, high : float
        Quantiles of real brains' intensities that bound the volume.

    Raises
    ------
    InvalidField
        `low` is not below `high`.
    """

    low: float = number(0.01, minimum=0, maximum=1, doc="Quantile of real intensities that is the least.")
    high: float = number(0.99, minimum=0, maximum=1, doc="Quantile of real intensities that is the most.")
    name: ClassVar[str] = "intensity_clip"
    itemwise: ClassVar[bool] = True
    free_image_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low >= self.high:
            raise InvalidField("low", self.low, f"below high, which is {self.high}")

    def after_step(self, latent: Latent, anatomy: Anatomy, grid: Grid) -> None:
        """Clip the latent image in place.

        Raises
        ------
        MissingAnatomy
            The intensities of real brains were not given.
        """
        assert isinstance(latent, FreeImage)
        if anatomy.intensities is None:
            raise MissingAnatomy("intensities", "clipping to the intensities of real brains")
        least, most = (_quantile(level, *anatomy.intensities) for level in (self.low, self.high))
        scene = latent.scene
        # The squashing is monotone: bounds of the volume are bounds of the latent image.
        lower = scene.latent(scene.begin.clamp(max=least))
        upper = scene.latent(scene.begin.clamp(min=most))
        image = latent.unbounded().detach()
        latent.assign_(torch.minimum(torch.maximum(image, lower.to(image)), upper.to(image)))


@dataclass(frozen=True)
class BrainMask(Regularizer):
    """Changes inside the brain only: outside, the volume is the reference or the subject.

    Parameters
    ----------
    margin_mm : float
        How far outside the brain the volume may still change, mm.
    """

    margin_mm: float = number(
        0.0, minimum=0, maximum=50, unit="mm", doc="How far outside the brain it may still change."
    )
    name: ClassVar[str] = "brain_mask"
    itemwise: ClassVar[bool] = True

    def window(self, anatomy: Anatomy, grid: Grid) -> Tensor:
        """Return 1 up to the margin around the brain and 0 beyond, `(*shape)`.

        Raises
        ------
        MissingAnatomy
            The brain's mask was not given.
        """
        return grown(anatomy.need("mask", "a brain mask"), self.margin_mm, grid.voxel_size).float()


def grown(mask: Tensor, margin: float, voxel_size: Sequence[float]) -> Tensor:
    """Return the voxels whose middle is at most `margin` from that of one in the mask.

    The squared distance is made axis after axis, which is exact (Felzenszwalb,
    Huttenlocher 2012), looking no further than the margin.

    Parameters
    ----------
    mask : Tensor, (*shape), bool
        Of any rank.
    margin : float
        Distance, mm.
    voxel_size : sequence of float
        Edge lengths of a voxel, mm.

    Returns
    -------
    Tensor, (*shape), bool
        The mask and what lies around it.
    """
    square = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
    square[~mask.bool()] = torch.inf
    limit = margin + _ROUNDING
    for axis, step in enumerate(voxel_size):
        size = mask.shape[axis]
        line = square.clone()
        for offset in range(1, min(int(limit / step), size - 1) + 1):
            added, rest = (offset * step) ** 2, size - offset
            for here, there in ((0, offset), (offset, 0)):
                part = line.narrow(axis, here, rest)
                torch.minimum(part, square.narrow(axis, there, rest) + added, out=part)
        square = line
    return square <= limit**2


class NoRealActivations(ValueError):
    """A ceiling is set on a unit whose activations on real images are not known.

    Parameters
    ----------
    unit : str
        The unit, as `layer:channel`.
    """

    def __init__(self, unit: str) -> None:
        super().__init__(
            f"an activation ceiling on {unit} needs its activations on real images: "
            "give Term.real, or leave the ceiling out"
        )
        self.unit = unit


@dataclass(frozen=True)
class ActivationCeiling(Regularizer):
    """No more activation than real images reach, so that the picture stays plausible.

    Beyond the ceiling an activation counts less again, as if reflected by it:
    the gradient turns back. A unit that is minimized has a floor instead.

    Parameters
    ----------
    percentile : float
        The share of real images whose activation is not beyond it.
    """

    percentile: float = number(
        0.99, minimum=0.5, maximum=1, doc="Share of real images that activate the unit no more."
    )
    name: ClassVar[str] = "activation_ceiling"
    itemwise: ClassVar[bool] = True

    def limit(self, readings: Tensor, term: Term) -> Tensor:
        """Return activations `(n,)`, those beyond the ceiling mirrored on it.

        Raises
        ------
        NoRealActivations
            The term's activations on real images are not known.
        """
        if term.real is None:
            raise NoRealActivations(str(term.unit))
        if term.sense is Sense.MAXIMIZE:
            ceiling = _quantile(self.percentile, *term.real)
            return torch.where(readings > ceiling, 2 * ceiling - readings, readings)
        floor = _quantile(1 - self.percentile, *term.real)
        return torch.where(readings < floor, 2 * floor - readings, readings)


def _quantile(level: float, levels: Tensor | Sequence[float], values: Tensor | Sequence[float]) -> float:
    """Interpolate a quantile linearly between those that are known; beyond the last it is the last."""
    known, found = (torch.as_tensor(line, dtype=torch.float64).cpu().numpy() for line in (levels, values))
    return float(np.interp(level, known, found))
