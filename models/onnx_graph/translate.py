"""From an ONNX model to a graph that a bundle keeps, and its weights.

What depends on no input is computed here, once. Values that are made of shapes alone are told from data: they
stay on the CPU when the network runs, so that their numbers can be read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx
import onnx.inliner
import torch
from onnx import shape_inference

from models.errors import OnnxUnsupported
from models.onnx_graph.batches import Shape, freed
from models.onnx_graph.bounds import Measured, count
from models.onnx_graph.graph import (
    FIRST_OPSET,
    LAST_OPSET,
    MAX_CONSTANT,
    MAX_RANK,
    Graph,
    Input,
    Node,
    Refused,
    Value,
    Weight,
)
from models.onnx_graph.naming import layer_names
from models.onnx_graph.network import SIZES, steps
from models.onnx_graph.operations import OPERATORS
from models.onnx_graph.stored import to_attribute, to_constant, to_tensor
from models.onnx_graph.written import write

# What is larger than this is no figure of a shape's computation.
_FEW = 64
MAX_FOLDED = 1 << 28
_MAX_BETWEEN = 8 * MAX_FOLDED
_MAX_COPIES = 1 << 30
_CONTROL = frozenset({"If", "Loop", "Scan"})
_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class Translation:
    """A model as a bundle keeps it.

    Attributes
    ----------
    graph : dict
        JSON-able; what `models.onnx_graph.network.OnnxNetwork` is built from.
    state : dict of str to torch.Tensor
        That network's state dict. What floats is float32, whatever the model had.
    """

    graph: dict[str, Any]
    state: dict[str, torch.Tensor]


def translate(model: onnx.ModelProto) -> Translation:
    """Translate a model.

    Parameters
    ----------
    model : onnx.ModelProto
        With all weights inside. It is left as found.

    Returns
    -------
    Translation
        The graph and its weights.

    Raises
    ------
    OnnxUnsupported
        If anything in it is not covered; every operator and node is named.
    """
    opset = next((one.version for one in model.opset_import if one.domain in _STANDARD), 0)
    if not FIRST_OPSET <= opset <= LAST_OPSET:
        reason = f"opset {opset}: export the model with an opset from {FIRST_OPSET} to {LAST_OPSET}"
        raise OnnxUnsupported([reason])
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    return _Translator(model.graph, opset, _shapes(model)).translated()


def _shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Return the shapes of values as far as they are known."""
    try:
        graph = shape_inference.infer_shapes(_without_weights(model), data_prop=True).graph
    except Exception:  # the inference's own errors; shapes are known from the values alone then
        graph = model.graph
    known: dict[str, Shape] = {}
    for info in (*graph.input, *graph.value_info, *graph.output):
        kind = info.type.tensor_type
        if kind.HasField("shape"):
            sizes = kind.shape.dim
            known[info.name] = [size.dim_value if size.HasField("dim_value") else None for size in sizes]
    return known


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose larger weights are inputs: the inference copies all that it is given."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    source, graph = model.graph, light.graph
    graph.name = source.name
    for name in ("node", "input", "output", "value_info"):
        getattr(graph, name).extend(getattr(source, name))
    given = {one.name for one in source.input}
    for stored in source.initializer:
        if math.prod(stored.dims) <= _FEW:
            graph.initializer.append(stored)
        elif stored.name not in given:
            shape = list(stored.dims)
            graph.input.append(onnx.helper.make_tensor_value_info(stored.name, stored.data_type, shape))
    return light


@dataclass
class _Translator:
    """What is known of each value while the nodes are gone through."""

    source: onnx.GraphProto
    opset: int
    shapes: dict[str, Shape]
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    sized: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    nodes: list[Node] = field(default_factory=list)
    reads: list[list[str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    folded: int = 0

    def translated(self) -> Translation:
        """Go through all nodes and put together what came out."""
        for initializer in self.source.initializer:
            try:
                self.constants[initializer.name] = to_tensor(initializer)
            except Refused as error:
                self.problems.append(f"initializer {initializer.name!r}: {error}")
                self.constants[initializer.name] = torch.zeros(1)
        if self.source.sparse_initializer:
            self.problems.append("sparse initializers are not covered; store dense ones")
        inputs = tuple(one.name for one in self.source.input if one.name not in self.constants)
        outputs = tuple(one.name for one in self.source.output)
        self.known.update(inputs)
        needed = _needed(self.source, outputs)
        for node in self.source.node:
            used = [name if name in needed else "" for name in node.output]
            if any(used):
                self._go_through(node, used)
        self._write_constants(name for name in outputs if name in self.constants)
        if self.problems:
            raise OnnxUnsupported(self.problems)
        graph = _named(Graph(inputs, outputs, tuple(self.nodes)))
        state = self._state(graph)
        if self.problems:
            raise OnnxUnsupported(self.problems)
        return Translation(write(graph), state)

    def _go_through(self, node: onnx.NodeProto, used: list[str]) -> None:
        try:
            self._take(node, used)
        except (ValueError, TypeError, LookupError, RuntimeError, ArithmeticError) as error:
            # What is not `Refused` is a node that ONNX's own checker would not let through.
            label = node.op_type if node.domain in _STANDARD else f"{node.domain}.{node.op_type}"
            self.problems.append(
                f"node {node.name or node.output[0]!r} ({label}, opset {self.opset}): {error}"
            )
        # What comes after a problem is looked at all the same.
        self.known.update(name for name in used if name not in self.constants)

    def _take(self, found: onnx.NodeProto, used: list[str]) -> None:
        if found.domain not in _STANDARD or found.op_type not in OPERATORS:
            raise Refused(_why_not(found))
        attributes = {one.name: to_attribute(one) for one in found.attribute}
        if found.op_type == "Constant":
            self.constants[used[0]] = to_constant(attributes)
            return
        dynamic = [name for name in found.input if name and name not in self.constants]
        missing = [name for name in dynamic if name not in self.known]
        if missing:
            raise Refused(f"reads {missing[0]!r}, which nothing before it computes")
        shape = self._shape(found.input[0]) if found.input else None
        node = Node(
            found.op_type,
            found.name,
            self.opset,
            (),
            tuple(used),
            tuple(used),
            attributes,
            None if shape is None else len(shape),
        )
        if not dynamic:
            self._fold(node, found.input)
            return
        sized = found.op_type in SIZES or self._is_sized(found, dynamic)
        inputs = tuple(self._input(node.op, index, name, sized) for index, name in enumerate(found.input))
        node = freed(replace(node, inputs=inputs), shape)
        with torch.device("meta"):
            list(steps(node, sized))
        if sized:
            self.sized.update(name for name in used if name)
        self.nodes.append(node)
        self.reads.append(list(found.input))

    def _shape(self, name: str) -> Shape | None:
        found = self.constants[name].shape if name in self.constants else self.shapes.get(name)
        return found if found is not None and len(found) <= MAX_RANK else None

    def _is_sized(self, node: onnx.NodeProto, dynamic: list[str]) -> bool:
        """Tell whether a node computes with shapes and a few constants alone."""
        few = all(self.constants[name].numel() <= _FEW for name in node.input if name in self.constants)
        return few and self.sized.issuperset(dynamic)

    def _input(self, op: str, index: int, name: str, sized: bool) -> Input:
        if not name:
            return None
        by_number = OPERATORS[op].reads_numbers(index)
        if name not in self.constants:
            return Value(name, name in self.sized and not sized and not by_number)
        value = self.constants[name]
        if not sized and not by_number:
            return Weight(tuple(value.shape), value.dtype)
        if value.numel() > MAX_CONSTANT:
            raise Refused(f"input {index} has {value.numel()} numbers; at most {MAX_CONSTANT} are accepted")
        return value

    def _fold(self, node: Node, names: Sequence[str]) -> None:
        """Compute what depends on no input, after a run without memory has told how large it is."""
        by_number = OPERATORS[node.op].reads_numbers
        inputs: list[Input] = []
        for index, name in enumerate(names):
            inputs.append(None if not name else self.constants[name] if by_number(index) else Value(name))
        bare = replace(node, inputs=tuple(inputs))
        size = count(bare.op, [self.constants.get(name) for name in names])
        if size is None:
            empty = {
                one.name: self.constants[one.name].to("meta") for one in inputs if isinstance(one, Value)
            }
            size = sum(value.numel() for value in self._computed(bare, empty).values())
        if size > MAX_FOLDED:
            raise Refused(f"its result has {size} numbers; at most {MAX_FOLDED} are accepted")
        self.folded += size
        if self.folded > MAX_FOLDED:
            reason = f"its result and those before it have {self.folded} numbers"
            raise Refused(f"{reason}; at most {MAX_FOLDED} are accepted for what depends on no input")
        # What is repeated gets memory of its own here, where it was counted.
        made = self._computed(bare, self.constants)
        self.constants.update({name: value.contiguous() for name, value in made.items()})

    def _computed(self, node: Node, given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        values: dict[str, torch.Tensor] = {}
        try:
            for step in steps(node):
                read = [values[name] if name in values else given[name] for name in step.sources]
                with torch.no_grad(), Measured(_MAX_BETWEEN):
                    values[step.output] = step.module(*read).detach()
        except Refused:
            raise
        except (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
            raise Refused(f"cannot be computed: {' '.join(str(error).split())[:200]}") from error
        return {name: values[name] for name in node.outputs if name}

    def _write_constants(self, outputs: Iterable[str]) -> None:
        """Let outputs that depend on nothing be values of the graph."""
        for name in outputs:
            value = self.constants[name]
            inputs = (Weight(tuple(value.shape), value.dtype),)
            self.nodes.append(Node("Constant", name, self.opset, inputs, (name,), (name,), {}))
            self.reads.append([name])

    def _state(self, graph: Graph) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = {}
        seen: set[int] = set()
        stored, total = sum(value.nbytes for value in self.constants.values()), 0
        for node, names in zip(graph.nodes, self.reads, strict=True):
            weights = [self.constants.get(name, torch.empty(0)) for name in names]
            with torch.device("meta"):
                built = list(steps(node))
            for step in built:
                empty = step.module.state_dict()
                for name, fill in step.fills.items():
                    total += empty[name].nbytes
                    if total > stored + _MAX_COPIES:
                        reason = f"weights that several nodes share take more than {_MAX_COPIES} bytes"
                        self.problems.append(f"{reason} besides the {stored} that are stored")
                        return state
                    value = fill(weights).contiguous()
                    value = value.clone() if value.data_ptr() in seen else value
                    seen.add(value.data_ptr())
                    state[f"{step.layer}.{name}"] = value
        return state


def _needed(graph: onnx.GraphProto, outputs: Iterable[str]) -> set[str]:
    """Return the values on which the outputs depend."""
    needed = set(outputs)
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
    return needed - {""}


def _why_not(node: onnx.NodeProto) -> str:
    if node.domain not in _STANDARD:
        return "operators of other domains than ONNX's own are not covered"
    if node.op_type in _CONTROL:
        return "control flow is not covered; export the network so that it is unrolled"
    if "Sequence" in node.op_type or "Optional" in node.op_type:
        return "sequences and optional values are not covered"
    if any(word in node.op_type for word in ("Quantize", "QLinear", "Integer")):
        return "quantized networks are not covered; export the one of floating-point numbers"
    return "the operator is not covered; docs/reference/operators.md lists those that are"


def _named(graph: Graph) -> Graph:
    """Give every value that is computed a layer's name."""
    names = layer_names([name for node in graph.nodes for name in node.outputs if name])
    nodes = [
        replace(node, layers=tuple(names.get(name, "") for name in node.outputs)) for node in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes))
