"""Reductions over axes, which older opsets give as an attribute and newer ones as an input."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from models.onnx_graph.graph import Node
from models.onnx_graph.operations.base import numbers, operator
from models.onnx_graph.operations.windows import least

Reduce = Callable[[Tensor, list[int], bool], Tensor]


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _maximum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if 0 in [x.shape[axis] for axis in axes]:
        return _sum(x, axes, keep) + (False if x.dtype == torch.bool else least(x.dtype))
    return x.amax(axes, keepdim=keep)


def _minimum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if 0 in [x.shape[axis] for axis in axes]:
        greatest = torch.inf if x.is_floating_point() else torch.iinfo(x.dtype).max
        return _sum(x, axes, keep) + greatest
    return x.amin(axes, keepdim=keep)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keepdim=keep)
    total, count = _sum(x, axes, keep), max(1, x.numel())
    return torch.div(total, count // max(1, total.numel()), rounding_mode="trunc").to(x.dtype)


_REDUCTIONS: dict[str, tuple[Reduce, str]] = {
    "ReduceSum": (_sum, "torch.sum"),
    "ReduceMean": (_mean, "torch.mean"),
    "ReduceMax": (_maximum, "torch.amax"),
    "ReduceMin": (_minimum, "torch.amin"),
    "ReduceProd": (_product, "torch.prod"),
    "ReduceL1": (lambda x, axes, keep: _sum(x.abs(), axes, keep), "torch.sum"),
    "ReduceL2": (lambda x, axes, keep: _sum(x * x, axes, keep).sqrt(), "torch.sqrt"),
    "ReduceSumSquare": (lambda x, axes, keep: _sum(x * x, axes, keep), "torch.sum"),
    "ReduceLogSum": (lambda x, axes, keep: _sum(x, axes, keep).log(), "torch.log"),
    "ReduceLogSumExp": (lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep), "torch.logsumexp"),
}


def _reduction(node: Node, function: Reduce) -> Any:
    keep, idle = node.flag("keepdims", True), node.flag("noop_with_empty_axes")
    given = node.wholes("axes", [])

    def compute(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = numbers(axes) or given
        if not chosen and idle:
            return function(x.unsqueeze(0), [0], False)
        every = [axis % x.ndim for axis in chosen] if chosen else list(range(x.ndim))
        return function(x, every, keep) if x.ndim else function(x.unsqueeze(0), [0], False)

    return compute


for _name, (_function, _becomes) in _REDUCTIONS.items():
    operator(_name, becomes=f"`{_becomes}`", numbers=(1,))(partial(_reduction, function=_function))


def _place(node: Node, function: Callable[..., Tensor]) -> Any:
    axis, keep, last = node.whole("axis", 0), node.flag("keepdims", True), node.flag("select_last_index")

    def compute(x: Tensor) -> Tensor:
        if not last:
            return function(x, axis, keepdim=keep)
        return x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=keep)

    return compute


@operator("ArgMax", becomes="`torch.argmax`", smooth=False)
def place_of_largest(node: Node) -> Any:
    """Build the index of the largest value along an axis."""
    return _place(node, torch.argmax)


@operator("ArgMin", becomes="`torch.argmin`", smooth=False)
def place_of_smallest(node: Node) -> Any:
    """Build the index of the smallest value along an axis."""
    return _place(node, torch.argmin)
