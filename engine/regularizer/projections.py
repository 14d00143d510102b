"""What acts on the image or on its gradient after each step, rather than costing something."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from engine.anatomy import Anatomy
from engine.fields import number
from engine.grid import Grid
from engine.parameterization.base import FreeImage, Latent
from engine.regularizer.base import Regularizer


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
    itemwise: ClassVar[bool] = True
    free_image_only: ClassVar[bool] = True

    def after_step(self, latent: Latent, anatomy: Anatomy, grid: Grid) -> None:
        """Filter the latent image in place."""
        assert isinstance(latent, FreeImage)
        image = latent.unbounded().detach()
        transfer = grid.gaussian_transfer(self.fwhm_mm).to(image)
        latent.assign_(grid.from_spectrum(grid.to_spectrum(image) * transfer))


@dataclass(frozen=True)
class GradientBlur(Regularizer):
    """The objective's Sobolev gradient in place of the usual one (Baust et al. 2018, arXiv 1805.00071).

    It is the steepest ascent where the length of a change is the root of |u|^2 +
    (L |grad u|)^2, so that rough changes count as long. The gradient g becomes the
    u with u - L^2 laplacian(u) = g: waves much longer than L pass, short ones
    fade with the square of their frequency.

    Parameters
    ----------
    length_mm : float
        The length L, mm.
    """

    length_mm: float = number(
        4.0, above=0, maximum=100, unit="mm", doc="Waves shorter than about 6 times this length fade."
    )
    name: ClassVar[str] = "gradient_blur"
    itemwise: ClassVar[bool] = True

    def gradient(self, gradient: Tensor, grid: Grid) -> Tensor:
        """Return the gradient `(n, 1, *shape)` with its spectrum over 1 + (2 pi f L)^2.

        The edges are periodic behind the grid's padding with zeros, if it pads.
        """
        length = 2 * math.pi * self.length_mm
        transfer = grid.once(("sobolev", self.length_mm), lambda: 1 / (1 + (length * grid.frequencies) ** 2))
        return grid.from_spectrum(grid.to_spectrum(gradient) * transfer.to(gradient))


@dataclass(frozen=True)
class Decay(Regularizer):
    """A share of the way back to the start after each step (Yosinski et al. 2015).

    What the objective does not renew fades away.

    Parameters
    ----------
    rate : float
        The share of the latent image that each step takes away.
    """

    rate: float = number(0.01, minimum=0, maximum=1, doc="Share of the change that each step takes back.")
    name: ClassVar[str] = "decay"
    itemwise: ClassVar[bool] = True
    free_image_only: ClassVar[bool] = True

    def after_step(self, latent: Latent, anatomy: Anatomy, grid: Grid) -> None:
        """Scale the latent image in place; zeros are the start."""
        assert isinstance(latent, FreeImage)
        latent.assign_(latent.unbounded().detach() * (1 - self.rate))
