"""How far a volume's spectrum is from that of real brains."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from engine.fields import number
from engine.grid import Grid
from engine.itemwise import each, means
from engine.regularizer.base import Look, Regularizer

# No coefficient of a brain is as small: its logarithm stands for that of zero, which has none.
_SILENT = 1e-8


@dataclass(frozen=True)
class SpectrumMatch(Regularizer):
    """Squared distance to the spectrum of real brains, in decades.

    Natural images share the fall of their spectrum; fooling images have too
    much at high frequencies (Fel et al. 2023, MACO, who fix the magnitudes
    instead). Only the mean magnitude in each shell of radial frequency counts,
    so that the picture is free in all else.

    Parameters
    ----------
    weight : float
        Its weight.
    """

    weight: float = number(0.4, minimum=0, doc="Weight of the penalty.")
    name: ClassVar[str] = "spectrum_match"
    itemwise: ClassVar[bool] = True

    def penalty(self, look: Look) -> Tensor:
        """Return weight * mean over shells of (log10 magnitude - log10 of real brains')^2, `(batch,)`.

        The constant part is left out.

        Raises
        ------
        MissingAnatomy
            The magnitude of real brains was not given.
        ValueError
            It has not the shape of the grid's half spectrum.
        """
        prior = look.anatomy.need("magnitude", "a match with real spectra").to(look.image)
        if prior.shape != look.grid.frequencies.shape:
            raise ValueError(
                f"Spec.anatomy.magnitude has shape {tuple(prior.shape)}, but must have that of the grid's "
                f"half spectrum, {tuple(look.grid.frequencies.shape)}"
            )
        shells = look.grid.once(("shells", prior.device), lambda: _Shells(look.grid, prior.device))
        real = look.anatomy.once(
            ("levels", prior.dtype, prior.device),
            lambda: shells.means(prior[None]).clamp_min(_SILENT).log10(),
        )
        distance: Tensor = _Distance.apply(look.image[:, 0], look.grid, shells, real)
        return self.weight * distance


class _Shells:
    """The shells of a half spectrum that are not empty, without that of the constant part."""

    def __init__(self, grid: Grid, device: torch.device) -> None:
        self.index, self.shares = (part.flatten().to(device) for part in grid.shells)
        self.counts = torch.bincount(self.index, self.shares)
        self.filled = self.counts > 0
        self.filled[0] = False

    def means(self, magnitude: Tensor) -> Tensor:
        """Return the mean of magnitudes `(n, *half spectrum)` in each shell, `(n, shells)`, float64."""
        totals = each(self._totals, magnitude.flatten(1) * self.shares)
        return (totals / self.counts)[:, self.filled]

    def _totals(self, weighted: Tensor) -> Tensor:
        totals = weighted.new_zeros(len(weighted), len(self.counts))
        return totals.scatter_add_(1, self.index.expand_as(weighted), weighted)

    def spread(self, values: Tensor) -> Tensor:
        """Return a value of each shell at each of its coefficients, `(n, coefficients)`."""
        table = values.new_zeros(len(values), len(self.counts))
        table[:, self.filled] = values
        return table[:, self.index]


class _Distance(torch.autograd.Function):
    """The squared distance of images `(n, *shape)`, and its gradient by one transform back."""

    @staticmethod
    def forward(context: Any, image: Tensor, grid: Grid, shells: _Shells, real: Tensor) -> Tensor:
        spectrum = grid.to_spectrum(image)
        magnitude = spectrum.abs()
        found = shells.means(magnitude)
        away = each(torch.log10, found.clamp_min(_SILENT)) - real
        if context.needs_input_grad[0]:
            # A silent shell has no slope. That of a mean spreads over the shell's coefficients, and what
            # each stands for is made up for by the transform, which takes each as often.
            slope = 2 * away / away.shape[1] / (found.clamp_min(_SILENT) * math.log(10)) * (found > _SILENT)
            factor = shells.spread((slope / shells.counts[shells.filled]).to(image)).reshape(spectrum.shape)
            # A coefficient of zero has no direction.
            spectrum *= factor.div_(magnitude).masked_fill_(magnitude == 0, 0)
            context.save_for_backward(grid.from_spectrum(spectrum))
        return means(away.square()).to(image)

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,), (weights,) = context.saved_tensors, slopes
        return slope * weights.reshape(-1, *(1,) * (slope.ndim - 1)), None, None, None
