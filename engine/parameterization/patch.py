"""A small pattern on many brains."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from engine.fields import number
from engine.grid import Grid
from engine.parameterization.base import Latent, Parameterization, Stage

# Over this share of its edge, at either end, a pattern fades into the brain.
_TAPER = 0.25


class PatchLatent(Latent):
    """A pattern and its opacity.

    Parameters
    ----------
    stage : Stage
        What it is made on.
    shape : tuple of int
        The pattern's voxels along each axis.
    sparsity : float
        Weight of the mean opacity.

    Attributes
    ----------
    free : list of Tensor, two of (batch, 1, *pattern)
        The pattern and the opacity before the squashing.
    corners : Tensor, (places, ndim), int64
        The first voxel of the pattern at each place where it may be pasted, on the CPU.
    """

    in_place: ClassVar[bool] = False

    def __init__(self, stage: Stage, shape: tuple[int, ...], sparsity: float) -> None:
        self.grid, self.scene, self.shape, self.sparsity = stage.grid, stage.scene, shape, sparsity
        self.brains = stage.anatomy.need("brains", "the patch parameterization").to(stage.device)
        self.corners = _corners(stage, shape)
        self.taper = _taper(shape).to(stage.device)
        noise = (stage.start.deviation * stage.noise(2, 1, *shape)).unbind(1)
        self.free = [part.clone().requires_grad_() for part in noise]

    def pattern(self) -> Tensor:
        """Return the pattern, `(batch, 1, *pattern)`, model units."""
        low, high = self.scene.range
        return low + (high - low) * torch.sigmoid(self.free[0])

    def opacity(self) -> Tensor:
        """Return how much of the pattern shows, `(batch, 1, *pattern)`, 0 to 1."""
        return self.taper.to(self.free[1]) * torch.sigmoid(self.free[1])

    def volume(self) -> Tensor:
        """Return the start with the pattern pasted once, in the middle of the grid, `(batch, 1, *shape)`."""
        pattern, opacity = (self._placed(part, self._middle) for part in (self.pattern(), self.opacity()))
        return self.scene.blend(_pasted(self.scene.begin, pattern, opacity))

    def seen(self, volume: Tensor, copies: int, generators: Sequence[torch.Generator]) -> Tensor:
        """Return brains, each with the pattern at a place of its own, `(batch * copies, 1, *shape)`.

        Parameters
        ----------
        volume : Tensor, (batch, 1, *shape)
            Not looked at.
        copies : int
            How many brains each item is pasted on.
        generators : sequence of torch.Generator
            One for each item; it draws the brains and the places.
        """
        shown = []
        for generator, *item in zip(generators, self.pattern(), self.opacity(), strict=True):
            for _ in range(copies):
                brain = self.brains[_draw(len(self.brains), generator)][None].to(item[0])
                corner = self.corners[_draw(len(self.corners), generator)].tolist()
                shown.append(_pasted(brain, *(self._placed(part, corner) for part in item)))
        return self.scene.blend(torch.stack(shown))

    def penalties(self) -> Mapping[str, Tensor]:
        """Return the weighted mean opacity of each pattern, `(batch,)`."""
        return {"opacity": self.sparsity * self.opacity().flatten(1).mean(1)}

    def extras(self) -> Mapping[str, Tensor]:
        """Return the opacity where `volume` shows the pattern, `(batch, *shape)`."""
        return {"opacity": self._placed(self.opacity(), self._middle)[:, 0]}

    @property
    def _middle(self) -> list[int]:
        return [(whole - size) // 2 for whole, size in zip(self.grid.shape, self.shape, strict=True)]

    def _placed(self, part: Tensor, corner: Sequence[int]) -> Tensor:
        """Return a part `(..., *pattern)` on the grid, surrounded by zeros."""
        ends = zip(corner, self.shape, self.grid.shape, strict=True)
        pads = [(start, whole - start - size) for start, size, whole in ends]
        return functional.pad(part, [pad for pair in reversed(pads) for pad in pair])


@dataclass(frozen=True)
class Patch(Parameterization):
    """A small pattern with an opacity map, pasted on many brains at random places.

    What must appear anywhere for the unit to fire, whosever brain it is: a
    pattern that is trained over many images and places (Brown et al. 2017,
    adversarial patch) with an opacity that costs, so that only what counts stays.
    The pattern begins as middle grey, half as opaque as can be, on every start.

    Every copy of `Transforms.copies` is another brain and another place: ask for
    4 or more, for one of each a step makes the gradient noisy. A pattern is
    pasted around voxels of the brain's mask where there is one and the window
    shows them; it is made smaller along the axes on which it does not fit.

    Parameters
    ----------
    size_mm : float
        Edge of the pattern, mm.
    sparsity : float
        Weight of the mean opacity.
    real : bool
        Whether the caller is to provide real brains.
    """

    size_mm: float = number(40.0, above=0, maximum=400, unit="mm", doc="Edge of the pattern.")
    sparsity: float = number(0.1, minimum=0, doc="Weight of the mean opacity.")
    # The engine pastes on `Anatomy.brains`, whichever they are: only who fills them in reads this.
    real: bool = False
    name: ClassVar[str] = "patch"

    def shape(self, grid: Grid) -> tuple[int, ...]:
        """Return the pattern's voxels along each axis of a grid."""
        pairs = zip(grid.shape, grid.voxel_size, strict=True)
        return tuple(min(whole, max(1, round(self.size_mm / step))) for whole, step in pairs)

    def latent(self, stage: Stage) -> PatchLatent:
        """Return a grey pattern with Gaussian noise of the start's deviation, before the squashing.

        Raises
        ------
        MissingAnatomy
            No brains were given.
        """
        return PatchLatent(stage, self.shape(stage.grid), self.sparsity)


def _pasted(background: Tensor, pattern: Tensor, opacity: Tensor) -> Tensor:
    return background * (1 - opacity) + pattern * opacity


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _taper(shape: Sequence[int]) -> Tensor:
    """Return a factor that is 1 in the middle and falls smoothly to 0 at the faces, `(*shape)`."""
    window = torch.ones(tuple(shape))
    for axis, size in enumerate(shape):
        place = (torch.arange(size) + 0.5) / size
        inside = torch.minimum(place, 1 - place) / _TAPER
        ramp = torch.sin(math.pi / 2 * inside.clamp(max=1)) ** 2
        window = window * ramp.reshape(-1, *(1,) * (len(shape) - 1 - axis))
    return window


def _corners(stage: Stage, shape: Sequence[int]) -> Tensor:
    """Return where patterns of a shape may begin: where they fit, and their middle shows and is brain."""
    inside = tuple(
        slice(size // 2, size // 2 + whole - size + 1)
        for size, whole in zip(shape, stage.grid.shape, strict=True)
    )
    middles = torch.ones(stage.grid.shape, dtype=torch.bool)[inside]
    window = stage.scene.window
    wishes = [None if window is None else window[0, 0].cpu() >= 0.5, stage.anatomy.mask]
    for wish in wishes:
        # A wish that no place fulfils is dropped: a pattern as large as the grid has a single place.
        if wish is not None and (both := middles & wish.cpu().bool()[inside]).any():
            middles = both
    return middles.nonzero()
