"""Phases under the magnitude of real brains."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from engine.fields import InvalidField
from engine.grid import Grid
from engine.parameterization.base import Latent, Parameterization, Stage
from engine.start import Noise


class _ReturningClamp(torch.autograd.Function):
    """A clamp whose gradient survives out of range wherever going down it leads back.

    Were it lost, as with a plain clamp, what lies out of range could never come
    back, for a phase moves all voxels at once.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(image)
        ctx.range = low, high
        return image.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        (image,), (low, high), (slope,) = ctx.saved_tensors, ctx.range, slopes
        lost = (image > high) & (slope < 0) | (image < low) & (slope > 0)
        return slope.masked_fill(lost, 0), None, None


class MacoLatent(Latent):
    """Phases, which become a volume under a fixed magnitude.

    Parameters
    ----------
    stage : Stage
        What it is made on.

    Attributes
    ----------
    free : list of Tensor, one of (batch, 1, *half spectrum)
        The phases, radians.
    """

    def __init__(self, stage: Stage) -> None:
        self.grid, self.scene = stage.grid, stage.scene
        prior = stage.anatomy.need("magnitude", "the maco parameterization").to(stage.device).float()
        shape = tuple(self.grid.frequencies.shape)
        if prior.shape != shape:
            raise ValueError(
                f"Spec.anatomy.magnitude has shape {tuple(prior.shape)}, but must have that of the grid's "
                f"half spectrum, {shape}"
            )
        phase, constant = _beginning(stage)
        self.magnitude = prior.clone(memory_format=torch.contiguous_format)
        self.magnitude.view(-1)[0] = constant.abs()
        phase.flatten(2)[..., 0] = torch.where(constant < 0, math.pi, 0.0)
        self.mirrored, self.real = (part.to(stage.device) for part in _redundant(self.grid))
        # A real coefficient has no phase but a sign: it keeps its own.
        self.sign = torch.where(phase.cos() < 0, math.pi, 0.0)
        noise = 0 if isinstance(stage.start, Noise) else stage.start.deviation * stage.noise(1, *shape)
        self.free = [(phase + noise).requires_grad_()]

    def unclamped(self) -> Tensor:
        """Return the whole period of the image, `(batch, 1, *fourier_shape)`, before the clamp."""
        phase = self.free[0]
        phase = torch.where(self.mirrored, -_at_minus(phase, self.grid), phase)
        phase = torch.where(self.real, self.sign.to(phase), phase)
        spectrum = torch.polar(self.magnitude.to(phase).expand_as(phase), phase)
        return torch.fft.irfftn(spectrum, s=self.grid.fourier_shape, dim=self.grid.axes, norm="ortho")

    def volume(self) -> Tensor:
        """Return the volumes, `(batch, 1, *shape)`, model units."""
        image = self.unclamped()
        for axis, size in zip(self.grid.axes, self.grid.shape, strict=True):
            image = image.narrow(axis, 0, size)
        clamped: Tensor = _ReturningClamp.apply(image, *self.scene.range)
        return self.scene.blend(clamped)


@dataclass(frozen=True)
class Maco(Parameterization):
    """Phases under the fixed magnitude of real brains (MACO, Fel et al. 2023).

    The magnitude of every Fourier coefficient is the mean over real brains, so
    that no frequency can be exaggerated; only the phases move. The constant term
    is the start's own. Phases hold where things are: drawn at random they make a
    texture that is alike everywhere, so begin with a brain to keep anatomy.

    Phases are radians, which want longer steps than images do: with Adam, rates
    of 0.05 to 0.3 climb faster than the default of 0.02 and settle, where NAdam
    at 1.0 (Xplique's) wanders.
    """

    name: ClassVar[str] = "maco"
    refused_starts: ClassVar[tuple[str, ...]] = ("zeros",)

    def latent(self, stage: Stage) -> MacoLatent:
        """Return the phases of the start plus Gaussian noise of its deviation, radians.

        A start on noise has uniform random phases, each item its own.

        Raises
        ------
        MissingAnatomy
            The magnitude of real brains was not given.
        InvalidField
            The start is a constant other than noise: it has no phases.
        ValueError
            The magnitude has not the shape of the grid's half spectrum.
        """
        return MacoLatent(stage)


def _beginning(stage: Stage) -> tuple[Tensor, Tensor]:
    """Return the first phases, `(batch, 1, *half spectrum)`, and the constant coefficient."""
    grid, begin = stage.grid, stage.scene.begin
    shape = grid.frequencies.shape
    if begin.ndim:
        # Padding that goes on as the image ends adds no edge to it.
        pads = [(0, more - size) for size, more in zip(grid.shape, grid.fourier_shape, strict=True)]
        flat = [pad for pair in reversed(pads) for pad in pair]
        spectrum = grid.to_spectrum(functional.pad(begin.float(), flat, mode="replicate"))
        phase = spectrum.angle().repeat(len(stage.generators), *(1,) * (1 + grid.ndim))
        return phase, spectrum.flatten()[0].real
    if not isinstance(stage.start, Noise):
        rule = "one with phases: reference_brain, subject or noise"
        raise InvalidField("start", stage.start.name, rule)
    draws = [torch.rand((1, *shape), generator=generator) for generator in stage.generators]
    phase = (2 * math.pi * torch.stack(draws) - math.pi).to(stage.device)
    return phase, begin.float() * math.sqrt(math.prod(grid.fourier_shape))


def _at_minus(half: Tensor, grid: Grid) -> Tensor:
    """Return, in each column of the last axis, the values at the other axes' opposite frequencies."""
    axes = grid.axes[:-1]
    return half.flip(axes).roll((1,) * len(axes), axes) if axes else half


def _redundant(grid: Grid) -> tuple[Tensor, Tensor]:
    """Tell which coefficients of the half spectrum are not free, `(*half spectrum)`, bool each.

    The inverse transform of the first column, and of the last one of an even
    size, makes of each pair of opposite frequencies their mean: two phases of
    their own would shrink the magnitude. One of the two mirrors the other, and
    those that are their own opposite are real.

    Returns
    -------
    mirrored, real : Tensor
        The second of each pair; its own opposites.
    """
    shape = grid.frequencies.shape
    index = torch.arange(math.prod(shape)).reshape(shape)
    opposite = _at_minus(index, grid)
    column = torch.arange(shape[-1])
    alone = (column == 0) | (2 * column == grid.fourier_shape[-1])
    return alone & (index > opposite), alone & (index == opposite)
