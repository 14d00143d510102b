"""Functions that a model brings along: how large the model becomes once each call is replaced by its body.

A function may call another one twice, that one a third twice: a few hundred bytes say as many nodes as one
likes. They are counted without making them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx

from models.errors import OnnxUnreadable
from models.onnx_graph.graph import MAX_NODES

_MAX_BYTES = (1 << 31) - 1
# ONNX's own checker and inliner call themselves for each function inside another.
_MAX_DEPTH = 64

_Key = tuple[str, str, str]


def nodes_within(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes and those of the graphs inside them.

    Parameters
    ----------
    nodes : sequence of onnx.NodeProto
        Of a graph or a function.

    Yields
    ------
    onnx.NodeProto
        In no order that means anything.
    """
    waiting = [nodes]
    while waiting:
        for node in waiting.pop():
            yield node
            for attribute in node.attribute:
                waiting += [graph.node for graph in (*attribute.graphs, attribute.g)]


def check_functions(model: onnx.ModelProto, file: str) -> None:
    """Refuse a model that inlining its functions would make too large.

    Parameters
    ----------
    model : onnx.ModelProto
        As it was parsed; nothing of it needs to have been checked.
    file : str
        What errors call it.

    Raises
    ------
    OnnxUnreadable
        If a function calls itself, is defined twice or calls others too deep, or there are too many nodes or
        bytes with every call replaced.
    """
    bodies = {_key(one.domain, one.name, one): one.node for one in model.functions}
    if len(bodies) < len(model.functions):
        raise OnnxUnreadable(file, "defines a function twice; export it again")
    extra = _extra(model, bodies, file) if bodies else 0
    costs: dict[_Key, tuple[int, int]] = {}
    for key in _callees_first(bodies, file):
        costs[key] = _cost(bodies[key], costs, extra, file)
    _cost(model.graph.node, costs, extra, file)


def _key(domain: str, name: str, one: onnx.FunctionProto | onnx.NodeProto) -> _Key:
    return "" if domain == "ai.onnx" else domain, name, one.overload


def _called(node: onnx.NodeProto) -> _Key:
    return _key(node.domain, node.op_type, node)


def _extra(model: onnx.ModelProto, bodies: Mapping[_Key, object], file: str) -> int:
    """Return how many bytes a call may put wherever the body has a name or an attribute of its own."""
    most = 0
    given = [one for function in model.functions for one in function.attribute_proto]
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in nodes_within(nodes):
            most = max(most, *(len(name) for name in (*node.input, *node.output)), 0)
            given += node.attribute if _called(node) in bodies else []
    if any(one.graphs or one.HasField("g") for one in given):
        raise OnnxUnreadable(file, "gives graphs to functions; export it without functions")
    return max(most, *(one.ByteSize() for one in given), 0)


def _callees_first(bodies: Mapping[_Key, Sequence[onnx.NodeProto]], file: str) -> list[_Key]:
    """Return the functions in an order in which each comes behind those that it calls."""
    calls = {
        key: {_called(node) for node in nodes_within(nodes)} & bodies.keys() for key, nodes in bodies.items()
    }
    ordered: list[_Key] = []
    done: set[_Key] = set()
    for _ in range(_MAX_DEPTH):
        ready = [key for key, needs in calls.items() if key not in done and needs <= done]
        ordered += ready
        done.update(ready)
    if len(ordered) < len(calls):
        names = ", ".join(sorted(key[1] for key in calls if key not in done)[:5])
        reason = f"has functions that call themselves, or others more than {_MAX_DEPTH} deep: {names}"
        raise OnnxUnreadable(file, f"{reason:.300}; export it without functions, or inline them")
    return ordered


def _cost(
    nodes: Sequence[onnx.NodeProto], costs: Mapping[_Key, tuple[int, int]], extra: int, file: str
) -> tuple[int, int]:
    """Return how many nodes and bytes stand where these do once all functions are inlined."""
    count, size = 0, sum(node.ByteSize() for node in nodes)
    for node in nodes_within(nodes):
        more, bytes_more = costs.get(_called(node), (1, 0))
        places = len(node.input) + len(node.output) + sum(bool(one.ref_attr_name) for one in node.attribute)
        count, size = count + more, size + bytes_more + extra * places
    if count > MAX_NODES:
        reason = f"has {count} nodes, with its functions inlined; at most {MAX_NODES} are read"
        raise OnnxUnreadable(file, reason)
    if size > _MAX_BYTES:
        reason = f"takes up to {size} bytes with its functions inlined; at most {_MAX_BYTES} are read"
        raise OnnxUnreadable(file, reason)
    return count, size
