"""Shapes as values, and values of a given shape: whole numbers that lie on the CPU wherever the data are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.onnx_graph.graph import Node
from models.onnx_graph.operations.base import Local, numbers, operator
from models.onnx_graph.operations.reach import constant


@operator("Shape", becomes="`Tensor.shape`, on the CPU", smooth=False)
def shape(node: Node) -> Local:
    """Build a value's shape, or a part of it since opset 15."""
    start, end = node.whole("start", 0), node.attributes.get("end")
    return Local(lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64, device="cpu"), constant)


@operator("Size", becomes="`Tensor.numel`, on the CPU", smooth=False)
def size(node: Node) -> Local:
    """Build the number of a value's elements."""
    return Local(lambda x: torch.tensor(x.numel(), device="cpu"), constant)


@operator(
    "ConstantOfShape", becomes="`torch.full` and `Tensor.expand`, on the CPU", numbers=(0,), smooth=False
)
def constant_of_shape(node: Node) -> Any:
    """Build a value of a given shape that is one number throughout."""
    value = node.attributes.get("value", torch.zeros(1, device="cpu"))

    def compute(sizes: Tensor) -> Tensor:
        return torch.full((), value.item(), dtype=value.dtype, device="cpu").expand(numbers(sizes))

    return compute


@operator("Range", becomes="`torch.arange`, on the CPU", numbers=(0, 1, 2), smooth=False)
def arange(node: Node) -> Any:
    """Build numbers from a first one up to a limit in even steps."""

    def compute(start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
        figures = (start.item(), limit.item(), step.item())
        length = max(0, -int((figures[0] - figures[1]) // figures[2]))
        return figures[0] + torch.arange(length, device="cpu", dtype=start.dtype) * figures[2]

    return compute
