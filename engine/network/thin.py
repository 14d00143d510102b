"""The first convolution: many maps out of one channel, at the full size of the volume.

Its maps are by far the largest values of a network, and the gradient that comes
back through it costs a general routine more than all the rest, for that pads one
channel to a register's width. Here it is computed some planes at a time, together
with a max pooling behind it: the maps stay in the cache and are never held as a
whole, and the way back is a product of matrices and a few shifted sums.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.network.convolution import FrozenConvolution, convolve, mirror, plain, triple

# Maps of about this many numbers are computed at a time: they stay in the processor's cache.
_SLAB_ELEMENTS = 1 << 22
# On fewer the many small sums cost more than the general routine.
_FEW_VOXELS = 28**3


class ThinConvolution(nn.Module):
    """A frozen convolution of one channel, and the max pooling behind it if there is one.

    Parameters
    ----------
    convolution : nn.Conv3d
        One that `suits`.
    pooling : nn.MaxPool3d or None
        One that `pools`.
    """

    def __init__(self, convolution: nn.Conv3d, pooling: nn.MaxPool3d | None = None) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.mirrored, self.back = mirror(convolution)
        self.kernel, self.padding = triple(convolution.kernel_size), triple(convolution.padding)
        self.window = triple(pooling.kernel_size) if pooling else ()

    @staticmethod
    def suits(module: nn.Module | None) -> TypeGuard[nn.Conv3d]:
        """Tell whether a module is such a convolution."""
        return FrozenConvolution.suits(module) and module.in_channels == 1

    @staticmethod
    def pools(module: nn.Module | None) -> TypeGuard[nn.MaxPool3d]:
        """Tell whether a module is a max pooling of windows that lie side by side."""
        return (
            plain(module, nn.MaxPool3d)
            and triple(module.stride) == triple(module.kernel_size)
            and not (module.ceil_mode or module.return_indices)
            and set(triple(module.padding)) == {0}
            and set(triple(module.dilation)) == {1}
        )

    def forward(self, volume: Tensor) -> Tensor:
        """Return the maps, `(batch, channels, *shape)`, of `(batch, 1, *shape)`."""
        out: Tensor = (_PooledSlabs if self.window else _Slabs).apply(volume, self)
        return out

    def map_shape(self, shape: Sequence[int]) -> list[int]:
        """Return the maps' shape on a volume."""
        sizes = zip(shape, self.kernel, self.padding, strict=True)
        return [size + 2 * pad - kernel + 1 for size, kernel, pad in sizes]

    def slabs(self, shape: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield the first plane and the number of planes of each part of the maps; none cuts a window."""
        count, *rest = self.map_shape(shape)
        multiple = self.window[0] if self.window else 1
        planes = _SLAB_ELEMENTS // (len(self.weight) * math.prod(rest))
        step = max(1, planes // multiple) * multiple
        # Planes that fill no window are not looked at.
        last = count // multiple * multiple
        for first in range(0, last, step):
            yield first, min(step, last - first)

    def maps(self, volume: Tensor, first: int, count: int) -> Tensor:
        """Return some planes of the maps before the pooling, `(batch, channels, count, ...)`."""
        begin = first - self.padding[0]
        end = begin + count + self.kernel[0] - 1
        size = volume.shape[2]
        part = volume[:, :, max(begin, 0) : min(end, size)]
        missing = max(-begin, 0), max(end - size, 0)
        part = functional.pad(part, (0, 0, 0, 0, *missing))
        return convolve(part, self.weight, self.bias, (0, *self.padding[1:]))


class _Slabs(torch.autograd.Function):
    """The convolution; on the way back a slab's products are summed up while they are in the cache."""

    @staticmethod
    def forward(context: Any, volume: Tensor, module: ThinConvolution) -> Tensor:
        context.module, context.shape = module, volume.shape[2:]
        return convolve(volume, module.weight, module.bias, module.padding)

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        (slope,) = slopes
        if math.prod(context.shape) <= _FEW_VOXELS:
            return convolve(slope, context.module.mirrored, None, context.module.back), None
        correlation = _Correlation(context.module, slope, context.shape)
        for first, count in context.module.slabs(context.shape):
            correlation.add(first, slope.narrow(2, first, count))
        return correlation.total(), None


class _PooledSlabs(torch.autograd.Function):
    """The convolution and the pooling; of the maps, only where the largest values were is kept."""

    @staticmethod
    def forward(context: Any, volume: Tensor, module: ThinConvolution) -> Tensor:
        context.module, context.shape = module, volume.shape[2:]
        sizes = zip(module.map_shape(context.shape), module.window, strict=True)
        shape = len(volume), len(module.weight), *(size // edge for size, edge in sizes)
        largest, context.chosen = _empty(shape, volume.dtype), _empty(shape, torch.int32)
        for first, count in module.slabs(context.shape):
            planes = slice(first // module.window[0], (first + count) // module.window[0])
            values, places = functional.max_pool3d(
                module.maps(volume, first, count), module.window, return_indices=True
            )
            largest[:, :, planes], context.chosen[:, :, planes] = values, places
        return largest

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        module, (slope,) = context.module, slopes
        correlation = _Correlation(module, slope, context.shape)
        rest = module.map_shape(context.shape)[1:]
        for first, count in module.slabs(context.shape):
            planes = slice(first // module.window[0], (first + count) // module.window[0])
            like = _empty((*slope.shape[:2], count, *rest), slope.dtype)
            spread = torch.ops.aten.max_pool3d_with_indices_backward(
                slope[:, :, planes], like, module.window, module.window, (0, 0, 0), (1, 1, 1), False,
                context.chosen[:, :, planes].long(),
            )  # fmt: skip
            correlation.add(first, spread)
        return correlation.total(), None


class _Correlation:
    """The gradient on volumes, summed up from slabs of that on their maps."""

    def __init__(self, module: ThinConvolution, slope: Tensor, shape: Sequence[int]) -> None:
        self._module, self._shape, self._dtype = module, shape, slope.dtype
        self._taps = module.weight.flatten(1).t().contiguous()
        padded = [size + 2 * pad for size, pad in zip(shape, module.padding, strict=True)]
        # The sums stay in float32, whatever the network computes in.
        self._sum = slope.new_zeros(len(slope), *padded, dtype=torch.float32)

    def add(self, first: int, slope: Tensor) -> None:
        """Add what planes of the maps from `first` on, `(batch, channels, planes, ...)`, send back."""
        # Channels last: how the maps lie in memory, so that they are not copied.
        slab = slope.movedim(1, -1)
        for item, part in zip(self._sum, slab, strict=True):
            shares = (self._taps @ part.reshape(-1, part.shape[-1]).t()).reshape(-1, *part.shape[:-1])
            places = itertools.product(*map(range, self._module.kernel))
            for (i, j, k), share in zip(places, shares, strict=True):
                planes, rows, columns = share.shape
                item[first + i : first + i + planes, j : j + rows, k : k + columns] += share

    def total(self) -> Tensor:
        """Return the gradient, `(batch, 1, *shape)`."""
        inner = zip(self._module.padding, self._shape, strict=True)
        whole = self._sum[(slice(None), *(slice(pad, pad + size) for pad, size in inner))]
        return whole.unsqueeze(1).to(self._dtype)


def _empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype, memory_format=torch.channels_last_3d)
