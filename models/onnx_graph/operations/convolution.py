"""Convolution and its transpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from models.onnx_graph.graph import Node, Refused
from models.onnx_graph.operations.base import Leaf, operator, plain_data
from models.onnx_graph.operations.windows import WindowPadding, Windows, pad

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSES = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_FUNCTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSE_FUNCTIONS = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def _kernel(node: Node) -> list[int] | None:
    weight = node.weight(1)
    return list(weight.shape[2:]) if weight else None


def _fills(node: Node) -> dict[str, Any]:
    fills: dict[str, Any] = {"weight": lambda w: w[1]}
    if node.has(2):
        fills["bias"] = lambda w: w[2]
    return fills


@operator(
    "Conv", becomes="`nn.Conv1d`, `nn.Conv2d`, `nn.Conv3d`; behind a padding of its own where that is uneven"
)
def convolution(node: Node) -> Any:
    """Build a convolution."""
    weight, group = node.weight(1), node.whole("group", 1)
    if weight is None or not plain_data(node, 1, 2):
        return _convolution_of(node, group)
    windows = Windows.of(node, _kernel(node))
    if list(weight.shape[2:]) != list(windows.kernel) or group < 1 or weight.shape[0] % group:
        raise Refused(f"weights of shape {weight.shape} do not fit kernel {windows.kernel} in {group} groups")
    module = _CONVOLUTIONS[windows.axes](
        weight.shape[1] * group,
        weight.shape[0],
        windows.kernel,  # type: ignore[arg-type]
        stride=windows.stride,  # type: ignore[arg-type]
        padding=windows.before if windows.even else 0,  # type: ignore[arg-type]
        dilation=windows.dilation,  # type: ignore[arg-type]
        groups=group,
        bias=node.has(2),
    )
    return Leaf(module, _fills(node), None if windows.even else WindowPadding(windows))


def _convolution_of(node: Node, group: int) -> Any:
    """Convolve with kernels that are computed."""

    def compute(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        windows = Windows.of(node, weight.shape[2:])
        x = pad(x, *windows.pads(x.shape[2:]))
        function = _FUNCTIONS[windows.axes]
        return function(x, weight, bias, windows.stride, 0, windows.dilation, group)

    return compute


@operator("ConvTranspose", becomes="`nn.ConvTranspose1d`, `nn.ConvTranspose2d`, `nn.ConvTranspose3d`; "
          "`torch.conv_transpose*` and a crop where padding is uneven or `output_shape` given")  # fmt: skip
def transposed_convolution(node: Node) -> Any:
    """Build a transposed convolution."""
    weight, group = node.weight(1), node.whole("group", 1)
    shape = node.wholes("output_shape", [])
    if weight is None or shape or not plain_data(node, 1, 2):
        return _transposed_of(node, group, shape)
    windows = Windows.of(node, _kernel(node))
    extra = node.wholes("output_padding", [0] * windows.axes)
    simple = all(more < max(s, d) for more, s, d in zip(extra, windows.stride, windows.dilation, strict=True))
    if not windows.even or windows.auto != "NOTSET" or not simple:
        return _transposed_of(node, group, shape)
    module = _TRANSPOSES[windows.axes](
        weight.shape[0],
        weight.shape[1] * group,
        windows.kernel,  # type: ignore[arg-type]
        stride=windows.stride,  # type: ignore[arg-type]
        padding=windows.before,  # type: ignore[arg-type]
        output_padding=tuple(extra),  # type: ignore[arg-type]
        groups=group,
        bias=node.has(2),
        dilation=windows.dilation,  # type: ignore[arg-type]
    )
    return Leaf(module, _fills(node))


def _transposed_of(node: Node, group: int, shape: Sequence[int]) -> Any:
    """Compute everything that the kernels reach, then crop or extend it."""

    def compute(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        windows = Windows.of(node, weight.shape[2:])
        extra = node.wholes("output_padding", [0] * windows.axes)
        function = _TRANSPOSE_FUNCTIONS[windows.axes]
        out = function(x, weight, None, windows.stride, 0, 0, group, windows.dilation)
        before, after = _crop(windows, x.shape[2:], extra, shape)
        out = pad(out, [-n for n in before], [more - n for n, more in zip(after, extra, strict=True)])
        return out if bias is None else out + bias.reshape(-1, *[1] * windows.axes)

    return compute


def _crop(
    windows: Windows, inputs: Sequence[int], extra: Sequence[int], shape: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return ONNX's padding, which takes planes away from the output."""
    if (windows.auto == "NOTSET" and not shape) or windows.auto == "VALID":
        return list(windows.before), list(windows.after)
    figures = zip(inputs, windows.kernel, windows.stride, windows.dilation, extra, strict=True)
    wanted = shape[-len(inputs) :] if shape else [n * s for n, s in zip(inputs, windows.stride, strict=True)]
    before, after = [], []
    for (n, kernel, stride, dilation, more), size in zip(figures, wanted, strict=True):
        total = stride * (n - 1) + more + (kernel - 1) * dilation + 1 - size
        small, large = total // 2, total - total // 2
        first, last = (small, large) if windows.auto == "SAME_UPPER" else (large, small)
        before.append(first)
        after.append(last)
    return before, after
