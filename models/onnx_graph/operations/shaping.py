"""Operators that move values without changing them, and those that change their type."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.onnx_graph.graph import Node, Refused
from models.onnx_graph.operations.base import Local, numbers, operator
from models.onnx_graph.operations.reach import elementwise, flattened

# By ONNX's numbers. Whatever floats is float32, for so are a bundle's weights.
_FLOATING = {1: "float", 10: "float16", 11: "double", 16: "bfloat16"}
_WHOLE = {
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    4: torch.uint16,
    12: torch.uint32,
    13: torch.uint64,
}


@operator("Identity", becomes="`nn.Identity`")
def identity(node: Node) -> nn.Module:
    """Build nothing."""
    return nn.Identity()


@operator("Dropout", becomes="`nn.Identity`", numbers=(1, 2))
def dropout(node: Node) -> Any:
    """Build nothing: in evaluation nothing is dropped."""
    training = node.constant(2)
    if node.has(2) and (training is None or bool(training)):
        raise Refused("training_mode is set or not constant; export the network in evaluation mode")
    if node.output:
        return lambda x, *_: [x, torch.ones_like(x, dtype=torch.bool)]
    return nn.Identity()


@operator("Constant", becomes="a weight or a constant of the graph", smooth=False)
def constant(node: Node) -> Any:
    """Build a value that depends on nothing."""
    return lambda value: value


@operator("Cast", becomes="`Tensor.to`; between floating types nothing, for all are float32")
def cast(node: Node) -> Local:
    """Build a change of type."""
    code = node.whole("to")
    if code not in _FLOATING and code not in _WHOLE:
        raise Refused(f"type {code} is not covered; networks compute in float32")
    dtype = torch.float32 if code in _FLOATING else _WHOLE[code]

    def compute(x: Tensor) -> Tensor:
        return x if x.is_floating_point() and dtype.is_floating_point else x.to(dtype)

    return Local(compute, elementwise)


@operator("CastLike", becomes="`Tensor.to`")
def cast_like(node: Node) -> Any:
    """Build a change to another value's type."""

    def compute(x: Tensor, like: Tensor) -> Tensor:
        return x if x.is_floating_point() and like.is_floating_point() else x.to(like.dtype)

    return compute


@operator("Reshape", becomes="`Tensor.reshape`", numbers=(1,))
def reshape(node: Node) -> Local:
    """Build another shape; 0 keeps a size, -1 takes what is left."""
    literal = node.flag("allowzero")

    def compute(x: Tensor, shape: Tensor) -> Tensor:
        sizes = [x.shape[i] if n == 0 and not literal else n for i, n in enumerate(numbers(shape))]
        return x.reshape(sizes)

    return Local(compute, flattened)


@operator("Flatten", becomes="`nn.Flatten`; `Tensor.reshape` where the axis is not 1")
def flatten(node: Node) -> Any:
    """Build a matrix out of the axes before the given one and those from it on."""
    axis = node.whole("axis", 1)
    if axis == 1 and (node.rank or 0) > 1:
        return nn.Flatten()

    def compute(x: Tensor) -> Tensor:
        rows = x.shape[:axis].numel() if axis >= 0 else x.shape[: x.ndim + axis].numel()
        return x.reshape(rows, -1 if x.numel() else x.shape[axis:].numel())

    return Local(compute, flattened)


def _axes(node: Node, given: Tensor | None) -> list[int] | None:
    """Return the axes: an attribute before opset 13, an input since."""
    return numbers(given) if given is not None else node.wholes("axes", []) or None


@operator("Squeeze", becomes="`Tensor.squeeze`", numbers=(1,))
def squeeze(node: Node) -> Local:
    """Build a removal of axes of size 1."""

    def compute(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = _axes(node, axes)
        return x.squeeze() if chosen is None else x.squeeze(chosen)

    return Local(compute, flattened)


@operator("Unsqueeze", becomes="`Tensor.unsqueeze`", numbers=(1,))
def unsqueeze(node: Node) -> Local:
    """Build an insertion of axes of size 1."""

    def compute(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = _axes(node, axes) or []
        rank = x.ndim + len(chosen)
        for axis in sorted(axis % rank for axis in chosen):
            x = x.unsqueeze(axis)
        return x

    return Local(compute, flattened)


@operator("Transpose", becomes="`Tensor.permute`")
def transpose(node: Node) -> Local:
    """Build another order of the axes."""
    order = node.wholes("perm", [])
    return Local(lambda x: x.permute(order or list(range(x.ndim))[::-1]), flattened)


@operator("Expand", becomes="`Tensor.expand`", numbers=(1,))
def expand(node: Node) -> Local:
    """Build a repetition along axes of size 1."""

    def compute(x: Tensor, shape: Tensor) -> Tensor:
        return x.expand(torch.broadcast_shapes(x.shape, numbers(shape)))

    return Local(compute, elementwise)


@operator("Tile", becomes="`Tensor.repeat`", numbers=(1,))
def tile(node: Node) -> Local:
    """Build a repetition along any axis."""
    return Local(lambda x, repeats: x.repeat(numbers(repeats)), elementwise)


@operator("Concat", becomes="`torch.cat`")
def concat(node: Node) -> Local:
    """Build a join along an axis."""
    axis = node.whole("axis")
    return Local(lambda *values: torch.cat(values, axis), elementwise)


@operator("Split", becomes="`Tensor.narrow`, a layer per part", numbers=(1,))
def split(node: Node) -> Local:
    """Build one of the parts of a value along an axis."""
    axis, given = node.whole("axis", 0), node.wholes("split", [])
    count = node.whole("num_outputs", len(node.outputs)) or 1

    def compute(x: Tensor, sizes: Tensor | None = None) -> Tensor:
        each = -(-x.shape[axis] // count)
        parts = numbers(sizes) or given or [each] * (count - 1) + [x.shape[axis] - each * (count - 1)]
        return x.narrow(axis, sum(parts[: node.output]), parts[node.output])

    return Local(compute, elementwise)


@operator("DepthToSpace", becomes="`Tensor.reshape`, `Tensor.permute`")
def depth_to_space(node: Node) -> Any:
    """Build a move of channels into blocks of pixels."""
    edge, mode = node.whole("blocksize"), node.text("mode", "DCR")
    if edge < 1 or mode not in ("DCR", "CRD"):
        raise Refused(f"needs a blocksize of at least 1 and mode DCR or CRD, got {edge} and {mode!r:.40}")

    def compute(x: Tensor) -> Tensor:
        batch, channels, rows, columns = x.shape
        rest = channels // edge**2
        if mode == "DCR":
            parts = x.reshape(batch, edge, edge, rest, rows, columns).permute(0, 3, 4, 1, 5, 2)
        else:
            parts = x.reshape(batch, rest, edge, edge, rows, columns).permute(0, 1, 4, 2, 5, 3)
        return parts.reshape(batch, rest, rows * edge, columns * edge)

    return compute


@operator("SpaceToDepth", becomes="`Tensor.reshape`, `Tensor.permute`")
def space_to_depth(node: Node) -> Any:
    """Build a move of blocks of pixels into channels."""
    edge, mode = node.whole("blocksize"), node.text("mode", "DCR")
    if edge < 1 or mode not in ("DCR", "CRD"):
        raise Refused(f"needs a blocksize of at least 1 and mode DCR or CRD, got {edge} and {mode!r:.40}")

    def compute(x: Tensor) -> Tensor:
        batch, channels, rows, columns = x.shape
        parts = x.reshape(batch, channels, rows // edge, edge, columns // edge, edge)
        order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
        return parts.permute(order).reshape(batch, channels * edge**2, rows // edge, columns // edge)

    return compute
