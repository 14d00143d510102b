"""Which layers a network has, and how much of the input each one sees.

The network is traced with torch.fx and run once on the meta device, which computes shapes and no values.
Alongside goes each value's `View`: the stretch of input voxels that one position can depend on. Rules for the
usual operations are in `models.views`; behind an operation without a rule, a position may see the whole
input.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from models.onnx_graph.bounds import Measured
from models.onnx_graph.network import OnnxNetwork
from models.views import Shapes, View, follow_function, follow_module

Found = tuple[str, str, torch.Size, View]
MAX_GRAPH_BYTES = 1 << 33
"""Most bytes of all values together that a graph which somebody else wrote computes for one volume."""
# Most of them that are made for real while it is looked at: what is made of shapes alone.
_MAX_REAL_BYTES = 1 << 28
# While it traces, torch.fx changes what every module of the process does when it is called.
_tracing = threading.Lock()


@dataclass(frozen=True)
class Layer:
    """One leaf module of a network.

    Attributes
    ----------
    name : str
        As PyTorch writes it, e.g. ``"blocks.0.conv"``.
    type : str
        The module's class name, e.g. ``"Conv3d"``.
    channels : int
        Units of the layer.
    output_shape : tuple of int
        Spatial shape of the output; ``()`` for vectors.
    stride : tuple of int
        Input voxels between neighbouring positions, per axis; for vectors the input's shape.
    receptive_field : tuple of int
        Input voxels that one position can depend on, per axis. The theoretical extent, which may exceed the
        input.
    receptive_field_mm : tuple of float
        The same in millimetres.
    first_center : tuple of float
        Middle of what the first position sees, in input voxels; below 0 where padding reaches further than
        the field. Where `whole_input`, the middle of the first stride.
    whole_input : bool
        Whether a position may depend on every input voxel, because a global operation, or one whose reach is
        not known, came before. `receptive_field` is then the input's shape.
    """

    name: str
    type: str
    channels: int
    output_shape: tuple[int, ...]
    stride: tuple[int, ...]
    receptive_field: tuple[int, ...]
    receptive_field_mm: tuple[float, ...]
    first_center: tuple[float, ...]
    whole_input: bool

    @property
    def is_vector(self) -> bool:
        """Whether it gives one number a channel, with or without spatial axes of length 1."""
        return math.prod(self.output_shape) == 1

    def center(self, position: Sequence[int]) -> tuple[float, ...]:
        """Return where a position looks.

        Parameters
        ----------
        position : sequence of int
            Index into the activation map, one per axis.

        Returns
        -------
        tuple of float
            Middle of its receptive field, in input voxels.
        """
        steps = zip(self.first_center, self.stride, position, strict=True)
        return tuple(first + stride * index for first, stride, index in steps)

    def position(self, place: Sequence[float]) -> tuple[int, ...]:
        """Return which position looks nearest to a place.

        Parameters
        ----------
        place : sequence of float
            In input voxels, one per axis.

        Returns
        -------
        tuple of int
            Index into the activation map, within `output_shape`.
        """
        steps = zip(place, self.first_center, self.stride, self.output_shape, strict=True)
        nearest = ((round((at - first) / stride), size) for at, first, stride, size in steps)
        return tuple(min(max(index, 0), size - 1) for index, size in nearest)


class _Tracer(fx.Tracer):
    """Keeps every module without children whole, also those that are not torch's own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return super().is_leaf_module(m, module_qualified_name) or not any(m.children())


class _Surveyor(fx.Interpreter):
    """Runs a traced network and notes every leaf module's output shape and view."""

    def __init__(self, network: nn.Module, graph: fx.Graph, axes: int) -> None:
        super().__init__(fx.GraphModule(network, graph))
        self.axes = axes
        self.views: dict[fx.Node, View] = {}
        self.shapes: dict[fx.Node, torch.Size] = {}
        self.found: dict[str, Found] = {}
        self.bounded = isinstance(network, OnnxNetwork)
        self.bytes = self.real_bytes = 0
        # Errors say what went wrong, not where torch.fx was.
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        try:
            value = super().run_node(n)
        except Exception as error:
            if self.bounded:
                raise ValueError(f"layer {n.target}: {error}") from error
            raise
        if isinstance(value, torch.Tensor):
            self.shapes[n] = value.shape
            if self.bounded:
                self._count(n, value)
        self.views[n] = self._view(n, value)
        # What says nothing of the input, such as its shape, is no layer.
        if n.op == "call_module" and _is_activation(value) and not self.views[n].constant:
            name = str(n.target)
            # A module that is used twice is listed once, where it is used first.
            kind = self.fetch_attr(name)._get_name()
            self.found.setdefault(name, (name, kind, value.shape, self.views[n]))
        return value

    def _count(self, n: fx.Node, value: torch.Tensor) -> None:
        self.bytes += value.nbytes
        self.real_bytes += 0 if value.is_meta else value.untyped_storage().nbytes()
        for found, most in ((self.bytes, MAX_GRAPH_BYTES), (self.real_bytes, _MAX_REAL_BYTES)):
            if found > most:
                raise ValueError(f"computes {found} bytes up to {n.target}; at most {most} are accepted")

    def _view(self, n: fx.Node, value: Any) -> View:
        sources = [source for source in n.all_input_nodes if not self.views[source].constant]
        if n.op == "placeholder":
            return View.of_input(self.axes)
        if not sources:
            return View.of_constant(self.axes)
        if not isinstance(value, torch.Tensor) or any(source not in self.shapes for source in sources):
            # A shape read off a tensor (`x.shape[0]`) is no data: it must not widen what uses it.
            plain = not isinstance(value, torch.Tensor) and _is_size(value)
            return View.of_constant(self.axes) if plain else View.of_everything(self.axes)
        views = [self.views[source] for source in sources]
        shapes = Shapes([self.shapes[source] for source in sources], value.shape)
        if n.op == "call_module":
            return follow_module(self.fetch_attr(str(n.target)), views, shapes)
        return follow_function(n, views, shapes)


def _is_activation(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _is_size(value: Any) -> bool:
    return isinstance(value, int | torch.Size) or (isinstance(value, tuple) and all(map(_is_size, value)))


def _meta_twin(network: nn.Module) -> nn.Module:
    """Copy a network without its memory: deepcopy is told beforehand what stands for each tensor."""
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in network.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(network, memo).eval()


def _survey(network: nn.Module, input_shape: Sequence[int]) -> list[Found]:
    twin = _meta_twin(network)
    surveyor = _Surveyor(twin, _Tracer().trace(twin), len(input_shape))
    measured = Measured(MAX_GRAPH_BYTES) if surveyor.bounded else nullcontext()
    with measured:
        surveyor.run(torch.empty(1, 1, *input_shape, device="meta"))
    return list(surveyor.found.values())


def _survey_by_running(network: nn.Module, input_shape: Sequence[int]) -> list[Found]:
    """List the leaf modules of a network that cannot be traced: names and shapes from one real pass."""
    twin = copy.deepcopy(network).eval()
    found: dict[str, Found] = {}
    everything = View.of_everything(len(input_shape))

    def note(name: str, module: nn.Module, output: Any) -> None:
        if _is_activation(output):
            found.setdefault(name, (name, module._get_name(), output.shape, everything))

    for name, module in twin.named_modules():
        if name and not any(module.children()):
            module.register_forward_hook(lambda m, _, output, name=name: note(name, m, output))
    with torch.no_grad():
        twin(torch.zeros(1, 1, *input_shape))
    return list(found.values())


def _layer(found: Found, input_shape: tuple[int, ...], voxel_size_mm: Sequence[float]) -> Layer:
    name, kind, shape, view = found
    spatial = tuple(shape[2:])
    field = input_shape if view.whole else view.extent
    stride: tuple[int, ...] = view.stride
    if not spatial:
        stride = input_shape
    elif view.whole and len(spatial) == len(input_shape):
        # Behind a global operation only the ratio of the grids still says how positions are spaced.
        stride = tuple(max(1, round(whole / part)) for whole, part in zip(input_shape, spatial, strict=True))
    # A view's own ends say nothing behind a global operation: there positions share the input evenly.
    ends = [(0, n - 1) for n in stride] if view.whole else zip(view.low, view.high, strict=True)
    return Layer(
        name=name,
        type=kind,
        channels=shape[1] if len(shape) > 1 else math.prod(shape),
        output_shape=spatial,
        stride=stride,
        receptive_field=field,
        receptive_field_mm=tuple(n * float(size) for n, size in zip(field, voxel_size_mm, strict=True)),
        first_center=tuple((low + high) / 2 for low, high in ends),
        whole_input=view.whole,
    )


def layer_table(
    network: nn.Module, input_shape: Sequence[int], voxel_size_mm: Sequence[float]
) -> tuple[Layer, ...]:
    """List a network's leaf modules in order of execution, as they act in eval mode.

    Parameters
    ----------
    network : torch.nn.Module
        Reads ``(batch, 1, *input_shape)``. It is left as found.
    input_shape : sequence of int
        Spatial shape of the input in voxels; one, two or three axes.
    voxel_size_mm : sequence of float
        Edge lengths of a voxel, one per axis.

    Returns
    -------
    tuple of Layer
        Where the network cannot be traced, every receptive field is the whole input.

    Raises
    ------
    ValueError
        If the arguments disagree or the network cannot read such an input.
    """
    shape = tuple(int(n) for n in input_shape)
    if len(shape) != len(voxel_size_mm) or not 1 <= len(shape) <= 3 or min(shape) < 1:
        raise ValueError(
            f"input_shape {shape} and voxel_size_mm {tuple(voxel_size_mm)} must have one value per axis"
        )
    with _tracing:
        try:
            found = _survey(network, shape)
        except Exception as error:  # torch.fx and the meta device fail in many ways: it is not traceable
            if isinstance(network, OnnxNetwork):
                # Always traceable; and nobody knows what it would make if it were run.
                raise ValueError(
                    f"the network cannot read input_shape {shape}: {str(error)[:200]}"
                ) from error
            try:
                found = _survey_by_running(network, shape)
            except (RuntimeError, ValueError, TypeError) as error:
                raise ValueError(
                    f"the network cannot read input_shape {shape}: {str(error)[:200]}"
                ) from error
    return tuple(_layer(one, shape, voxel_size_mm) for one in found)
