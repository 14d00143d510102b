"""The part of a network that is needed, as a graph of its own.

torch.fx writes down which module's output enters which; a network whose Python
depends on its data cannot be written down so, and runs as it is.
"""

import copy
import inspect
import operator
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from engine.network.capture import NONLINEARITIES, UnknownLayer
from engine.network.convolution import FrozenConvolution, plain
from engine.network.pooling import AveragePooling
from engine.network.thin import ThinConvolution

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_MAX_POOLINGS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
# These need their output for no gradient: a ReLU behind one may overwrite it.
_OVERWRITABLE = (*_CONVOLUTIONS, *_NORMS, *_MAX_POOLINGS, FrozenConvolution, ThinConvolution)
_IN_PLACE = {
    getattr(operator, f"i{name}") for name in ("add", "sub", "mul", "truediv", "floordiv", "pow", "matmul")
}


class Untraceable(Exception):
    """The network cannot be written down as a graph."""


class _Alone(nn.Module):
    """A network that is given a volume and nothing else: what it may be given besides has its default."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, volume: Tensor) -> Any:
        return self.network(volume)


class _Tracer(fx.Tracer):
    """Keeps modules without children whole, and notes what enters and what leaves every module first."""

    def __init__(self) -> None:
        super().__init__()
        self.entering: dict[str, fx.Node] = {}
        self.leaving: dict[str, fx.Node] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return super().is_leaf_module(m, module_qualified_name) or not any(m.children())

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        answer = super().call_module(m, forward, args, kwargs)
        name = self.path_of_module(m)
        if isinstance(answer, fx.Proxy) and args and isinstance(args[0], fx.Proxy):
            self.entering.setdefault(name, args[0].node)
            self.leaving.setdefault(name, answer.node)
        return answer


def cut(network: nn.Module, layers: tuple[str, ...], behind_nonlinearities: bool) -> fx.GraphModule:
    """Return a copy of a network that ends where the last wanted layer has answered.

    Parameters
    ----------
    network : nn.Module
        It is left as found.
    layers : tuple of str
        Names as `named_modules` writes them.
    behind_nonlinearities : bool
        See `engine.network.capture.activations`.

    Returns
    -------
    fx.GraphModule
        Returns the layers' answers as a tuple, in the order of `layers`.

    Raises
    ------
    UnknownLayer
        A name is not a layer of the network.
    Untraceable
        It cannot be written down as a graph.
    """
    modules = {name: module for name, module in network.named_modules() if name}
    for layer in layers:
        if layer not in modules:
            raise UnknownLayer(layer, list(modules))
    shut = [isinstance(modules[layer], NONLINEARITIES) and not behind_nonlinearities for layer in layers]
    tracer, twin = _Tracer(), _Alone(copy.deepcopy(network).eval())
    try:
        graph = tracer.trace(twin)
        if any(_is_lost(node, twin) for node in graph.nodes):
            raise Untraceable
        names = [f"network.{layer}" for layer in layers]
        sides = [tracer.entering if before else tracer.leaving for before in shut]
        wanted = [side[name] for side, name in zip(sides, names, strict=True)]
        return _without_the_rest(twin, graph, wanted)
    except Exception:  # torch.fx fails in many ways, all of which mean: not traceable
        raise Untraceable from None


def _without_the_rest(twin: nn.Module, graph: fx.Graph, wanted: list[fx.Node]) -> fx.GraphModule:
    """Make the wanted values the output, drop what they do not need, and fold what can be folded."""
    (end,) = (node for node in graph.nodes if node.op == "output")
    end.args = (tuple(wanted),)
    body = fx.GraphModule(twin, graph)
    graph.eliminate_dead_code()
    body.delete_all_unused_submodules()
    for node in list(graph.nodes):
        if node.op == "call_method" and node.target == "view" and not _retypes(node):
            # Channels that lie last in memory cannot be viewed as if they lay first.
            node.target = "reshape"
    _fold_norms(body)
    _pool_first(body)
    _freeze_convolutions(body)
    _quick_averages(body)
    _in_place(body)
    _keep_wanted(body)
    graph.lint()
    body.recompile()
    return body


def overwrites(node: fx.Node, body: nn.Module) -> bool:
    """Tell whether a node overwrites its first argument."""
    if node.op == "call_module":
        return bool(getattr(body.get_submodule(str(node.target)), "inplace", False))
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    by_name = name.endswith("_") and not name.endswith("__")
    return node.target in _IN_PLACE or by_name or _asked_to(node)


def _asked_to(node: fx.Node) -> bool:
    """Tell whether a function is called with `inplace`, by name or by its place."""
    if node.op != "call_function" or getattr(node.target, "__module__", "") != "torch.nn.functional":
        return bool(node.kwargs.get("inplace"))
    given = inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments  # type: ignore[arg-type]
    return bool(given.get("inplace"))


def _is_lost(node: fx.Node, body: nn.Module) -> bool:
    """Tell whether others read what a node overwrites: a graph of values would not say what happens."""
    if not overwrites(node, body):
        return False
    before = node.args[0] if node.args else None
    return not node.users or not isinstance(before, fx.Node) or len(before.users) > 1


def _retypes(node: fx.Node) -> bool:
    return not all(isinstance(size, int | fx.Node | tuple | list) for size in node.args[1:])


def _module(body: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return body.get_submodule(str(node.target)) if node.op == "call_module" else None


def _calls(body: fx.GraphModule, target: object) -> int:
    return sum(node.op == "call_module" and node.target == target for node in body.graph.nodes)


def _replace(body: fx.GraphModule, target: str, module: nn.Module) -> None:
    parent, _, name = target.rpartition(".")
    setattr(body.get_submodule(parent), name, module)


def _fold_norms(body: fx.GraphModule) -> None:
    """Fold batch norms into convolutions that nothing else reads; in evaluation they are linear maps."""
    for node in list(body.graph.nodes):
        norm = _module(body, node)
        if not plain(norm, *_NORMS) or norm.running_mean is None or _calls(body, node.target) > 1:
            continue
        before = node.args[0]
        convolution = _module(body, before) if isinstance(before, fx.Node) else None
        if not plain(convolution, *_CONVOLUTIONS) or len(before.users) > 1:
            continue
        if _calls(body, before.target) == 1:
            dtype = convolution.weight.dtype
            # In float64, so that the folded weights are rounded once.
            folded = fuse_conv_bn_eval(convolution.double(), norm.double())
            _replace(body, str(before.target), folded.to(dtype))
            node.replace_all_uses_with(before)
            body.graph.erase_node(node)
    body.delete_all_unused_submodules()


def _pool_first(body: fx.GraphModule) -> None:
    """Let ReLUs act behind max poolings: the same values and gradients, on a fraction of the numbers."""
    for node in list(body.graph.nodes):
        pooling, before = _module(body, node), node.args[0] if node.args else None
        if not plain(pooling, *_MAX_POOLINGS) or pooling.return_indices:
            continue
        if not isinstance(before, fx.Node) or len(before.users) > 1:
            continue
        if not plain(_module(body, before), nn.ReLU):
            continue
        node.replace_all_uses_with(before)
        node.args = (before.args[0],)
        before.args = (node,)
        node.append(before)


def _quick_averages(body: fx.GraphModule) -> None:
    """Replace average poolings on a CPU."""
    for node in body.graph.nodes:
        module = _module(body, node)
        if AveragePooling.suits(module) and all(weight.device.type == "cpu" for weight in body.parameters()):
            _replace(body, str(node.target), AveragePooling(module))


def _freeze_convolutions(body: fx.GraphModule) -> None:
    """Replace convolutions where there are faster ones, the first one together with its max pooling."""
    for node in list(body.graph.nodes):
        module = _module(body, node)
        if not FrozenConvolution.suits(module) or _calls(body, node.target) > 1:
            continue
        if module.in_channels > 1:
            _replace(body, str(node.target), FrozenConvolution(module))
            continue
        behind = next(iter(node.users)) if len(node.users) == 1 else node
        pooling = _module(body, behind)
        if not ThinConvolution.pools(pooling):
            _replace(body, str(node.target), ThinConvolution(module))
        else:
            _replace(body, str(node.target), ThinConvolution(module, pooling))
            behind.replace_all_uses_with(node)
            body.graph.erase_node(behind)
    body.delete_all_unused_submodules()


def _in_place(body: fx.GraphModule) -> None:
    """Let ReLUs overwrite what nobody else needs, and nothing else."""
    for node in body.graph.nodes:
        module: Any = _module(body, node)
        if not hasattr(module, "inplace"):
            continue
        before = node.args[0]
        alone = isinstance(before, fx.Node) and len(before.users) == 1 and _calls(body, node.target) == 1
        fits = alone and isinstance(_module(body, before), _OVERWRITABLE)
        module.inplace = plain(module, nn.ReLU) and fits


def _keep_wanted(body: fx.GraphModule) -> None:
    """Copy wanted values if something else may overwrite them, as `x += y` does."""
    # What a ReLU may overwrite has been settled.
    writes = any(node.op != "call_module" and overwrites(node, body) for node in body.graph.nodes)
    (end,) = (node for node in body.graph.nodes if node.op == "output")
    if not writes:
        return
    kept = []
    for node in end.args[0]:
        with body.graph.inserting_after(node):
            kept.append(body.graph.call_method("clone", (node,)))
    end.args = (tuple(kept),)
