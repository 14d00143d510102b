"""The gradients of operators against finite differences, on the inputs of ONNX's own node tests."""

from typing import Any

import torch
from torch import Tensor

from models.onnx_graph.operations import OPERATORS
from tests.models.onnx_graph import node_cases

MOST = 20_000
"""Numbers in a case's inputs."""
# What a batch norm has learnt of its data: torch gives no gradient on it.
STATISTICS = {"BatchNormalization": (3, 4)}
_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


def moved(value: Tensor) -> Tensor:
    """Return an input in float64, away from the corners of functions: tests like to ask at exactly 0 or 1.

    What is moved grows by a hundredth of itself, so that it stays where logarithms and powers are defined.
    """
    generator = torch.Generator().manual_seed(value.numel())
    draws = torch.rand(value.shape, generator=generator, dtype=torch.float64)
    return value.double() * (0.99 + 0.01 * draws) + 0.001 * draws * (value == 0)


def inputs(case: Any) -> list[Tensor]:
    """Return a case's inputs; those that float and are no settings ask for a gradient."""
    node = case.model.graph.node[0]
    fixed = [index for index, name in enumerate(node.input) if OPERATORS[node.op_type].reads_numbers(index)]
    still = [
        node.input[index] for index in (*fixed, *STATISTICS.get(node.op_type, ())) if index < len(node.input)
    ]
    found = []
    for one, stored in zip(case.model.graph.input, case.data_sets[0][0], strict=True):
        value = node_cases.to_torch(stored)
        if value.is_floating_point():
            value = value.double() if one.name in still else moved(value).requires_grad_()
        found.append(value)
    return found


def check(case: Any) -> bool:
    """Compare a case's gradient with finite differences; False if it is too large or has none."""
    given = inputs(case)
    if sum(value.numel() for value in given) > MOST or any(value.dtype in _UNSIGNED for value in given):
        return False
    network = node_cases.network(case).double()

    def floating(*values: Tensor) -> tuple[Tensor, ...]:
        return tuple(out for out in network.run(*values) if out.is_floating_point())

    outputs = floating(*given)
    if not any(out.requires_grad and out.numel() for out in outputs):
        return False
    if not all(bool(out.isfinite().all()) for out in outputs):
        return False
    # Along random directions, which costs a few passes instead of one for every number.
    return torch.autograd.gradcheck(floating, given, fast_mode=True)
