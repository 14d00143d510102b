"""What the volume must survive: random changes of geometry and of intensity.

A picture that only works at one exact position is noise that the network
happens to like. Moving, turning, scaling and cropping it before every step
(Olah et al. 2017; crops as in Fel et al. 2023) leaves what a unit really looks
for, and so do the nuisances that MRI itself adds: noise, gain, contrast and the
receive bias. The geometry is one affine map, so the volume is resampled once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.fields import Checked, number
from engine.grid import Grid
from engine.itemwise import each, separate
from engine.resampling import half, resample

# Below this share of the intensity range a power is replaced by the line through zero that meets it:
# the slope of a power below 1 has no bound near zero, and a brain's background is zero.
_TOE = 0.01


@dataclass(frozen=True, eq=False)
class Draw:
    """One random transform of an image.

    Parameters
    ----------
    matrix, shift : Tensor, (ndim, ndim) and (ndim,), float64
        The map from output to input positions, mm from the grid's middle.
    gain : float
        Factor of the intensity, counted from the lower end of its range.
    exponent : float
        Power of the intensity, scaled to 0 to 1 over its range.
    field : Tensor or None, (*shape), float64
        Factor of the intensity at each voxel; None for one.
    noise : Tensor or None, (*shape), float32
        What is added, as a fraction of the intensity range; None for nothing.
    """

    matrix: Tensor
    shift: Tensor
    gain: float = 1.0
    exponent: float = 1.0
    field: Tensor | None = None
    noise: Tensor | None = None

    def moved(self) -> "Draw":
        """Return the geometry alone, for what has no intensity, as a mask."""
        return Draw(self.matrix, self.shift)


@dataclass(frozen=True)
class Transforms(Checked):
    """Ranges of the random transforms that each step draws.

    The volume is flipped, turned, scaled and shifted, and a crop of that is
    zoomed to fill the grid; then come contrast, gain, bias and noise.

    Parameters
    ----------
    jitter_mm : float
        Largest shift along each axis, mm.
    rotation_degrees : float
        Largest rotation about each axis (in the plane for pictures), degrees.
    scale : float
        Largest relative change of size.
    flip : float
        Probability of a left-right flip.
    crop_first, crop_last : float
        Share of each edge that a random crop keeps at the first and at the last step, linear in between.
    noise : float
        Standard deviation of Gaussian noise, as a fraction of the intensity range.
    gain : float
        Largest relative change of intensity.
    gamma : float
        Largest absolute logarithm of the exponent of the intensity.
    bias_field : float
        Largest relative change of intensity by a smooth field.
    copies : int
        Differently transformed copies that each step averages over.
    """

    jitter_mm: float = number(8.0, minimum=0, maximum=100, unit="mm", doc="Largest shift along each axis.")
    rotation_degrees: float = number(12.0, minimum=0, maximum=180, unit="degrees", doc="Largest rotation.")
    scale: float = number(0.1, minimum=0, maximum=0.5, doc="Largest relative change of size.")
    flip: float = number(0.0, minimum=0, maximum=1, doc="Probability of a left-right flip.")
    crop_first: float = number(
        1.0, minimum=0.05, maximum=1, doc="Share of each edge that a random crop keeps at the first step."
    )
    crop_last: float = number(
        1.0, minimum=0.05, maximum=1, doc="Share of each edge that a random crop keeps at the last step."
    )
    noise: float = number(
        0.0,
        minimum=0,
        maximum=1,
        doc="Standard deviation of Gaussian noise, as a fraction of the intensity range.",
    )
    gain: float = number(0.0, minimum=0, maximum=0.9, doc="Largest relative change of intensity.")
    gamma: float = number(
        0.0,
        minimum=0,
        maximum=2,
        doc="Largest absolute logarithm of the exponent applied to the intensity scaled to 0 to 1.",
    )
    bias_field: float = number(
        0.0,
        minimum=0,
        maximum=0.9,
        doc="Largest relative change of intensity by a smooth field, as MRI's receive bias.",
    )
    copies: int = number(
        1, minimum=1, maximum=64, doc="Differently transformed copies that each step averages over."
    )

    @property
    def any(self) -> bool:
        """Whether anything is changed at all."""
        ranges = (self.jitter_mm, self.rotation_degrees, self.scale, self.flip)
        intensity = (self.noise, self.gain, self.gamma, self.bias_field)
        return any(ranges) or any(intensity) or min(self.crop_first, self.crop_last) < 1

    def draw(self, grid: Grid, generator: torch.Generator, progress: float = 0.0) -> Draw:
        """Draw the transform of one copy.

        How many random numbers are taken depends on the settings and the grid alone.

        Parameters
        ----------
        grid : Grid
            Where the image lives.
        generator : torch.Generator
            Source of the draw, on the CPU.
        progress : float
            How far the run is: 0 at its first step, 1 at its last.

        Returns
        -------
        Draw
            On the CPU.
        """
        planes = grid.ndim * (grid.ndim - 1) // 2
        parts = [grid.ndim, planes, grid.ndim, 5]
        numbers = 2 * torch.rand(sum(parts), generator=generator, dtype=torch.float64) - 1
        jitter, turns, place, others = numbers.split(parts)
        size, flip, gain, gamma, bias = others.tolist()
        matrix = _rotation(math.radians(self.rotation_degrees) * turns, grid.ndim) / (1 + self.scale * size)
        share = self.crop_first + (self.crop_last - self.crop_first) * progress
        # A crop is as far from the middle as it can be without leaving the grid, at most.
        shift = matrix @ ((1 - share) * half(grid) * place) + self.jitter_mm * jitter
        matrix = share * matrix
        if flip < 2 * self.flip - 1:
            matrix[grid.left_right] *= -1
            shift[grid.left_right] *= -1
        return Draw(
            matrix,
            shift,
            gain=1 + self.gain * gain,
            exponent=math.exp(self.gamma * gamma),
            field=1 + self.bias_field * bias * _smooth(grid, generator) if self.bias_field else None,
            noise=self.noise * torch.randn(grid.shape, generator=generator) if self.noise else None,
        )


def apply(images: Tensor, draws: Sequence[Draw], grid: Grid, intensity_range: tuple[float, float]) -> Tensor:
    """Transform images, each by a draw of its own.

    Parameters
    ----------
    images : Tensor, (n, 1, *shape)
        The images, model units.
    draws : sequence of Draw
        One for each image.
    grid : Grid
        The images' grid.
    intensity_range : tuple of float
        Lower and upper end of the intensities, model units.

    Returns
    -------
    Tensor, (n, 1, *shape)
        Transformed images, not clamped to the range. What no draw changes is passed on as it is.

    Raises
    ------
    ValueError
        There is not one draw for each image.
    """
    if len(draws) != len(images):
        raise ValueError(f"{len(draws)} draws for {len(images)} images; give one draw for each image")
    low, high = intensity_range
    seen = _change_intensity(_move(images, draws, grid), draws, low, high - low)
    if all(draw.noise is None for draw in draws):
        return seen
    nothing = torch.zeros(grid.shape)
    noise = torch.stack([nothing if draw.noise is None else draw.noise for draw in draws])
    return seen + (high - low) * noise.to(seen).unsqueeze(1)


def _move(images: Tensor, draws: Sequence[Draw], grid: Grid) -> Tensor:
    """Apply the draws' geometry; where all of it is flips, voxels are exchanged and none is interpolated."""
    matrix = torch.stack([draw.matrix for draw in draws])
    shift = torch.stack([draw.shift for draw in draws])
    between = shift.any(1) | (matrix.abs() != torch.eye(grid.ndim).to(matrix)).flatten(1).any(1)
    if between.any():
        if separate(images.device) and not between.all():
            pairs = zip(images.split(1), draws, strict=True)
            return torch.cat([_move(image, [draw], grid) for image, draw in pairs])
        return resample(images, grid, matrix, shift)
    flips = matrix.diagonal(dim1=1, dim2=2) < 0
    if not flips.any():
        return images
    axes = [[1 + axis for axis in range(grid.ndim) if flip[axis]] for flip in flips]
    return torch.stack([image.flip(turned) for image, turned in zip(images, axes, strict=True)])


def _change_intensity(images: Tensor, draws: Sequence[Draw], low: float, span: float) -> Tensor:
    """Apply the draws' exponents, gains and fields to intensities counted from `low` in units of `span`."""
    one = torch.ones((1,) * (images.ndim - 2), dtype=torch.float64)
    if all(draw.gain == draw.exponent == 1 and draw.field is None for draw in draws):
        return images
    column = torch.tensor([[draw.gain, draw.exponent] for draw in draws], dtype=torch.float64).to(images)
    gain, exponent = column.reshape(-1, 2, *(1,) * (images.ndim - 1)).unbind(1)
    share = (images - low) / span
    changed = gain * share
    if any(draw.exponent != 1 for draw in draws):
        changed = changed * each(torch.pow, share.abs().clamp_min(_TOE), exponent - 1)
    if any(draw.field is not None for draw in draws):
        fields = [one if draw.field is None else draw.field for draw in draws]
        shape = torch.broadcast_shapes(*(field.shape for field in fields))
        changed = changed * torch.stack([field.expand(shape) for field in fields]).to(images).unsqueeze(1)
    # A difference, so that an item which nothing changes comes out as it went in, to the bit.
    return images + span * (changed - share)


def _rotation(angles: Tensor, ndim: int) -> Tensor:
    """Return the product of the rotations by `angles`, radians, in each plane of two axes."""
    planes = [(a, b) for a in range(ndim) for b in range(a + 1, ndim)]
    matrix = torch.eye(ndim, dtype=torch.float64)
    for (a, b), angle in zip(planes, angles.tolist(), strict=True):
        turn = torch.eye(ndim, dtype=torch.float64)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix


def _smooth(grid: Grid, generator: torch.Generator) -> Tensor:
    """Draw a field whose largest magnitude is 1: random waves of at most one period along each edge."""
    orders = torch.arange(3, dtype=torch.float64)
    field = torch.randn((3,) * grid.ndim, generator=generator, dtype=torch.float64)
    # The constant wave would be a gain.
    field[(0,) * grid.ndim] = 0
    for size in grid.shape:
        phase = (torch.arange(size, dtype=torch.float64) + 0.5) * math.pi / size
        # The axis that is expanded leaves the front and joins the back: after all of them the order is kept.
        field = torch.tensordot(field, torch.cos(orders[:, None] * phase), dims=([0], [0]))
    return field / field.abs().max()
