"""What the volume is before the first step, and how a latent image becomes the volume."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from engine.anatomy import Anatomy
from engine.fields import Checked, number
from engine.itemwise import rows

# An intensity at the very end of the range would map to infinity before the squashing.
_MARGIN = 0.02


# A squashed voxel keeps at least this slope on its way back; in the middle a sigmoid has 0.25.
_LEAST_SLOPE = 0.1


class _Shown(torch.autograd.Function):
    """A latent image squashed into the intensity range, on its start, in its surroundings.

    Its gradient stays alive where it leads back from saturation. A step too
    many can push a region far into saturation, where a sigmoid has next to no
    slope: it would stay there for good, whatever the unit wants.
    """

    @staticmethod
    def forward(context: Any, latent: Tensor, scene: "Scene") -> Tensor:
        low, high = scene.range
        share = latent + scene.base
        for part in rows(share):
            part.sigmoid_()
        context.scene = scene
        shown = torch.add(scene.offset, share, alpha=high - low)
        bounded = shown.clamp(low, high)
        # Only what the margin has cut off can lead out of the range.
        context.save_for_backward(share, *([bounded == shown] if scene.cut_off else []))
        return scene.blend(bounded)

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        (share, *inside), (slope,) = context.saved_tensors, slopes
        own = torch.addcmul(share, share, share, value=-1)
        # A step goes against the slope: it leads back where both have the same sign.
        returning = (share - 0.5).mul_(slope) > 0
        own = torch.where(returning, own.clamp_min(_LEAST_SLOPE), own).mul_(slope).mul_(context.scene.gain)
        return own.mul_(inside[0]) if inside else own, None


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
    base : Tensor
        The start before the squashing into the range, with a margin to its ends.
    offset : Tensor
        What is added behind the squashing: the lower end of the range, and what the margin has cut off,
        such as the black around the brain.
    cut_off : bool
        Whether it has cut off anything.
    gain : Tensor or float
        What a change before the blending is multiplied by behind it.
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
        self.range = intensity_range
        self.begin = _as_volume(start.begin(anatomy, intensity_range).to(device))
        self.window: Tensor | None = None
        self.surroundings = self.begin
        if shares:
            self.window = _as_volume(torch.stack([share.float() for share in shares]).prod(0).to(device))
            self.surroundings = _as_volume(anatomy.need("reference", "a window or mask").to(device))
            if isinstance(start, SubjectImage):
                # A person's image goes on outside the box as the person's, not as the mean brain.
                self.surroundings = self.begin
        low, high = intensity_range
        share = ((self.begin - low) / (high - low)).clamp(_MARGIN, 1 - _MARGIN)
        self.base = torch.logit(share)
        self.offset = self.begin - (high - low) * torch.sigmoid(self.base)
        self.cut_off = bool((self.offset != low).any())
        self.gain = (high - low) * (1 if self.window is None else self.window)
        self.home = self.blend(self.begin)

    def image(self, latent: Tensor) -> Tensor:
        """Return the volume of an unbounded latent image `(batch, 1, *shape)`, model units."""
        shown: Tensor = _Shown.apply(latent, self)
        return shown

    def latent(self, volume: Tensor) -> Tensor:
        """Return the unbounded latent image that shows a volume before the window, as far as there is one."""
        low, high = self.range
        share = (volume - self.offset) / (high - low)
        tiny = 1e-6
        return torch.logit(share.clamp(tiny, 1 - tiny)) - self.base

    def blend(self, volume: Tensor) -> Tensor:
        """Fade a volume `(batch, 1, *shape)` into its surroundings."""
        if self.window is None:
            return volume
        return torch.lerp(self.surroundings.to(volume), volume, self.window.to(volume))


def _as_volume(image: Tensor) -> Tensor:
    return image[None, None] if image.ndim else image
