"""How much a graph may make, seen before it is made.

A few bytes of a graph can ask for any amount of memory. What is made of data is measured on the meta device;
what is made of shapes alone lies on the CPU even then, so that each such operator is measured for itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.onnx_graph.graph import Node, Refused

MAX_SIZED = 1 << 16
"""Most numbers of a value that is made of shapes alone."""
MAX_REPEATED = 1 << 28
"""Most numbers of such a value if they are stored once and repeated."""
_SIZED_BYTES = 1 << 24
# Whatever their numbers are, these make at most as many as their inputs have, multiplied or added up.
_MAKE_NO_MORE = frozenset({
    "Abs", "Add", "And", "Cast", "Ceil", "Concat", "Div", "Equal", "Floor", "Gather", "Greater",
    "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or",
    "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Round", "Slice", "Sqrt", "Squeeze",
    "Sub", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip


class Measured(TorchDispatchMode):
    """While it is entered, no tensor on the meta device may be larger than a bound, those in between too.

    Parameters
    ----------
    most : int
        Bytes.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and look at what it made."""
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, Tensor) and one.is_meta and one.nbytes > self.most:
                raise Refused(f"its result has {one.numel()} numbers; at most {self.most} bytes are accepted")
        return made


def count(op: str, inputs: Sequence[Tensor | None]) -> int | None:
    """Return how many numbers an operator will make out of a few.

    Parameters
    ----------
    op : str
        ONNX's name.
    inputs : sequence of torch.Tensor or None
        Its inputs.

    Returns
    -------
    int or None
        None if that is seen from the inputs' shapes.
    """
    if op == "ConstantOfShape":
        (sizes,) = inputs
        return None if sizes is None else math.prod(sizes.tolist())
    if op == "Range":
        start, limit, step = (0 if one is None else one.item() for one in inputs)
        return abs(int((limit - start) / step)) + 1 if step else 0
    return None


def check_sized(
    node: Node, compute: Callable[..., Any], by_number: Callable[[int], bool], inputs: Sequence[Tensor | None]
) -> None:
    """Refuse what an operator would make of shapes alone if it is more than a few numbers.

    Parameters
    ----------
    node : Node
        The operator.
    compute : callable
        What it does.
    by_number : callable
        Tells of which inputs the numbers must be known.
    inputs : sequence of torch.Tensor or None
        On the CPU.

    Raises
    ------
    Refused
        With how many numbers there would be.
    """
    if node.op in ("Shape", "Size"):
        return
    lengths = [math.prod(one.shape) for one in inputs if one is not None]
    repeats = node.op in ("ConstantOfShape", "Expand")
    # The numbers of an input are what is repeated; what they are read from is few in any case.
    longest = max(lengths[1:] if node.op == "Expand" else lengths, default=0)
    if longest > MAX_SIZED:
        _refuse(node, "reads", longest, MAX_SIZED)
    if node.op in _MAKE_NO_MORE and max(math.prod(lengths), sum(lengths)) <= MAX_SIZED:
        return
    made = count(node.op, inputs)
    if made is None:
        given = [one if one is None or by_number(i) else one.to("meta") for i, one in enumerate(inputs)]
        with Measured(MAX_REPEATED * 8 if repeats else _SIZED_BYTES), torch.no_grad():
            made = sum(math.prod(one.shape) for one in tree_leaves(compute(*given)))
    most = MAX_REPEATED if repeats else MAX_SIZED
    if made > most:
        _refuse(node, "makes", made, most)


def _refuse(node: Node, does: str, found: int, most: int) -> None:
    raise Refused(
        f"node {node.name or node.outputs[0]!r} ({node.op}) {does} {found} numbers out of shapes alone; "
        f"at most {most} are accepted"
    )
