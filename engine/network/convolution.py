"""Convolutions whose weights will not change, on a CPU.

The gradient on the input of a convolution of stride 1 is itself a convolution,
with the kernels mirrored: made once, they serve every step, and the input need
not be kept. Both ways go to oneDNN at once; torch's own choice takes a routine
that is three to six times slower where the volume is small.
"""

from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn

_ONES = (1, 1, 1)


class FrozenConvolution(nn.Module):
    """A convolution of stride 1 whose weights do not change.

    Parameters
    ----------
    convolution : nn.Conv3d
        One that `suits`.
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.padding = triple(convolution.padding)
        self.weight, self.bias = convolution.weight, convolution.bias
        self.mirrored, self.back = mirror(convolution)

    @staticmethod
    def suits(module: nn.Module | None) -> TypeGuard[nn.Conv3d]:
        """Tell whether a module is such a convolution, and where oneDNN can compute it."""
        return (
            plain(module, nn.Conv3d)
            and module.groups == 1
            and set(module.stride) == set(module.dilation) == {1}
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
            and all(pad < size for pad, size in zip(module.padding, module.kernel_size, strict=True))
            and module.weight.device.type == "cpu"
            and module.weight.dtype == torch.float32
            and torch.backends.mkldnn.is_available()
        )

    def forward(self, volume: Tensor) -> Tensor:
        """Return the maps, `(batch, channels, *shape)`, of `(batch, inputs, *shape)`."""
        out: Tensor = _Mirrored.apply(volume, self)
        return out


class _Mirrored(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, volume: Tensor, module: FrozenConvolution) -> Tensor:
        context.module = module
        return convolve(volume, module.weight, module.bias, module.padding)

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        (slope,) = slopes
        return convolve(slope, context.module.mirrored, None, context.module.back), None


Kind = TypeVar("Kind", bound=nn.Module)


def plain(module: nn.Module | None, *kinds: type[Kind]) -> TypeGuard[Kind]:
    """Tell whether a module is of a kind and does what all of them do: no subclass of it, and no hook."""
    hooked = module is not None and (module._forward_hooks or module._forward_pre_hooks)
    return type(module) in kinds and not hooked


def mirror(convolution: nn.Conv3d) -> tuple[nn.Parameter, tuple[int, ...]]:
    """Return the kernels and the padding of the convolution that carries a gradient back."""
    edges = zip(convolution.kernel_size, triple(convolution.padding), strict=True)
    kernels = convolution.weight.detach().flip(2, 3, 4).transpose(0, 1).contiguous()
    return nn.Parameter(kernels), tuple(size - 1 - pad for size, pad in edges)


def triple(value: Any) -> tuple[int, ...]:
    """Return the three numbers that one, or three, stand for."""
    return (value,) * 3 if isinstance(value, int) else tuple(value)


def convolve(volume: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, ...]) -> Tensor:
    """Return a convolution of stride 1 by oneDNN, channels last in memory."""
    volume = volume.to(memory_format=torch.channels_last_3d)
    maps: Tensor = torch.ops.aten.mkldnn_convolution(volume, weight, bias, padding, _ONES, _ONES, 1)
    return maps
