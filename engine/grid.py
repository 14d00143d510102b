"""The grid on which a volume lives, and its frequencies."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from engine.fields import InvalidField
from engine.itemwise import each
from engine.once import Once

_FWHM_PER_SIGMA = math.sqrt(8 * math.log(2))


@dataclass(frozen=True)
class Grid(Once):
    """A box of voxels in 1, 2 or 3 dimensions.

    Parameters
    ----------
    shape : tuple of int
        Voxels along each axis.
    voxel_size : tuple of float
        Edge lengths of a voxel, mm.
    left_right : int
        The array axis that runs left-right.

    Raises
    ------
    InvalidField
        `left_right` is no axis of the grid.
    """

    shape: tuple[int, ...]
    voxel_size: tuple[float, ...]
    left_right: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.left_right < self.ndim:
            raise InvalidField("left_right", self.left_right, f"an axis of the grid, 0 to {self.ndim - 1}")

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def axes(self) -> tuple[int, ...]:
        """The spatial axes of a tensor `(batch, channel, *shape)`."""
        return tuple(range(-self.ndim, 0))

    @cached_property
    def fourier_shape(self) -> tuple[int, ...]:
        """Shape of the real-valued side of the Fourier transform.

        Each axis is the next size whose only prime factors are 2, 3, 5 and 7:
        a transform of 108 = 2^2 3^3 points is far cheaper than one of 109.
        """
        return tuple(_smooth_size(size) for size in self.shape)

    @cached_property
    def frequencies(self) -> Tensor:
        """Radial frequency of every real-FFT coefficient, cycles per mm, float64."""
        radius = torch.zeros((), dtype=torch.float64)
        for axis, (size, step) in enumerate(zip(self.fourier_shape, self.voxel_size, strict=True)):
            last = axis == self.ndim - 1
            make = torch.fft.rfftfreq if last else torch.fft.fftfreq
            line = make(size, d=step, dtype=torch.float64)
            view = [1] * self.ndim
            view[axis] = -1
            radius = radius + line.view(view) ** 2
        return radius.sqrt()

    @cached_property
    def shells(self) -> tuple[Tensor, Tensor]:
        """The `radial_shells` of the half spectrum."""
        return radial_shells(self.fourier_shape, self.voxel_size)

    def to_spectrum(self, image: Tensor) -> Tensor:
        """Transform an image `(..., *shape)`, padded with zeros, to its half spectrum."""
        return self._transformed(torch.fft.rfftn, image)

    def from_spectrum(self, spectrum: Tensor) -> Tensor:
        """Transform a half spectrum to an image `(..., *shape)`, cutting the padding off."""
        image = self._transformed(torch.fft.irfftn, spectrum)
        for axis, size in zip(self.axes, self.shape, strict=True):
            image = image.narrow(axis, 0, size)
        return image

    def _transformed(self, transform: Callable[..., Tensor], values: Tensor) -> Tensor:
        def whole(part: Tensor) -> Tensor:
            return transform(part, s=self.fourier_shape, dim=self.axes, norm="ortho")

        return each(whole, values) if values.ndim > self.ndim else whole(values)

    def gaussian_transfer(self, fwhm: float) -> Tensor:
        """Frequency response of a Gaussian filter.

        Parameters
        ----------
        fwhm : float
            Full width at half maximum, mm.

        Returns
        -------
        Tensor
            Real factors in the shape of the half spectrum, float64.
        """
        sigma = fwhm / _FWHM_PER_SIGMA
        return self.once(
            ("gaussian", fwhm), lambda: torch.exp(-2 * (math.pi * sigma * self.frequencies) ** 2)
        )


@lru_cache(maxsize=4)
def radial_shells(shape: tuple[int, ...], voxel_size: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Sort the coefficients of a half spectrum by radial frequency.

    Parameters
    ----------
    shape : tuple of int
        Voxels along each axis of the image.
    voxel_size : tuple of float
        Edge lengths of a voxel, mm.

    Returns
    -------
    shells : Tensor, (*shape[:-1], shape[-1] // 2 + 1), int64
        Each coefficient's shell. Shells are one cycle along the longest edge wide, around whole numbers of
        cycles: shell 0 holds the constant part alone, and short edges may leave a shell empty.
    shares : Tensor, the same shape, float64
        How many coefficients of the whole spectrum each stands for, 1 or 2.
    """
    square = torch.zeros((), dtype=torch.float64)
    for axis, (size, step) in enumerate(zip(shape, voxel_size, strict=True)):
        line = torch.fft.fftfreq(size, d=step, dtype=torch.float64)
        line = line[: size // 2 + 1] if axis == len(shape) - 1 else line
        square = square + line.reshape(-1, *(1,) * (len(shape) - 1 - axis)) ** 2
    longest = max(size * step for size, step in zip(shape, voxel_size, strict=True))
    shells = (square.sqrt() * longest).round().long()
    # The half spectrum lacks the conjugates of all but its first column and, for an even size, its last.
    column = torch.arange(shells.shape[-1])
    shares = torch.where((column == 0) | (2 * column == shape[-1]), 1.0, 2.0)
    return shells, shares.double().expand_as(shells)


def _smooth_size(size: int) -> int:
    """Return the smallest number from `size` on whose prime factors are at most 7."""
    candidate = size
    while True:
        rest = candidate
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return candidate
        candidate += 1
