"""How what a position sees of the input widens behind the functions of this package, see `models.views`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from models.onnx_graph.graph import Node
from models.views import Shapes, View, Window, follow_upsampling, merge


def elementwise(node: Node, views: Sequence[View], shapes: Shapes) -> View:
    """Position by position, of any number of inputs."""
    merged = merge(views)
    return merged if _same_grid(shapes) else merged.widened()


def constant(node: Node, views: Sequence[View], shapes: Shapes) -> View:
    """Nothing of the data, such as a shape."""
    return View.of_constant(len(views[0].stride))


def flattened(node: Node, views: Sequence[View], shapes: Shapes) -> View:
    """Other axes: local only where the input has a single position."""
    return views[0] if math.prod(shapes.inputs[0][2:]) == 1 else views[0].widened()


def padded(before: Sequence[int], view: View) -> View:
    """Planes were put before the first one, or taken away where negative; one number per spatial axis."""
    return view.through([Window(pad, -pad, 1) for pad in before])


def sliced(starts: Sequence[int], steps: Sequence[int], view: View) -> View:
    """Every `step`-th plane from `start` on; one number each per spatial axis."""
    return view.through([Window(-start, start, step) for start, step in zip(starts, steps, strict=True)])


def enlarged(factors: Sequence[int], neighbours: int, view: View) -> View:
    """Each position became `factor` ones along an axis, mixed with `neighbours` positions on either side."""
    mixed = view.through([Window(neighbours, neighbours, 1) if factor > 1 else Window(0, 0, 1)
                          for factor in factors])  # fmt: skip
    return follow_upsampling(mixed, [Window(factor - 1, 0, factor) for factor in factors])


def _same_grid(shapes: Shapes) -> bool:
    return all(shape[2:] == shapes.output[2:] and len(shape) == len(shapes.output) for shape in shapes.inputs)
