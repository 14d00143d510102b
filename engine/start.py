"""What the volume is before the first step, and how a latent image becomes the volume."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from engine.fields import Checked, number

# An intensity at the very end of the range would map to infinity before the squashing.
_MARGIN = 0.02


@dataclass(frozen=True)
class Noise(Checked):
    """Middle grey with Gaussian noise.

    Parameters
    ----------
    deviation : float
        Standard deviation before the squashing into the intensity range.
    """

    deviation: float = number(0.01, minimum=0, maximum=10, doc="Noise before the squashing.")
    name: ClassVar[str] = "noise"
    on_brain: ClassVar[bool] = False


@dataclass(frozen=True)
class ReferenceBrain(Noise):
    """The mean training image with Gaussian noise.

    Parameters
    ----------
    deviation : float
        Standard deviation before the squashing into the intensity range.
    """

    name: ClassVar[str] = "reference_brain"
    on_brain: ClassVar[bool] = True


Start = Noise | ReferenceBrain
STARTS = {kind.name: kind for kind in (ReferenceBrain, Noise)}


class Scene:
    """Where the latent image appears: squashed into the intensity range, on its start, in its surroundings.

    A latent of zeros is exactly the start.

    Parameters
    ----------
    start : Start
        What the volume begins as.
    intensity_range : tuple of float
        Bounds of the volume, model units.
    reference : Tensor or None, (*shape)
        The brain, model units.
    window : Tensor or None, (*shape)
        Share of the optimized volume at each voxel, 0 to 1; the rest is the reference.
    device : torch.device
        Where the volume is made.

    Attributes
    ----------
    home : Tensor
        The volume of a latent of zeros, broadcastable to `(1, 1, *shape)`.
    """

    def __init__(
        self,
        start: Start,
        intensity_range: tuple[float, float],
        reference: Tensor | None,
        window: Tensor | None,
        device: torch.device,
    ) -> None:
        if reference is None and (start.on_brain or window is not None):
            raise ValueError("a start on the reference brain, and a window, need Spec.reference")
        self._low, self._high = intensity_range
        middle = torch.full((), (self._low + self._high) / 2, device=device)
        brain = middle if reference is None else reference.to(device)[None, None]
        begin = brain if start.on_brain else middle
        share = (begin - self._low) / (self._high - self._low)
        self._base = torch.logit(share.clamp(_MARGIN, 1 - _MARGIN))
        # What the margin has cut off, such as the black around the brain.
        self._rest = begin - self._squash(self._base)
        self._window = None if window is None else window.to(device)[None, None]
        self._brain = brain
        self.home = self._blend(begin)

    def image(self, latent: Tensor) -> Tensor:
        """Return the volume of an unbounded latent image `(batch, 1, *shape)`, model units."""
        shown = self._squash(self._base + latent) + self._rest
        return self._blend(shown.clamp(self._low, self._high))

    def _squash(self, unbounded: Tensor) -> Tensor:
        return self._low + (self._high - self._low) * torch.sigmoid(unbounded)

    def _blend(self, image: Tensor) -> Tensor:
        if self._window is None:
            return image
        return self._brain + self._window * (image - self._brain)
