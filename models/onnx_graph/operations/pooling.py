"""Pooling over windows and over everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.onnx_graph.graph import Node, Refused
from models.onnx_graph.operations.base import Leaf, Local, operator, refuse_output, spatial
from models.onnx_graph.operations.windows import WindowPadding, Windows, pad
from models.views import Shapes, View, Window

_MAX = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVERAGE = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
_GLOBAL_AVERAGE = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
_GLOBAL_MAX = {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d}
_CONVOLVE: dict[int, Any] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


@operator("MaxPool", becomes="`nn.MaxPool1d`, `nn.MaxPool2d`, `nn.MaxPool3d`; "
          "behind a padding of its own where that is uneven or wide")  # fmt: skip
def max_pool(node: Node) -> Leaf:
    """Build a max pooling."""
    refuse_output(node, 1)
    windows = Windows.of(node)
    narrow = all(pad <= kernel // 2 for pad, kernel in zip(windows.before, windows.kernel, strict=True))
    inside = windows.even and narrow
    if windows.ceil and not inside:
        raise Refused("ceil_mode with uneven or wide pads is not covered; pad in a node of its own")
    module = _MAX[windows.axes](
        windows.kernel,
        stride=windows.stride,
        padding=windows.before if inside else 0,
        dilation=windows.dilation,
        ceil_mode=windows.ceil,
    )
    return Leaf(module, before=None if inside else WindowPadding(windows, lowest=True))


@operator("AveragePool", becomes="`nn.AvgPool1d`, `nn.AvgPool2d`, `nn.AvgPool3d`; "
          "sums over counts, by `torch.conv*`, where padding or dilation is not theirs")  # fmt: skip
def average_pool(node: Node) -> Any:
    """Build an average pooling."""
    windows, padding_counts = Windows.of(node), node.flag("count_include_pad")
    narrow = all(pad <= kernel // 2 for pad, kernel in zip(windows.before, windows.kernel, strict=True))
    if windows.even and narrow and set(windows.dilation) == {1}:
        return _AVERAGE[windows.axes](
            windows.kernel,
            stride=windows.stride,
            padding=windows.before,
            ceil_mode=windows.ceil,
            count_include_pad=padding_counts,
        )

    def compute(x: Tensor) -> Tensor:
        ones = torch.ones_like(x[:1, :1])
        if padding_counts:
            # The windows of a padded volume of ones count what is padded, but not what ceil_mode adds.
            ones = pad(ones, *windows.pads(x.shape[2:]), 1)
            return _sums(x, windows) / _sums(ones, windows, padded=True)
        return _sums(x, windows) / _sums(ones, windows)

    return Local(compute, _windowed)


def _sums(x: Tensor, windows: Windows, padded: bool = False) -> Tensor:
    """Sum over each window; `padded` tells that the padding is there already."""
    before, after = windows.pads(x.shape[2:])
    shape = list(x.shape[2:])
    if padded:
        shape = [n - first - last for n, first, last in zip(shape, before, after, strict=True)]
    counts = windows.positions(shape)
    # Room for the last window, which may reach further than the padding.
    ends = []
    for axis, count in enumerate(counts):
        reach = windows.dilation[axis] * (windows.kernel[axis] - 1) + 1
        ends.append((count - 1) * windows.stride[axis] + reach - shape[axis] - before[axis])
    if padded:
        before, ends = [0] * windows.axes, [end - last for end, last in zip(ends, after, strict=True)]
    flat = pad(x, before, ends).flatten(0, 1).unsqueeze(1)
    kernel = torch.ones(1, 1, *windows.kernel, dtype=x.dtype, device=x.device)
    sums: Tensor = _CONVOLVE[windows.axes](flat, kernel, None, windows.stride, 0, windows.dilation)
    return sums.reshape(*x.shape[:2], *sums.shape[2:])


def _windowed(node: Node, views: Sequence[View], shapes: Shapes) -> View:
    windows = Windows.of(node)
    before, _ = windows.pads(shapes.inputs[0][2:])
    figures = zip(before, windows.kernel, windows.stride, windows.dilation, strict=True)
    return views[0].through([Window(b, d * (k - 1) - b, s) for b, k, s, d in figures])


@operator("LpPool", becomes="roots of sums of powers, by `torch.conv*`")
def lp_pool(node: Node) -> Local:
    """Build a pooling by the p-norm."""
    windows, p = Windows.of(node), node.whole("p", 2)
    return Local(lambda x: _sums(x.abs() ** p, windows) ** (1 / p), _windowed)


@operator(
    "GlobalAveragePool", becomes="`nn.AdaptiveAvgPool1d`, `nn.AdaptiveAvgPool2d`, `nn.AdaptiveAvgPool3d`"
)
def global_average_pool(node: Node) -> Any:
    """Build an average over all positions."""
    axes = spatial(node)
    return _GLOBAL_AVERAGE[axes](1) if axes else lambda x: x.mean(list(range(2, x.ndim)), keepdim=True)


@operator("GlobalMaxPool", becomes="`nn.AdaptiveMaxPool1d`, `nn.AdaptiveMaxPool2d`, `nn.AdaptiveMaxPool3d`")
def global_max_pool(node: Node) -> Any:
    """Build a maximum over all positions."""
    axes = spatial(node)
    return _GLOBAL_MAX[axes](1) if axes else lambda x: x.amax(list(range(2, x.ndim)), keepdim=True)
