"""Activations: torch's own modules wherever they compute the same."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.onnx_graph.graph import Node
from models.onnx_graph.operations.base import Leaf, Local, numbers, operator, plain_data
from models.onnx_graph.operations.reach import elementwise

_SELU = (1.6732632423543772, 1.0507009873554805)


def _enter(name: str, module: type[nn.Module]) -> None:
    operator(name, becomes=f"`nn.{module.__name__}`")(lambda node: module())


for _name, _module in {
    "Relu": nn.ReLU,
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
    "Softplus": nn.Softplus,
    "Softsign": nn.Softsign,
    "HardSwish": nn.Hardswish,
    "Mish": nn.Mish,
}.items():
    _enter(_name, _module)


@operator("LeakyRelu", becomes="`nn.LeakyReLU`")
def leaky_relu(node: Node) -> nn.Module:
    """Build a leaky ReLU."""
    return nn.LeakyReLU(node.number("alpha", 0.01))


@operator("Elu", becomes="`nn.ELU`")
def elu(node: Node) -> nn.Module:
    """Build an ELU."""
    return nn.ELU(node.number("alpha", 1.0))


@operator("Celu", becomes="`nn.CELU`")
def celu(node: Node) -> nn.Module:
    """Build a CELU."""
    return nn.CELU(node.number("alpha", 1.0))


@operator("Selu", becomes="`nn.SELU`; a function of its own where alpha and gamma are not the paper's")
def selu(node: Node) -> Any:
    """Build a SELU."""
    alpha, gamma = node.number("alpha", _SELU[0]), node.number("gamma", _SELU[1])
    if math.isclose(alpha, _SELU[0], rel_tol=1e-6) and math.isclose(gamma, _SELU[1], rel_tol=1e-6):
        return nn.SELU()
    return Local(lambda x: gamma * functional.elu(x, alpha), elementwise)


@operator("Gelu", becomes="`nn.GELU`")
def gelu(node: Node) -> nn.Module:
    """Build a GELU, exact or by tanh."""
    return nn.GELU(node.text("approximate", "none"))


@operator("HardSigmoid", becomes="`nn.Hardsigmoid` where alpha is 1/6 and beta 1/2, else `torch.clamp`")
def hard_sigmoid(node: Node) -> Any:
    """Build a hard sigmoid."""
    alpha, beta = node.number("alpha", 0.2), node.number("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return nn.Hardsigmoid()
    return Local(lambda x: (alpha * x + beta).clamp(0, 1), elementwise)


@operator("ThresholdedRelu", becomes="`nn.Threshold`")
def thresholded_relu(node: Node) -> nn.Module:
    """Build a ReLU that opens at a threshold."""
    return nn.Threshold(node.number("alpha", 1.0), 0.0)


@operator("Shrink", becomes="`torch.where`")
def shrink(node: Node) -> Local:
    """Build a shrinkage: soft where the bias is the threshold, hard where it is 0."""
    bias, edge = node.number("bias", 0.0), node.number("lambd", 0.5)

    def compute(x: Tensor) -> Tensor:
        moved = torch.where(x > edge, x - bias, x + bias)
        return torch.where(x.abs() > edge, moved, torch.zeros_like(x)).to(x.dtype)

    return Local(compute, elementwise)


@operator("PRelu", becomes="`nn.PReLU` where there is one slope, or one per channel; else `torch.where`")
def prelu(node: Node) -> Any:
    """Build a ReLU with learnt slopes."""
    slope = node.weight(1)
    count = math.prod(slope.shape) if slope else 0
    axes = node.rank - 1 if node.rank else 0
    per_channel = slope and axes and slope.shape[-axes:] == (count, *[1] * (axes - 1))
    if slope and plain_data(node, 1) and (count == 1 or per_channel):
        return Leaf(nn.PReLU(count), {"weight": lambda w: w[1].flatten()})
    return Local(lambda x, slope: torch.where(x < 0, slope * x, x), elementwise)


@operator("Clip", becomes="`nn.ReLU`, `nn.ReLU6`, `nn.Hardtanh` or `torch.clamp`", numbers=(1, 2))
def clip(node: Node) -> Any:
    """Build a clipping to bounds, each of which may be left out."""
    low, high = node.constant(1), node.constant(2)
    if low is not None and low.is_floating_point() and plain_data(node):
        least = low.item()
        if least == 0 and not node.has(2):
            return nn.ReLU()
        if high is not None and least < high.item():
            return nn.ReLU6() if (least, high.item()) == (0, 6) else nn.Hardtanh(least, high.item())

    def compute(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        bounds = [numbers(bound)[0] if bound is not None else None for bound in (low, high)]
        return x.clamp(*bounds) if any(bound is not None for bound in bounds) else x

    return Local(compute, elementwise)


def _softmax(node: Node, module: type[nn.Module], function: Any) -> Any:
    """Since opset 13 along one axis; before, along all axes from the given one on."""
    if node.opset >= 13:
        return module(node.whole("axis", -1))
    axis = node.whole("axis", 1)
    if node.rank and axis % node.rank == node.rank - 1:
        return module(axis)

    def compute(x: Tensor) -> Tensor:
        first = axis % x.ndim if x.ndim else 0
        return function(x.flatten(first), dim=-1).reshape(x.shape)

    return compute


@operator(
    "Softmax", becomes="`nn.Softmax`; before opset 13 over several axes as `torch.softmax` of them flattened"
)
def softmax(node: Node) -> Any:
    """Build a softmax."""
    return _softmax(node, nn.Softmax, torch.softmax)


@operator("LogSoftmax", becomes="`nn.LogSoftmax`; before opset 13 as for Softmax")
def log_softmax(node: Node) -> Any:
    """Build the logarithm of a softmax."""
    return _softmax(node, nn.LogSoftmax, torch.log_softmax)
