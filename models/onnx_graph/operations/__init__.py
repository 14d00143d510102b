"""The table of ONNX's operators and what each one is in torch.

Each module enters its own; the table's content is in ``docs/reference/operators.md``.
"""

from models.onnx_graph.operations import (
    activation,
    arithmetic,
    convolution,
    indexing,
    normalization,
    pooling,
    reduction,
    resizing,
    shaping,
    sizes,
)
from models.onnx_graph.operations.base import OPERATORS, Leaf, Local, Operation, Operator

__all__ = [
    "OPERATORS",
    "Leaf",
    "Local",
    "Operation",
    "Operator",
    "activation",
    "arithmetic",
    "convolution",
    "indexing",
    "normalization",
    "pooling",
    "reduction",
    "resizing",
    "shaping",
    "sizes",
]
