"""A graph as JSON, which a bundle keeps; whatever is read is checked."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch

from models.onnx_graph.graph import (
    FIRST_OPSET,
    LAST_OPSET,
    MAX_CONSTANT,
    MAX_NODES,
    MAX_PARTS,
    MAX_RANK,
    Graph,
    Input,
    Node,
    Value,
    Weight,
)

# A name becomes part of Python code that torch.fx writes, so what could end a string there is kept out.
LAYER_NAME = re.compile(r"[A-Za-z0-9_/:+@#$=<>,\[\]()-]+(\.[A-Za-z0-9_/:+@#$=<>,\[\]()-]+)*")
_DTYPES: dict[str, torch.dtype] = {
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
            raise ValueError(f"graph: {name!r:.200} cannot be the name of a layer")
        if name.count(".") >= MAX_PARTS:
            raise ValueError(f"graph: layer {name!r:.200} has more than {MAX_PARTS} parts")
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
    if isinstance(value, list) and not any(isinstance(one, list) for one in value):
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
    if name not in _DTYPES:
        raise ValueError(f"{where}: dtype must be one of {', '.join(_DTYPES)}, got {name!r:.60}")
    return _DTYPES[name]
