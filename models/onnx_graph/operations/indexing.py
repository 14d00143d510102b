"""Parts of values, and what lies around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from models.onnx_graph.graph import Node, Refused
from models.onnx_graph.operations.base import Local, numbers, operator
from models.onnx_graph.operations.reach import elementwise, padded, sliced
from models.onnx_graph.operations.windows import pad
from models.views import Shapes, View


def _ranges(shape: Sequence[int], *figures: Tensor | None) -> dict[int, range]:
    """Return the planes that a slice takes along each of its axes."""
    starts, ends, axes, steps = (numbers(one) for one in figures)
    axes, steps = axes or list(range(len(starts))), steps or [1] * len(starts)
    found = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = shape[axis]
        # ONNX clamps where Python does; -1 is the last plane for both.
        found[axis % len(shape)] = range(*slice(start, end, step).indices(size))
    return found


@operator(
    "Slice", becomes="`Tensor[...]`, `Tensor.index_select` where a step is negative", numbers=(1, 2, 3, 4)
)
def slices(node: Node) -> Local:
    """Build planes from a start to an end in steps."""

    def compute(x: Tensor, *figures: Tensor | None) -> Tensor:
        for axis, planes in _ranges(x.shape, *figures, *[None] * (4 - len(figures))).items():
            if planes.step < 0 or not planes:
                places = torch.arange(len(planes), device=x.device) * planes.step + planes.start
                x = x.index_select(axis, places)
            else:
                x = x[(slice(None),) * axis + (slice(planes.start, planes.stop, planes.step),)]
        return x

    return Local(compute, _follow_slice)


def _follow_slice(node: Node, views: Sequence[View], shapes: Shapes) -> View:
    figures = [node.constant(index) for index in range(1, 5)]
    known = all(figure is not None or not node.has(index) for index, figure in enumerate(figures, start=1))
    whole = range(1)
    if not known or len(shapes.output) != len(views[0].stride) + 2:
        return views[0].widened()
    ranges = _ranges(shapes.inputs[0], *figures)
    spatial = [ranges.get(axis, whole) for axis in range(2, len(shapes.output))]
    if any(planes.step < 0 for planes in spatial):
        return views[0].widened()
    return sliced([planes.start for planes in spatial], [planes.step for planes in spatial], views[0])


@operator("Gather", becomes="`Tensor.index_select`")
def gather(node: Node) -> Local:
    """Build planes by their indices along an axis."""
    axis = node.whole("axis", 0)

    def compute(x: Tensor, indices: Tensor) -> Tensor:
        along, size = axis % x.ndim, x.shape[axis]
        places = torch.where(indices < 0, indices + size, indices).long().to(x.device)
        chosen = x.index_select(along, places.flatten())
        return chosen.reshape([*x.shape[:along], *indices.shape, *x.shape[along + 1 :]])

    def follow(node: Node, views: Sequence[View], shapes: Shapes) -> View:
        # Taken along a spatial axis, positions have moved.
        return elementwise(node, views, shapes) if axis in (0, 1) else views[0].widened()

    return Local(compute, follow)


@operator("GatherElements", becomes="`torch.gather`")
def gather_elements(node: Node) -> Any:
    """Build single elements by their indices along an axis."""
    axis = node.whole("axis", 0)

    def compute(x: Tensor, indices: Tensor) -> Tensor:
        return x.gather(axis, torch.where(indices < 0, indices + x.shape[axis], indices).long())

    return compute


def _ends(node: Node, rank: int, pads: Tensor | None, axes: Tensor | None) -> tuple[list[int], list[int]]:
    """Return the planes to put before and after, for every axis."""
    figures = numbers(pads)
    chosen = [axis % rank for axis in numbers(axes)] if axes is not None else list(range(rank))
    if len(figures) != 2 * len(chosen):
        raise ValueError(f"Pad node {node.name!r}: {len(figures)} pads for {len(chosen)} axes")
    before, after = [0] * rank, [0] * rank
    for index, axis in enumerate(chosen):
        before[axis], after[axis] = figures[index], figures[index + len(chosen)]
    return before, after


def _places(size: int, before: int, after: int, mode: str, device: torch.device) -> Tensor:
    """Return which plane stands at each place, for paddings that repeat planes."""
    places = torch.arange(-before, size + after, device=device)
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap":
        return places % size
    period = max(1, 2 * (size - 1))
    places = places % period
    return torch.where(places < size, places, period - places)


@operator("Pad", becomes="`torch.nn.functional.pad`; `Tensor.index_select` where planes are repeated",
          numbers=(1, 2, 3))  # fmt: skip
def padding(node: Node) -> Local:
    """Build planes around a value: a number, or its own planes again."""
    mode = node.text("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise Refused(f"mode {mode!r:.40} is not covered")

    def compute(x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
        before, after = _ends(node, x.ndim, pads, axes)
        if mode == "constant":
            return pad(x, before, after, numbers(value)[0] if numbers(value) else 0)
        for axis, (first, last) in enumerate(zip(before, after, strict=True)):
            if first or last:
                x = x.index_select(axis, _places(x.shape[axis], first, last, mode, x.device))
        return x

    return Local(compute, _follow_padding)


def _follow_padding(node: Node, views: Sequence[View], shapes: Shapes) -> View:
    pads, axes = node.constant(1), node.constant(3)
    wraps = node.text("mode", "constant") == "wrap"
    if pads is None or wraps or len(shapes.output) != len(views[0].stride) + 2:
        return views[0].widened()
    before, _ = _ends(node, len(shapes.output), pads, axes)
    return padded(before[2:], views[0])
