"""An ONNX graph as plain JSON: what a bundle keeps of it, and what networks are built from.

Whoever reads a bundle needs no onnx package. Weights are not in the graph; a node says of each input whether
it is another node's value, a weight of a given shape, or a small constant that is written out, such as the
axes of a reduction.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

FIRST_OPSET, LAST_OPSET = 11, 23
# A name becomes part of Python code that torch.fx writes, so what could end a string there is kept out.
LAYER_NAME = re.compile(r"[A-Za-z0-9_/:+@#$=<>,\[\]()-]+(\.[A-Za-z0-9_/:+@#$=<>,\[\]()-]+)*")
MAX_NODES = 100_000
MAX_CONSTANT = 4096
MAX_RANK = 8
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bool": torch.bool,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
}
_NUMBERS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


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


def write(graph: Graph) -> dict[str, Any]:
    """Return a graph as values that JSON can hold.

    Parameters
    ----------
    graph : Graph
        Any.

    Returns
    -------
    dict
        What `parse` reads.
    """
    nodes = []
    for node in graph.nodes:
        written: dict[str, Any] = {
            "op": node.op,
            "name": node.name,
            "opset": node.opset,
            "inputs": [_write_input(one) for one in node.inputs],
            "outputs": list(node.outputs),
            "layers": list(node.layers),
        }
        if node.attributes:
            attributes = node.attributes.items()
            written["attributes"] = {name: _write_attribute(value) for name, value in attributes}
        if node.rank is not None:
            written["rank"] = node.rank
        nodes.append(written)
    return {"inputs": list(graph.inputs), "outputs": list(graph.outputs), "nodes": nodes}


def _write_input(one: Input) -> Any:
    if isinstance(one, Value):
        return {"value": one.name, "sized": True} if one.sized else {"value": one.name}
    if isinstance(one, Weight):
        return {"weight": list(one.shape), "dtype": str(one.dtype).removeprefix("torch.")}
    return None if one is None else _write_tensor(one)


def _write_attribute(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return _write_tensor(value)
    if isinstance(value, float):
        return _finite(value)
    return [_write_attribute(one) for one in value] if isinstance(value, list) else value


def _write_tensor(tensor: torch.Tensor) -> dict[str, Any]:
    values = [_finite(value) for value in tensor.flatten().tolist()]
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch."), "values": values}


def _finite(value: Any) -> Any:
    """JSON knows no infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def parse(graph: Any) -> Graph:
    """Read a graph that `write` has written, trusting nothing.

    Parameters
    ----------
    graph : dict
        Parsed JSON.

    Returns
    -------
    Graph
        Every value is computed before it is used, and every layer's name can be given to a module.

    Raises
    ------
    ValueError
        If it is anything else; the node and the field are named.
    """
    whole = _Fields("graph", graph)
    inputs, outputs = whole.texts("inputs"), whole.texts("outputs")
    nodes = tuple(_parse_node(index, node) for index, node in enumerate(whole.list("nodes", MAX_NODES)))
    known = set(inputs)
    for node in nodes:
        for one in node.inputs:
            if isinstance(one, Value) and one.name not in known:
                raise ValueError(
                    f"graph: {node.op} node {node.name!r} reads {one.name!r} before it is computed"
                )
        fresh = [name for name in node.outputs if name]
        if not fresh or len(set(fresh)) < len(fresh) or known.intersection(fresh):
            raise ValueError(f"graph: {node.op} node {node.name!r} must write values of its own, got {fresh}")
        known.update(fresh)
    if not outputs or len(set(inputs)) < len(inputs) or not known.issuperset(outputs):
        raise ValueError(
            f"graph: inputs {inputs} and outputs {outputs} must be distinct values that there are"
        )
    _check_layers(nodes)
    return Graph(inputs, outputs, nodes)


def _check_layers(nodes: Sequence[Node]) -> None:
    names = [layer for node in nodes for layer, name in zip(node.layers, node.outputs, strict=True) if name]
    for name in names:
        if not LAYER_NAME.fullmatch(name):
            raise ValueError(f"graph: {name!r} cannot be the name of a layer")
    inside = {name[:end] for name in names for end, letter in enumerate(name) if letter == "."}
    twice = len(set(names)) < len(names)
    if twice or inside.intersection(names):
        raise ValueError("graph: layers must have names of their own, none inside another")


class _Fields:
    """The fields of a JSON object, each checked when it is read."""

    def __init__(self, where: str, found: Any) -> None:
        if not isinstance(found, dict):
            raise ValueError(f"{where}: must be an object, got {found!r:.60}")
        self._where, self._found = where, found

    def get(self, name: str, kind: type, default: Any = None) -> Any:
        value = self._found.get(name, default)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{self._where}: {name} must be {kind.__name__}, got {value!r:.60}")
        return value

    def list(self, name: str, most: int) -> list[Any]:
        values: list[Any] = self.get(name, list)
        if len(values) > most:
            raise ValueError(f"{self._where}: {name} has {len(values)} entries; at most {most} are accepted")
        return values

    def texts(self, name: str) -> tuple[str, ...]:
        values = self.list(name, MAX_NODES)
        if not all(isinstance(value, str) for value in values):
            raise ValueError(f"{self._where}: {name} must be texts, got {values!r:.60}")
        return tuple(values)


def _parse_node(index: int, found: Any) -> Node:
    where = f"graph: node {index}"
    fields = _Fields(where, found)
    outputs, layers = fields.texts("outputs"), fields.texts("layers")
    opset, rank = fields.get("opset", int), fields._found.get("rank")
    if len(outputs) != len(layers):
        raise ValueError(f"{where}: outputs and layers must be equally many")
    if not FIRST_OPSET <= opset <= LAST_OPSET:
        raise ValueError(f"{where}: opset must be {FIRST_OPSET} to {LAST_OPSET}, got {opset}")
    if rank is not None and not (isinstance(rank, int) and 0 <= rank <= MAX_RANK):
        raise ValueError(f"{where}: rank must be 0 to {MAX_RANK}, got {rank!r:.60}")
    attributes = {
        str(name): _parse_attribute(f"{where}: attribute {name!r}", value)
        for name, value in fields.get("attributes", dict, {}).items()
    }
    inputs = [
        _parse_input(f"{where}: input {i}", one) for i, one in enumerate(fields.list("inputs", MAX_NODES))
    ]
    op, name = fields.get("op", str), fields.get("name", str, "")
    return Node(op, name, opset, tuple(inputs), outputs, layers, attributes, rank)


def _parse_attribute(where: str, value: Any) -> Any:
    if isinstance(value, dict):
        return _parse_tensor(where, value)
    if isinstance(value, list):
        return [_parse_attribute(where, one) for one in value]
    if not isinstance(value, int | float | str):
        raise ValueError(f"{where} must be a number, a text or a tensor, got {value!r:.60}")
    return value


def _parse_input(where: str, found: Any) -> Input:
    if found is None:
        return None
    fields = _Fields(where, found)
    if "value" in found:
        return Value(fields.get("value", str), fields.get("sized", bool, False))
    if "weight" in found:
        return Weight(_shape(where, fields.list("weight", MAX_RANK)), _dtype(where, fields.get("dtype", str)))
    return _parse_tensor(where, found)


def _parse_tensor(where: str, found: dict[str, Any]) -> torch.Tensor:
    fields = _Fields(where, found)
    shape, dtype = _shape(where, fields.list("shape", MAX_RANK)), _dtype(where, fields.get("dtype", str))
    values = [_NUMBERS.get(value, value) if isinstance(value, str) else value for value in
              fields.list("values", MAX_CONSTANT)]  # fmt: skip
    if len(values) != math.prod(shape) or not all(isinstance(value, int | float) for value in values):
        raise ValueError(f"{where}: needs {math.prod(shape)} numbers, got {values!r:.60}")
    try:
        # On the CPU explicitly: networks are built on the meta device, where numbers are lost.
        return torch.tensor(values, dtype=dtype, device="cpu").reshape(shape)
    except (RuntimeError, OverflowError, TypeError) as error:
        raise ValueError(f"{where}: does not fit {dtype}: {error}") from error


def _shape(where: str, values: list[Any]) -> tuple[int, ...]:
    if not all(isinstance(value, int) and value >= 0 for value in values):
        raise ValueError(f"{where}: a shape must be whole numbers of at least 0, got {values!r:.60}")
    return tuple(values)


def _dtype(where: str, name: str) -> torch.dtype:
    if name not in DTYPES:
        raise ValueError(f"{where}: dtype must be one of {', '.join(DTYPES)}, got {name!r:.60}")
    return DTYPES[name]
