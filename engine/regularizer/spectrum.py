"""How far a volume's spectrum is from that of real brains."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from engine.fields import number
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
        found = look.grid.to_spectrum(look.image[:, 0]).abs()
        if prior.shape != found.shape[1:]:
            raise ValueError(
                f"Spec.anatomy.magnitude has shape {tuple(prior.shape)}, but must have that of the grid's "
                f"half spectrum, {tuple(found.shape[1:])}"
            )
        mine, real = _shell_levels(found, look), _shell_levels(prior[None], look)
        return self.weight * (mine - real).square().mean(1).to(look.image)


def _shell_levels(magnitude: Tensor, look: Look) -> Tensor:
    """Return log10 of the mean magnitude in every shell that is not empty, `(n, shells)`, float64."""
    shells, shares = (part.to(magnitude.device).flatten() for part in look.grid.shells)
    weighted = magnitude.flatten(1) * shares
    totals = torch.zeros(len(magnitude), int(shells.max()) + 1, dtype=weighted.dtype, device=weighted.device)
    sums = totals.scatter_add(1, shells.expand_as(weighted), weighted)
    counts = totals[0].scatter_add(0, shells, shares)
    filled = counts > 0
    filled[0] = False
    return (sums[:, filled] / counts[filled]).clamp_min(_SILENT).log10()
