"""An ONNX graph, from which networks are built; `models.onnx_graph.written` keeps it as JSON.

Whoever reads a bundle needs no onnx package. Weights are not in the graph; a node says of each input whether
it is another node's value, a weight of a given shape, or a small constant that is written out, such as the
axes of a reduction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

FIRST_OPSET, LAST_OPSET = 11, 23
MAX_CONSTANT = 4096
MAX_NODES = 20_000
MAX_RANK = 8
MAX_PARTS = 32
"""Most parts of a layer's name: modules inside modules, which Python goes through by calling itself."""


class Refused(ValueError):
    """An operator cannot be built as a node has it; the message says why."""


@dataclass(frozen=True)
class Weight:
    """An input that the state dict holds."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Value:
    """An input that is computed.

    Attributes
    ----------
    name : str
        The ONNX name of the value.
    sized : bool
        Whether it is made of shapes alone and lies on the CPU, while the node computes with data that may
        lie elsewhere.
    """

    name: str
    sized: bool = False


Input = Value | Weight | torch.Tensor | None
"""A tensor is a constant, on the CPU wherever the network runs; None an optional input that is left out."""


@dataclass(frozen=True)
class Node:
    """One ONNX node.

    Attributes
    ----------
    op, name : str
        The operator and the node's own name, which may be empty.
    opset : int
        The version of ONNX's operators that the model was written for.
    inputs : tuple of Value, Weight, torch.Tensor or None
        See `Input`.
    outputs : tuple of str
        Names of the values it computes; empty where nobody reads one.
    layers : tuple of str
        What the module that computes each output is called.
    attributes : mapping
        As ONNX writes them; tensors are torch tensors.
    rank : int or None
        Dimensions of the first input, where they are known.
    output : int
        Which of the outputs is to be built.
    """

    op: str
    name: str
    opset: int
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    layers: tuple[str, ...]
    attributes: Mapping[str, Any]
    rank: int | None = None
    output: int = 0

    def input(self, index: int) -> Input:
        """Return an input, None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def has(self, index: int) -> bool:
        """Tell whether an optional input is given."""
        return self.input(index) is not None

    def weight(self, index: int) -> Weight | None:
        """Return an input if the state dict holds it."""
        found = self.input(index)
        return found if isinstance(found, Weight) else None

    def constant(self, index: int) -> torch.Tensor | None:
        """Return an input if it is written out in the graph."""
        found = self.input(index)
        return found if isinstance(found, torch.Tensor) else None

    def whole(self, name: str, default: int | None = None) -> int:
        """Return an attribute that is a whole number."""
        return self._attribute(name, default, int)

    def wholes(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        """Return an attribute that is a list of whole numbers."""
        return self._listed(name, default, int)

    def number(self, name: str, default: float | None = None) -> float:
        """Return an attribute that is a number."""
        return float(self._attribute(name, default, (int, float)))

    def text(self, name: str, default: str | None = None) -> str:
        """Return an attribute that is a text."""
        return self._attribute(name, default, str)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return an attribute that is 0 or 1."""
        return bool(self.whole(name, int(default)))

    def building(self, output: int) -> Node:
        """Return this node, to build the given output."""
        return replace(self, output=output)

    def _attribute(self, name: str, default: Any, kind: Any) -> Any:
        value = self.attributes.get(name, default)
        if value is None:
            raise Refused(f"attribute {name!r} is missing")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise Refused(
                f"attribute {name!r} must be {getattr(kind, '__name__', 'a number')}, got {value!r:.60}"
            )
        return value

    def _listed(self, name: str, default: Any, kind: Any) -> list[Any]:
        values = self._attribute(name, default, (list, tuple))
        if not all(isinstance(value, kind) for value in values):
            raise Refused(f"attribute {name!r} must be a list of {kind.__name__}, got {values!r:.60}")
        return list(values)


@dataclass(frozen=True)
class Graph:
    """A whole graph.

    Attributes
    ----------
    inputs, outputs : tuple of str
        Names of values.
    nodes : tuple of Node
        In an order in which they can be computed.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
