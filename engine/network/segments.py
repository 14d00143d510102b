"""Less memory for more time: activations that are computed again on the way back.

A graph is cut into segments where a single value passes from one part to the
next. Of each segment only what enters it is kept (Chen et al. 2016, "Training
deep nets with sublinear memory cost"); the step takes about a third longer.
"""

import math
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.split_module import split_module
from torch.utils.checkpoint import checkpoint

from engine.network.graph import overwrites

# A value that is so much smaller than what came since the last cut is a good place for the next.
_SHRINKS = 4


class _Recomputed(nn.Module):
    """A segment of which only the inputs are kept."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.inner(*inputs)
        return checkpoint(self.inner, *inputs, use_reentrant=False, preserve_rng_state=False)


class _Sizes(fx.Interpreter):
    """Runs a graph and notes how many bytes each value takes."""

    def __init__(self, body: fx.GraphModule) -> None:
        super().__init__(body)
        self.bytes: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and n.op != "placeholder":
            self.bytes[n] = value.nbytes
        return value


@torch.no_grad()
def sizes(body: fx.GraphModule, volume: Tensor) -> dict[fx.Node, int]:
    """Return the bytes of every value of a graph on volumes; each lives no longer than it is needed."""
    runner = _Sizes(body)
    runner.run(volume)
    return runner.bytes


def segmented(body: fx.GraphModule, found: dict[fx.Node, int]) -> nn.Module | None:
    """Return a graph in segments that are computed again on the way back, or None if there is but one.

    Parameters
    ----------
    body : fx.GraphModule
        The graph; the segments share its weights.
    found : dict of fx.Node to int
        The bytes of its values, from `sizes`.
    """
    cuts = _cuts(body, found)
    if not cuts:
        return None
    part, number = {}, 0
    for node in body.graph.nodes:
        part[node.name] = number
        number += node in cuts
    whole = split_module(body, body, lambda node: part[node.name], keep_original_order=True)
    for name, child in list(whole.named_children()):
        if name.startswith("submod_"):
            setattr(whole, name, _Recomputed(child))
    return whole


def _cuts(body: fx.GraphModule, found: dict[fx.Node, int]) -> set[fx.Node]:
    """Return the nodes behind which the graph is cut."""
    places = [node for node in _single_files(body) if node in found]
    enough = sum(found.values()) / max(1, math.sqrt(len(places)))
    cuts, since = set(), 0
    for node in body.graph.nodes:
        since += found.get(node, 0)
        if node in places and (since >= enough or since >= _SHRINKS * found[node]):
            cuts.add(node)
            since = 0
    # What lies behind the last cut would be computed again for nothing if it is the end itself.
    return {node for node in cuts if not all(user.op == "output" for user in node.users)}


def _single_files(body: fx.GraphModule) -> list[fx.Node]:
    """Return the nodes behind which no other value is still needed, and which nothing overwrites."""
    nodes = list(body.graph.nodes)
    order = {node: index for index, node in enumerate(nodes)}
    (end,) = (node for node in nodes if node.op == "output")
    found, needed = [], -1
    for index, node in enumerate(nodes[:-1]):
        # What is wanted itself leaves at once and does not count.
        uses = [order[user] for user in node.users if user is not end]
        if (
            node.op == "call_module"
            and needed <= index
            and uses
            and not any(overwrites(user, body) for user in node.users)
        ):
            found.append(node)
        needed = max([needed, *uses])
    return found
