"""What operators are made of: the table that they enter, and the module for those that torch has none for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.onnx_graph.bounds import check_sized
from models.onnx_graph.graph import MAX_CONSTANT, Node, Refused, Value, Weight
from models.onnx_graph.operations.reach import elementwise
from models.views import Shapes, View

Fill = Callable[[Sequence[Tensor]], Tensor]
"""Makes one tensor of a module's state from the node's weights, in the order of the node's inputs."""
Follow = Callable[[Node, Sequence[View], Shapes], View]
Compute = Callable[..., Any]


class Leaf(NamedTuple):
    """One of torch's own modules that computes what a node does on its first input.

    Attributes
    ----------
    module : torch.nn.Module
        Reads the first input.
    fills : mapping
        How the state dict's entries come from the node's weights.
    before : torch.nn.Module or None
        What the input passes first, such as padding that the module does not know.
    """

    module: nn.Module
    fills: Mapping[str, Fill] = MappingProxyType({})
    before: nn.Module | None = None


class Local(NamedTuple):
    """A function, and how what a position sees widens behind it."""

    compute: Compute
    follow: Follow


Built = Leaf | Local | Compute
Builder = Callable[[Node], Any]


@dataclass(frozen=True)
class Operator:
    """An entry of the table.

    Attributes
    ----------
    name : str
        ONNX's name.
    build : callable
        Turns a node into a `Leaf`, a torch module, a `Local`, or a function of the node's inputs, in order
        and with None for those that are left out. Raises `Refused`.
    becomes : str
        What it is in torch, for the documentation.
    numbers : frozenset of int
        Inputs of which the numbers must be known, such as axes: they are small and lie on the CPU. A
        negative one counts for itself and all that follow.
    smooth : bool
        Whether gradients pass.
    """

    name: str
    build: Builder
    becomes: str
    numbers: frozenset[int] = field(default_factory=frozenset)
    smooth: bool = True

    def reads_numbers(self, index: int) -> bool:
        """Tell whether the numbers of an input must be known."""
        return index in self.numbers


OPERATORS: dict[str, Operator] = {}


def operator(
    *names: str, becomes: str, numbers: Sequence[int] = (), smooth: bool = True
) -> Callable[[Builder], Builder]:
    """Enter a builder into the table under one or more names.

    Parameters
    ----------
    *names : str
        ONNX's operators.
    becomes, numbers, smooth
        See `Operator`.

    Returns
    -------
    callable
        A decorator that returns the builder as it is.
    """

    def enter(build: Builder) -> Builder:
        for name in names:
            OPERATORS[name] = Operator(name, build, becomes, frozenset(numbers), smooth)
        return build

    return enter


class Operation(nn.Module):
    """A node that computes a function of its inputs; weights among them are its own state.

    Parameters
    ----------
    node : Node
        The node, with the output that is to be computed.
    compute : callable
        Takes all inputs, None for those that are left out. Where the node has several outputs, it returns
        them all.
    follow : callable, optional
        How what a position sees widens. By default a position sees everything.
    sized : bool
        Whether it computes with shapes alone, on the CPU wherever the data are. It then makes few numbers.
    """

    def __init__(
        self, node: Node, compute: Compute, follow: Follow | None = None, sized: bool = False
    ) -> None:
        super().__init__()
        self.node, self.compute, self._follow, self._sized = node, compute, follow, sized
        for index, one in enumerate(node.inputs):
            if isinstance(one, Weight):
                empty = torch.empty(one.shape, dtype=one.dtype)
                if one.dtype.is_floating_point:
                    self.register_parameter(f"input{index}", nn.Parameter(empty))
                else:
                    self.register_buffer(f"input{index}", empty)

    def _get_name(self) -> str:
        return self.node.op

    def forward(self, *values: Tensor) -> Tensor:
        """Compute the output from the values that the node reads, in their order."""
        given = iter(self._on_one_device(values))
        inputs = [self._input(index, given) for index in range(len(self.node.inputs))]
        if self._sized:
            check_sized(self.node, self.compute, OPERATORS[self.node.op].reads_numbers, inputs)
        out = self.compute(*inputs)
        answer: Tensor = out[self.node.output] if isinstance(out, tuple | list) else out
        return answer

    def _input(self, index: int, given: Any) -> Tensor | None:
        one = self.node.inputs[index]
        if isinstance(one, Value):
            value: Tensor = next(given)
            return value
        return getattr(self, f"input{index}") if isinstance(one, Weight) else one

    def _on_one_device(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Bring what was computed from shapes alone to where the data are."""
        kinds = [one for one in self.node.inputs if isinstance(one, Value)]
        if not any(kind.sized for kind in kinds):
            return list(values)
        data = [value for value, kind in zip(values, kinds, strict=True) if not kind.sized]
        like = (data or [self.get_parameter(name) for name, _ in self.named_parameters()] or list(values))[0]
        moved = []
        for value, kind in zip(values, kinds, strict=True):
            floating = value.is_floating_point() and like.is_floating_point()
            dtype = like.dtype if floating else value.dtype
            moved.append(_moved(value, like.device, dtype) if kind.sized else value)
        return moved

    def follow(self, views: Sequence[View], shapes: Shapes) -> View:
        """Return what a position of the output can depend on, see `models.views`."""
        # Where a second input depends on the data too, as indices can, only element by element is local.
        local = self._follow is not None and (len(views) == 1 or self._follow is elementwise)
        return self._follow(self.node, views, shapes) if local else views[0].widened()  # type: ignore[misc]


def _moved(value: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Move a value; numbers that are stored once and repeated are moved once."""
    stored = value[tuple(slice(0, 1) if step == 0 else slice(None) for step in value.stride())]
    return stored.to(device, dtype).expand(value.shape)


def numbers(values: Tensor | None) -> list[Any]:
    """Return the numbers of a small tensor; none if there is no tensor."""
    if values is not None and values.is_meta:
        raise Refused("needs numbers that depend on the data; export the network with constants for them")
    if values is not None and values.numel() > MAX_CONSTANT:
        raise Refused(f"reads {values.numel()} numbers one by one; at most {MAX_CONSTANT} are accepted")
    return [] if values is None else [values.item()] if values.ndim == 0 else values.tolist()


def plain_data(node: Node, *others: int) -> bool:
    """Tell whether the first input is computed and the others are weights, or left out."""
    return isinstance(node.input(0), Value) and all(
        node.weight(index) is not None or not node.has(index) for index in others
    )


def spatial(node: Node, *ranks: int) -> int:
    """Return the number of spatial axes of the first input, or 0 if it is unknown or none of torch's."""
    return node.rank - 2 if node.rank in (ranks or (3, 4, 5)) else 0


def refuse_output(node: Node, *outputs: int) -> None:
    """Refuse outputs that are not computed."""
    if node.output in outputs:
        raise Refused(f"output {node.output} is not computed")
