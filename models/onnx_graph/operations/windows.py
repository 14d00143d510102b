"""The windows of convolutions and poolings: kernel, stride, dilation and padding as ONNX writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.onnx_graph.graph import Node, Refused
from models.onnx_graph.operations.reach import padded
from models.views import Shapes, View

_AUTO = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True)
class Windows:
    """Windows, one figure per spatial axis.

    Attributes
    ----------
    kernel, stride, dilation : tuple of int
        Their size, step and spread.
    before, after : tuple of int
        Planes of padding on either side; 0 where `auto` says how much.
    auto : str
        ONNX's ``auto_pad``.
    ceil : bool
        Whether windows that the input fills in part count.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    auto: str = "NOTSET"
    ceil: bool = False

    @classmethod
    def of(cls, node: Node, kernel: Sequence[int] | None = None) -> Windows:
        """Read a node's attributes; the kernel's shape may be known from its weights."""
        shape = node.wholes("kernel_shape", kernel)
        axes = len(shape)
        pads, auto = node.wholes("pads", [0] * 2 * axes), node.text("auto_pad", "NOTSET")
        strides, dilations = node.wholes("strides", [1] * axes), node.wholes("dilations", [1] * axes)
        if not 1 <= axes <= 3 or auto not in _AUTO:
            raise Refused(
                f"needs one to three spatial axes and a known auto_pad, got {shape} and {auto!r:.40}"
            )
        if (
            len(pads) != 2 * axes
            or {len(strides), len(dilations)} != {axes}
            or min(shape + strides + dilations) < 1
        ):
            raise Refused(f"kernel {shape}, strides {strides}, dilations {dilations}, pads {pads} do not fit")
        if auto != "NOTSET":
            pads = [0] * 2 * axes
        before, after = tuple(pads[:axes]), tuple(pads[axes:])
        ceil = node.flag("ceil_mode") and auto == "NOTSET"
        return cls(tuple(shape), tuple(strides), tuple(dilations), before, after, auto, ceil)._settled()

    def _settled(self) -> Windows:
        """Write down what ``SAME`` comes to where it does not depend on the input's size."""
        if not self.auto.startswith("SAME") or set(self.stride) != {1}:
            return self
        totals = [
            dilation * (kernel - 1) for kernel, dilation in zip(self.kernel, self.dilation, strict=True)
        ]
        small, large = tuple(n // 2 for n in totals), tuple(n - n // 2 for n in totals)
        before, after = (small, large) if self.auto == "SAME_UPPER" else (large, small)
        return Windows(self.kernel, self.stride, self.dilation, before, after)

    @property
    def axes(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def even(self) -> bool:
        """Whether the padding is the same on both sides and known."""
        return self.before == self.after and min(self.before) >= 0 and not self.auto.startswith("SAME")

    def pads(self, shape: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the planes before and after on an input of a spatial shape."""
        if not self.auto.startswith("SAME"):
            return list(self.before), list(self.after)
        before, after = [], []
        for size, kernel, stride, dilation in zip(
            shape, self.kernel, self.stride, self.dilation, strict=True
        ):
            total = max(0, (-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size)
            ends = [total // 2, total - total // 2]
            first, last = ends if self.auto == "SAME_UPPER" else ends[::-1]
            before.append(first)
            after.append(last)
        return before, after

    def positions(self, shape: Sequence[int]) -> list[int]:
        """Return how many windows there are on an input of a spatial shape."""
        before, after = self.pads(shape)
        found = []
        for axis, size in enumerate(shape):
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            room, stride = size + before[axis] + after[axis] - reach, self.stride[axis]
            count = room // stride + 1
            # A window that would start in the padding behind is none.
            if self.ceil and room % stride and count * stride < size + before[axis]:
                count += 1
            found.append(count)
        return found


class WindowPadding(nn.Module):
    """Padding that a module of torch does not know: uneven, or depending on the input's size.

    Parameters
    ----------
    windows : Windows
        Of the module behind.
    lowest : bool
        Whether to pad with the lowest number there is instead of 0, so that a maximum never takes it.
    """

    def __init__(self, windows: Windows, lowest: bool = False) -> None:
        super().__init__()
        self.windows, self.lowest = windows, lowest

    def _get_name(self) -> str:
        return "Pad"

    def forward(self, x: Tensor) -> Tensor:
        """Pad the spatial axes."""
        return pad(x, *self.windows.pads(x.shape[2:]), least(x.dtype) if self.lowest else 0)

    def follow(self, views: Sequence[View], shapes: Shapes) -> View:
        """Return what a position of the output can depend on, see `models.views`."""
        before, _ = self.windows.pads(shapes.inputs[0][2:])
        return padded(before, views[0])


def pad(x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0) -> Tensor:
    """Pad the last axes with a number; negative figures take planes away."""
    pairs = [figure for pair in zip(reversed(before), reversed(after), strict=True) for figure in pair]
    return functional.pad(x, pairs, value=value)


def least(dtype: torch.dtype) -> float:
    """Return the lowest number of a type."""
    return -torch.inf if dtype.is_floating_point else torch.iinfo(dtype).min
