"""The rules by which an operation widens what a position sees of the input.

Along one axis, position ``i`` of a value can depend on the input voxels from ``i * stride + low`` to
``i * stride + high``, both included. Keeping the two ends, and not only their distance, makes branches that
are padded differently add up rightly where they meet.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import fx, nn
from torch.nn import functional


@dataclass(frozen=True)
class View:
    """What one position of a value can depend on.

    Attributes
    ----------
    stride, low, high : tuple of int
        See the module's text; one entry per spatial axis of the input.
    whole : bool
        Whether a position may depend on every voxel; the other figures then say nothing about its reach.
    constant : bool
        Whether the value does not depend on the input at all.
    """

    stride: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    whole: bool = False
    constant: bool = False

    @classmethod
    def of_input(cls, axes: int) -> View:
        """Return the view of the input itself: each position sees its own voxel."""
        return cls((1,) * axes, (0,) * axes, (0,) * axes)

    @classmethod
    def of_everything(cls, axes: int) -> View:
        """Return the view of a position that may see every voxel."""
        return replace(cls.of_input(axes), whole=True)

    @classmethod
    def of_constant(cls, axes: int) -> View:
        """Return the view of a value that does not depend on the input."""
        return replace(cls.of_input(axes), constant=True)

    @property
    def extent(self) -> tuple[int, ...]:
        """Number of input voxels along each axis."""
        return tuple(high - low + 1 for low, high in zip(self.low, self.high, strict=True))

    def widened(self) -> View:
        """Return this view, seeing everything."""
        return replace(self, whole=True)

    def through(self, windows: Sequence[Window]) -> View:
        """Return the view behind a sliding window, one `Window` per axis."""
        if len(windows) != len(self.stride):
            return self.widened()
        return replace(
            self,
            stride=tuple(s * w.stride for s, w in zip(self.stride, windows, strict=True)),
            low=tuple(lo - s * w.before for lo, s, w in zip(self.low, self.stride, windows, strict=True)),
            high=tuple(hi + s * w.after for hi, s, w in zip(self.high, self.stride, windows, strict=True)),
        )


@dataclass(frozen=True)
class Window:
    """A sliding window along one axis: how far it reaches before and after its anchor, and its step."""

    before: int
    after: int
    stride: int


@dataclass(frozen=True)
class Shapes:
    """Shapes of an operation's inputs that depend on the data, and its output, with batch and channels."""

    inputs: list[torch.Size]
    output: torch.Size


def merge(views: Sequence[View]) -> View:
    """Return the view of a value that combines others position by position."""
    first = views[0]
    if any(view.whole or view.stride != first.stride for view in views):
        return first.widened()
    return replace(
        first,
        low=tuple(map(min, zip(*(view.low for view in views), strict=True))),
        high=tuple(map(max, zip(*(view.high for view in views), strict=True))),
    )


def _per_axis(value: Any, axes: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return [int(v) for v in values] * (axes if len(values) == 1 else 1)


def _windows(axes: int, kernel: Any, stride: Any, padding: Any, dilation: Any) -> list[Window]:
    kernels, dilations = _per_axis(kernel, axes), _per_axis(dilation, axes)
    reach = [d * (k - 1) for k, d in zip(kernels, dilations, strict=True)]
    strides = kernels if stride is None or stride == [] else _per_axis(stride, axes)
    if padding == "same":
        before = [r // 2 for r in reach]
    else:
        before = _per_axis(0 if padding == "valid" else padding, axes)
    return [Window(p, r - p, s) for p, r, s in zip(before, reach, strides, strict=True)]


def _convolution(module: Any, view: View, shapes: Shapes) -> View:
    # Circular padding brings in the far end of the volume.
    if module.padding_mode == "circular":
        return view.widened()
    axes = len(module.kernel_size)
    return view.through(_windows(axes, module.kernel_size, module.stride, module.padding, module.dilation))


def _pooling(module: Any, view: View, shapes: Shapes) -> View:
    dilation = getattr(module, "dilation", 1)
    axes = len(shapes.output) - 2
    return view.through(_windows(axes, module.kernel_size, module.stride, module.padding, dilation))


def _adaptive_pooling(_: Any, view: View, shapes: Shapes) -> View:
    sizes = list(zip(shapes.inputs[0][2:], shapes.output[2:], strict=True))
    if all(after == 1 for _, after in sizes) or any(before % after for before, after in sizes):
        return view.widened()
    return view.through([Window(0, before // after - 1, before // after) for before, after in sizes])


def _batch_norm(module: Any, view: View, shapes: Shapes) -> View:
    # Without running statistics it normalizes by the volume at hand, in eval mode too.
    return view if module.running_mean is not None else view.widened()


def _pointwise(_: Any, view: View, shapes: Shapes) -> View:
    return view


def _over_channels(module: Any, view: View, shapes: Shapes) -> View:
    return view if module.dim in (1, 1 - len(shapes.output)) else view.widened()


def _per_position(_: Any, view: View, shapes: Shapes) -> View:
    """Flattening, reshaping and linear maps: local only where each input has a single position."""
    return view if math.prod(shapes.inputs[0][2:]) == 1 else view.widened()


def _linear(_: Any, view: View, shapes: Shapes) -> View:
    return view if len(shapes.inputs[0]) == 2 else view.widened()


def follow_upsampling(view: View, windows: Sequence[Window]) -> View:
    """Return the view behind an operation that makes a finer grid.

    Parameters
    ----------
    view : View
        Before it.
    windows : sequence of Window
        For each axis how many new positions the last one that sees an old one lies behind it (`before`) and
        the first one before it (`after`), and how many new positions there are per old one (`stride`).

    Returns
    -------
    View
        Sees everything where the old positions do not lie that many input voxels apart.
    """
    if len(windows) != len(view.stride) or any(
        s % w.stride for s, w in zip(view.stride, windows, strict=True)
    ):
        return view.widened()
    stride = tuple(s // w.stride for s, w in zip(view.stride, windows, strict=True))
    return replace(
        view,
        stride=stride,
        low=tuple(lo - s * w.before for lo, s, w in zip(view.low, stride, windows, strict=True)),
        high=tuple(hi + s * w.after for hi, s, w in zip(view.high, stride, windows, strict=True)),
    )


def _transposed_convolution(module: Any, view: View, shapes: Shapes) -> View:
    figures = zip(module.kernel_size, module.stride, module.padding, module.dilation, strict=True)
    # Position i of the input reaches those from i * stride - padding on, as far as the kernel goes.
    return follow_upsampling(view, [Window(d * (k - 1) - p, p, s) for k, s, p, d in figures])


@runtime_checkable
class Follows(Protocol):
    """A module that is not torch's own and says what a position of its output sees."""

    def follow(self, views: Sequence[View], shapes: Shapes) -> View:
        """Return the view behind it; see `follow_module`."""


ModuleRule = Callable[[Any, View, Shapes], View]

MODULE_RULES: list[tuple[tuple[type[nn.Module], ...], ModuleRule]] = [
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed_convolution),
    ((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), _pooling),
    ((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), _adaptive_pooling),
    ((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), _adaptive_pooling),
    ((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _batch_norm),
    (
        (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
        _pointwise,
    ),
    ((nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid), _pointwise),
    ((nn.Threshold,), _pointwise),
    ((nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout), _pointwise),
    ((nn.Softmax, nn.LogSoftmax), _over_channels),
    ((nn.Flatten,), _per_position),
    ((nn.Linear,), _linear),
]

POINTWISE: frozenset[Any] = frozenset(
    {
        torch.relu, torch.sigmoid, torch.tanh, torch.abs, torch.exp, torch.sqrt, operator.neg,
        functional.relu, functional.relu6, functional.leaky_relu, functional.elu, functional.selu,
        functional.gelu, functional.silu, functional.mish, functional.softplus, functional.hardtanh,
        functional.hardswish, functional.sigmoid, functional.tanh, functional.dropout, functional.dropout3d,
        "relu", "relu_", "sigmoid", "tanh", "abs", "contiguous", "clone", "float", "clamp",
    }
)  # fmt: skip
COMBINING: frozenset[Any] = frozenset(
    {
        torch.add, torch.sub, torch.mul, torch.div, torch.maximum, torch.minimum,
        operator.add, operator.sub, operator.mul, operator.truediv, operator.iadd, operator.imul,
        "add", "add_", "sub", "mul", "mul_", "div",
    }
)  # fmt: skip
RESHAPING: frozenset[Any] = frozenset(
    {torch.flatten, torch.reshape, torch.squeeze, "flatten", "reshape", "view", "squeeze"}
)


def follow_module(module: nn.Module, views: Sequence[View], shapes: Shapes) -> View:
    """Return the view behind a leaf module.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode.
    views : sequence of View
        Of the inputs that depend on the data.
    shapes : Shapes
        Of the same inputs and the output.

    Returns
    -------
    View
        Sees everything if there is no rule for the module's type.
    """
    if isinstance(module, Follows):
        # It says so itself: a whole input can still be no data, as a shape, or leave a position local.
        return module.follow(views, shapes)
    if views[0].whole or len(views) > 1:
        return views[0].widened()
    # Exact types only: a subclass may compute something else.
    for types, rule in MODULE_RULES:
        if type(module) in types:
            return rule(module, views[0], shapes)
    return views[0].widened()


def follow_function(node: fx.Node, views: Sequence[View], shapes: Shapes) -> View:
    """Return the view behind a function or a tensor's method, see `follow_module`.

    Parameters
    ----------
    node : torch.fx.Node
        The call.
    views, shapes
        As in `follow_module`.

    Returns
    -------
    View
        Sees everything if there is no rule for the call.
    """
    merged = merge(views)
    same_rank = all(len(shape) == len(shapes.output) for shape in shapes.inputs)
    if node.op == "output" or merged.whole:
        return merged
    if node.target in POINTWISE:
        return merged
    if node.target in COMBINING and same_rank and _same_grid(shapes):
        return merged
    if node.target in (torch.cat, torch.concat) and same_rank and _same_grid(shapes):
        # With equal grids before and after, the channels are what grew (or the batch, which mixes nothing).
        return merged
    if node.target in RESHAPING:
        return _per_position(None, merged, shapes)
    return merged.widened()


def _same_grid(shapes: Shapes) -> bool:
    return all(shape[2:] == shapes.output[2:] for shape in shapes.inputs)
