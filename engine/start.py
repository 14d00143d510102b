"""What the volume is before the first step, and how a latent image becomes the volume."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from engine.anatomy import Anatomy
from engine.fields import Checked, number

# An intensity at the very end of the range would map to infinity before the squashing.
_MARGIN = 0.02


# A squashed voxel keeps at least this slope on its way back; in the middle a sigmoid has 0.25.
_LEAST_SLOPE = 0.1


class _ReturningSigmoid(torch.autograd.Function):
    """A sigmoid whose gradient stays alive where it leads back from saturation.

    A step too many can push a region far into saturation, where a sigmoid has
    next to no slope: it would stay there for good, whatever the unit wants.
    """

    @staticmethod
    def forward(context: Any, unbounded: Tensor) -> Tensor:
        share = torch.sigmoid(unbounded)
        context.save_for_backward(unbounded, share)
        return share

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> Tensor:
        (unbounded, share), (slope,) = context.saved_tensors, slopes
        own = share * (1 - share)
        # A step goes against the slope: it leads back where both have the same sign.
        returning = unbounded * slope > 0
        return slope * torch.where(returning, own.clamp_min(_LEAST_SLOPE), own)


@dataclass(frozen=True)
class Start(Checked):
    """What the volume begins as: the common base.

    Parameters
    ----------
    deviation : float
        Standard deviation of the noise on it, before the squashing into the intensity range.
    """

    deviation: float = number(0.01, minimum=0, maximum=10, doc="Noise before the squashing.")
    name: ClassVar[str]

    def begin(self, anatomy: Anatomy, intensity_range: tuple[float, float]) -> Tensor:
        """Return the volume before the first step, without noise.

        Parameters
        ----------
        anatomy : Anatomy
            What is known of brains.
        intensity_range : tuple of float
            Bounds of the volume, model units.

        Returns
        -------
        Tensor, scalar or (*shape)
            Model units.

        Raises
        ------
        MissingAnatomy
            It begins with an image that was not given.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Noise(Start):
    """Middle grey with Gaussian noise.

    Parameters
    ----------
    deviation : float
        Standard deviation before the squashing into the intensity range.
    """

    name: ClassVar[str] = "noise"

    def begin(self, anatomy: Anatomy, intensity_range: tuple[float, float]) -> Tensor:
        """Return middle grey."""
        return torch.tensor(sum(intensity_range) / 2)


@dataclass(frozen=True)
class Zeros(Start):
    """The lowest intensity everywhere: an empty field of view.

    Parameters
    ----------
    deviation : float
        Standard deviation before the squashing into the intensity range.
    """

    deviation: float = number(0.0, minimum=0, maximum=10, doc="Noise before the squashing.")
    name: ClassVar[str] = "zeros"

    def begin(self, anatomy: Anatomy, intensity_range: tuple[float, float]) -> Tensor:
        """Return the lowest intensity."""
        return torch.tensor(intensity_range[0])


@dataclass(frozen=True)
class ReferenceBrain(Start):
    """The mean training image with Gaussian noise.

    Parameters
    ----------
    deviation : float
        Standard deviation before the squashing into the intensity range.
    """

    name: ClassVar[str] = "reference_brain"

    def begin(self, anatomy: Anatomy, intensity_range: tuple[float, float]) -> Tensor:
        """Return the mean brain."""
        return anatomy.need("reference", "a start on the reference brain")


@dataclass(frozen=True)
class SubjectImage(Start):
    """A person's image with Gaussian noise: what would have to change in it (Hamblin et al. 2024).

    Parameters
    ----------
    deviation : float
        Standard deviation before the squashing into the intensity range.
    """

    name: ClassVar[str] = "subject"

    def begin(self, anatomy: Anatomy, intensity_range: tuple[float, float]) -> Tensor:
        """Return the person's image."""
        return anatomy.need("subject", "a start on a subject")


STARTS: dict[str, type[Start]] = {kind.name: kind for kind in (ReferenceBrain, Noise, Zeros, SubjectImage)}


class Scene:
    """Where a latent image appears: squashed into the intensity range, on its start, in its surroundings.

    A latent of zeros is exactly the start.

    Parameters
    ----------
    start : Start
        What the volume begins as.
    intensity_range : tuple of float
        Bounds of the volume, model units.
    anatomy : Anatomy
        What is known of brains; its `window` fades the volume into the reference.
    windows : sequence of Tensor, (*shape)
        More shares of the optimized volume, 0 to 1; they multiply.
    device : torch.device
        Where the volume is made.

    Attributes
    ----------
    range : tuple of float
        The intensity range.
    begin : Tensor, (1, 1, *shape) or a scalar
        What the volume begins as, before the window.
    surroundings : Tensor, (1, 1, *shape) or a scalar
        What shows where the window is 0.
    window : Tensor or None, (1, 1, *shape)
        Share of the optimized volume.
    home : Tensor
        The volume of a latent of zeros, broadcastable to `(1, 1, *shape)`.
    """

    def __init__(
        self,
        start: Start,
        intensity_range: tuple[float, float],
        anatomy: Anatomy,
        windows: Sequence[Tensor],
        device: torch.device,
    ) -> None:
        shares = [window for window in (anatomy.window, *windows) if window is not None]
        self.range = self._low, self._high = intensity_range
        self.begin = _as_volume(start.begin(anatomy, intensity_range).to(device))
        self.window: Tensor | None = None
        self.surroundings = self.begin
        if shares:
            self.window = _as_volume(torch.stack([share.float() for share in shares]).prod(0).to(device))
            self.surroundings = _as_volume(anatomy.need("reference", "a window or mask").to(device))
            if isinstance(start, SubjectImage):
                # A person's image goes on outside the box as the person's, not as the mean brain.
                self.surroundings = self.begin
        share = (self.begin - self._low) / (self._high - self._low)
        self._base = torch.logit(share.clamp(_MARGIN, 1 - _MARGIN))
        # What the margin has cut off, such as the black around the brain.
        self._rest = self.begin - self._squash(self._base)
        self.home = self.blend(self.begin)

    def image(self, latent: Tensor) -> Tensor:
        """Return the volume of an unbounded latent image `(batch, 1, *shape)`, model units."""
        shown = self._squash(self._base + latent) + self._rest
        return self.blend(shown.clamp(self._low, self._high))

    def latent(self, volume: Tensor) -> Tensor:
        """Return the unbounded latent image that shows a volume before the window, as far as there is one."""
        share = (volume - self._rest - self._low) / (self._high - self._low)
        tiny = 1e-6
        return torch.logit(share.clamp(tiny, 1 - tiny)) - self._base

    def blend(self, volume: Tensor) -> Tensor:
        """Fade a volume `(batch, 1, *shape)` into its surroundings."""
        if self.window is None:
            return volume
        return self.surroundings + self.window * (volume - self.surroundings)

    def _squash(self, unbounded: Tensor) -> Tensor:
        share: Tensor = _ReturningSigmoid.apply(unbounded)
        return self._low + (self._high - self._low) * share


def _as_volume(image: Tensor) -> Tensor:
    return image[None, None] if image.ndim else image
