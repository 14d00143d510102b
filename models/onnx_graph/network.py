"""The network that a graph describes: a module per value, which is called what the value is called.

Nothing of the bundle is executed: the graph says which entries of the table of operators are run on which
values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from models.onnx_graph.graph import Node, Refused, Value, Weight
from models.onnx_graph.naming import PADDING
from models.onnx_graph.operations import OPERATORS, Leaf, Local, Operation
from models.onnx_graph.operations.base import Fill
from models.onnx_graph.written import parse


@dataclass(frozen=True)
class Step:
    """A module, what it reads and what it computes.

    Attributes
    ----------
    layer : str
        The module's name.
    module : torch.nn.Module
        Without children.
    sources : tuple of str
        Values that it reads.
    output : str
        The value that it computes.
    fills : mapping
        How its state comes from the node's weights.
    """

    layer: str
    module: nn.Module
    sources: tuple[str, ...]
    output: str
    fills: Mapping[str, Fill]


SIZES = frozenset({"Shape", "Size", "ConstantOfShape", "Range"})
"""Operators that make values of shapes, or of a few numbers."""


def steps(node: Node, sized: bool = False) -> Iterator[Step]:
    """Build the modules of a node, one per output, and where torch's own cannot pad so, the padding before.

    Parameters
    ----------
    node : Node
        Any.
    sized : bool
        Whether it computes with shapes alone.

    Yields
    ------
    Step
        In order of execution.

    Raises
    ------
    Refused
        If the operator is not in the table, or cannot be built as the node has it.
    """
    if node.op not in OPERATORS:
        raise Refused("the operator is not covered")
    for index, (layer, output) in enumerate(zip(node.layers, node.outputs, strict=True)):
        if output:
            yield from _build(node.building(index), layer, output, sized)


def _build(node: Node, layer: str, output: str, sized: bool) -> Iterator[Step]:
    try:
        built = OPERATORS[node.op].build(node)
    except Refused:
        raise
    except (TypeError, ValueError, RuntimeError, LookupError, ArithmeticError, AssertionError) as error:
        raise Refused(f"does not fit torch's module: {' '.join(str(error).split())[:200]}") from error
    if isinstance(built, nn.Module):
        built = Leaf(built)
    if sized and isinstance(built, Leaf):
        built = Local(_function(built), None)  # type: ignore[arg-type]
    if not isinstance(built, Leaf):
        local = built if isinstance(built, Local) else Local(built, None)  # type: ignore[arg-type]
        sources = tuple(one.name for one in node.inputs if isinstance(one, Value))
        weights = [index for index, one in enumerate(node.inputs) if isinstance(one, Weight)]
        fills: dict[str, Fill] = {f"input{index}": itemgetter(index) for index in weights}
        yield Step(layer, Operation(node, local.compute, local.follow, sized), sources, output, fills)
        return
    first = node.input(0)
    if not isinstance(first, Value):
        raise Refused("its first input is no computed value")
    source = first.name
    if built.before is not None:
        padded = output + "\0" + PADDING
        yield Step(layer + PADDING, built.before, (source,), padded, {})
        source = padded
    yield Step(layer, built.module, (source,), output, built.fills)


def _function(leaf: Leaf) -> Callable[..., Tensor]:
    """Return what a leaf computes; shapes are no activations, of which a layer would be listed."""

    def compute(x: Tensor, *_: Tensor | None) -> Tensor:
        out: Tensor = leaf.module(x if leaf.before is None else leaf.before(x))
        return out

    return compute


def _is_sized(node: Node, sized: set[str]) -> bool:
    """Tell whether a node computes with shapes alone, whatever the graph says of its inputs."""
    alone = all(one.name in sized if isinstance(one, Value) else not isinstance(one, Weight)
                for one in node.inputs)  # fmt: skip
    return alone or node.op in SIZES


class OnnxNetwork(nn.Module):
    """A network that was read from ONNX.

    Its layers are named by `models.onnx_graph.naming`. Batch and spatial sizes are free wherever the graph
    leaves them free: shapes are computed on the CPU, as values of the graph, whenever it runs.

    Parameters
    ----------
    graph : dict
        As `models.onnx_graph.translate.translate` writes it.

    Raises
    ------
    ValueError
        If the graph is malformed, or names an operator that is not in the table.
    """

    def __init__(self, graph: dict[str, Any]) -> None:
        super().__init__()
        found = parse(graph)
        self.inputs, self.outputs = found.inputs, found.outputs
        self._plan: list[tuple[str, tuple[str, ...], str]] = []
        shapes: set[str] = set()
        for node in found.nodes:
            sized = _is_sized(node, shapes)
            shapes.update(node.outputs if sized else ())
            try:
                for step in steps(node, sized):
                    self._place(step.layer, step.module)
                    self._plan.append((step.layer, step.sources, step.output))
            except Refused as error:
                raise ValueError(
                    f"graph: node {node.name!r} ({node.op}, opset {node.opset}): {error}"
                ) from error
        self._unread = self._last_uses()

    def _place(self, layer: str, module: nn.Module) -> None:
        *folders, name = layer.split(".")
        parent: nn.Module = self
        for folder in folders:
            if folder not in parent._modules:
                self._add(parent, folder, nn.Module(), layer)
            parent = parent.get_submodule(folder)
        self._add(parent, name, module, layer)

    def _add(self, parent: nn.Module, name: str, module: nn.Module, layer: str) -> None:
        try:
            parent.add_module(name, module)
        except KeyError as error:
            raise ValueError(f"graph: no module can be called {layer!r}") from error

    def _last_uses(self) -> list[list[str]]:
        """Return for each step the values that nobody reads after it."""
        last = {
            name: index
            for index, (_, sources, output) in enumerate(self._plan)
            for name in (*sources, output)
        }
        unread: list[list[str]] = [[] for _ in self._plan]
        for name, index in last.items():
            if name not in self.outputs:
                unread[index].append(name)
        return unread

    def producer(self, value: str) -> str:
        """Return the layer that computes a value; empty if it is an input."""
        return next((layer for layer, _, output in self._plan if output == value), "")

    def sources(self, layer: str) -> tuple[str, ...]:
        """Return the values that a layer reads."""
        return next(sources for name, sources, _ in self._plan if name == layer)

    def run(self, *inputs: Tensor) -> list[Tensor]:
        """Compute every output of the graph.

        Parameters
        ----------
        *inputs : torch.Tensor
            One for each of `inputs`.

        Returns
        -------
        list of torch.Tensor
            One for each of `outputs`.
        """
        values = dict(zip(self.inputs, inputs, strict=True))
        for (layer, sources, output), unread in zip(self._plan, self._unread, strict=True):
            values[output] = self.get_submodule(layer)(*(values[name] for name in sources))
            for name in unread:
                del values[name]
        return [values[name] for name in self.outputs]

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the first output of a graph that reads one volume.

        Parameters
        ----------
        volume : torch.Tensor
            Shape ``(batch, 1, X, Y, Z)``, in model units.

        Returns
        -------
        torch.Tensor
            Such as logits, shape ``(batch, classes)``.
        """
        return self.run(volume)[0]


def build_empty(graph: dict[str, Any]) -> OnnxNetwork:
    """Build a network without memory for its weights.

    Parameters
    ----------
    graph : dict
        As for `OnnxNetwork`.

    Returns
    -------
    OnnxNetwork
        On the meta device, in eval mode.
    """
    with torch.device("meta"):
        return OnnxNetwork(graph).eval()


def loaded(graph: dict[str, Any], state: dict[str, Tensor]) -> OnnxNetwork:
    """Build a network with its weights.

    Parameters
    ----------
    graph : dict
        As for `OnnxNetwork`.
    state : dict of str to torch.Tensor
        Its whole state.

    Returns
    -------
    OnnxNetwork
        In eval mode.
    """
    network = build_empty(graph)
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()
