"""Models that were exported for a batch of one, made fit for any batch.

Exporters write sizes of the example they were given into the graph. Where such a size is that of the batch,
it is left open instead. For a batch of one nothing changes; where the first axis is not the batch, nothing
does either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from models.onnx_graph.graph import Node

Shape = Sequence[int | None]


def freed(node: Node, shape: Shape | None) -> Node:
    """Return a node without the size of a batch of one.

    Parameters
    ----------
    node : Node
        Any.
    shape : sequence of int or None
        Of its first input, None where a size or all of it is not known.

    Returns
    -------
    Node
        The node itself if there is nothing to free.
    """
    if not shape or shape[0] != 1:
        return node
    if node.op == "Reshape":
        return _freed_reshape(node)
    if node.op == "Resize":
        return _freed_resize(node, shape)
    return node


def _freed_reshape(node: Node) -> Node:
    """Keep the first size, whatever it is, instead of writing 1."""
    sizes = node.constant(1)
    if sizes is None or not sizes.numel() or int(sizes[0]) != 1 or node.flag("allowzero"):
        return node
    kept = sizes.clone()
    kept[0] = 0
    return replace(node, inputs=(node.inputs[0], kept))


def _freed_resize(node: Node, shape: Shape) -> Node:
    """Name the axes that change, and their sizes alone."""
    sizes = node.constant(3)
    if sizes is None or "axes" in node.attributes or sizes.numel() != len(shape):
        return node
    wanted = sizes.tolist()
    if node.text("keep_aspect_ratio_policy", "stretch") != "stretch" or node.constant(1) is not None:
        return node
    axes = [axis for axis, size in enumerate(wanted) if size != shape[axis]]
    if not axes or 0 in axes or node.text("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return node
    changed = torch.tensor([wanted[axis] for axis in axes], dtype=sizes.dtype)
    attributes = {**node.attributes, "axes": axes}
    return replace(node, inputs=(*node.inputs[:3], changed), attributes=attributes)
