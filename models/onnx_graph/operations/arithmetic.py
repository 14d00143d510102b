"""Arithmetic and comparisons, element by element with broadcasting; products of matrices."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from models.onnx_graph.graph import Node, Refused, Weight
from models.onnx_graph.operations.base import Leaf, Local, operator, plain_data
from models.onnx_graph.operations.reach import elementwise


def divide(a: Tensor, b: Tensor) -> Tensor:
    """Divide; whole numbers are cut off towards zero."""
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def power(a: Tensor, b: Tensor) -> Tensor:
    """Raise to a power, in the base's numbers."""
    return torch.pow(a, b).to(a.dtype)


_ELEMENTWISE: dict[str, Callable[..., Tensor]] = {
    "Abs": torch.abs, "Neg": torch.neg, "Reciprocal": torch.reciprocal, "Sqrt": torch.sqrt, "Exp": torch.exp,
    "Log": torch.log, "Erf": torch.erf, "Sin": torch.sin, "Cos": torch.cos, "Tan": torch.tan,
    "Asin": torch.asin, "Acos": torch.acos, "Atan": torch.atan, "Sinh": torch.sinh, "Cosh": torch.cosh,
    "Asinh": torch.asinh, "Acosh": torch.acosh, "Atanh": torch.atanh,
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul,
}  # fmt: skip
_STEPS: dict[str, Callable[..., Tensor]] = {
    "Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round, "Sign": torch.sign,
    "IsNaN": torch.isnan, "Not": torch.logical_not, "And": torch.logical_and, "Or": torch.logical_or,
    "Xor": torch.logical_xor, "Equal": torch.eq, "Less": torch.lt, "LessOrEqual": torch.le,
    "Greater": torch.gt, "GreaterOrEqual": torch.ge,
}  # fmt: skip
_FOLDED: dict[str, tuple[Callable[..., Tensor], str]] = {
    "Sum": (lambda *values: reduce(torch.add, values), "torch.add"),
    "Max": (lambda *values: reduce(torch.maximum, values), "torch.maximum"),
    "Min": (lambda *values: reduce(torch.minimum, values), "torch.minimum"),
    "Mean": (lambda *values: reduce(torch.add, values) / len(values), "torch.add"),
}


def _enter(name: str, function: Callable[..., Tensor], becomes: str, smooth: bool = True) -> None:
    operator(name, becomes=f"`{becomes}`", smooth=smooth)(lambda node: Local(function, elementwise))


for _name, _function in _ELEMENTWISE.items():
    _enter(_name, _function, f"torch.{_function.__name__}")
for _name, _function in _STEPS.items():
    _enter(_name, _function, f"torch.{_function.__name__}", smooth=False)
for _name, (_function, _becomes) in _FOLDED.items():
    _enter(_name, _function, _becomes)
_enter("Div", divide, "torch.div")
_enter("Pow", power, "torch.pow")
_enter("Where", torch.where, "torch.where")


@operator("Mod", becomes="`torch.remainder`, `torch.fmod`")
def modulo(node: Node) -> Local:
    """Build a remainder with the divisor's sign, or with the dividend's where `fmod` is set."""
    return Local(torch.fmod if node.flag("fmod") else torch.remainder, elementwise)


@operator("IsInf", becomes="`torch.isposinf`, `torch.isneginf`", smooth=False)
def is_inf(node: Node) -> Local:
    """Build a test for infinity of either sign."""
    positive, negative = node.flag("detect_positive", True), node.flag("detect_negative", True)

    def compute(x: Tensor) -> Tensor:
        none = torch.zeros_like(x, dtype=torch.bool)
        return (torch.isposinf(x) if positive else none) | (torch.isneginf(x) if negative else none)

    return Local(compute, elementwise)


@operator("MatMul", becomes="`nn.Linear` where the second factor is a weight matrix, else `torch.matmul`")
def matmul(node: Node) -> Any:
    """Build a product of matrices."""
    weight = node.weight(1)
    if weight is None or len(weight.shape) != 2 or not plain_data(node, 1) or not _floating(weight):
        return torch.matmul
    inputs, outputs = weight.shape
    return Leaf(nn.Linear(inputs, outputs, bias=False), {"weight": lambda w: w[1].t()})


def _floating(*weights: Weight | None) -> bool:
    return all(weight is None or weight.dtype.is_floating_point for weight in weights)


@operator("Gemm", becomes="`nn.Linear` where the factors fit, else `torch.matmul`")
def gemm(node: Node) -> Any:
    """Build a general product of matrices with an addend."""
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    left, right = node.flag("transA"), node.flag("transB")
    weight, bias = node.weight(1), node.weight(2)
    count = weight.shape[0 if right else -1] if weight and len(weight.shape) == 2 else 0
    fits = not bias or bias.shape in ((count,), (1, count), (1,), ())
    if count and fits and not left and plain_data(node, 1, 2) and _floating(weight, bias):
        return _linear(alpha, beta, right, weight.shape, node.has(2))  # type: ignore[union-attr]

    def compute(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        product = _scaled((a.t() if left else a) @ (b.t() if right else b), alpha)
        return product if c is None else product + _scaled(c, beta)

    return compute


def _scaled(x: Tensor, factor: float) -> Tensor:
    """Whole numbers stay whole."""
    return x if factor == 1 else x * (factor if x.is_floating_point() else int(factor))


def _linear(alpha: float, beta: float, right: bool, shape: tuple[int, ...], bias: bool) -> Leaf:
    outputs, inputs = shape if right else shape[::-1]
    fills = {"weight": lambda w: alpha * (w[1] if right else w[1].t())}
    if bias:
        fills["bias"] = lambda w: (beta * w[2].flatten()).expand(outputs)
    return Leaf(nn.Linear(inputs, outputs, bias=bias), fills)


@operator("Einsum", becomes="`torch.einsum`")
def einsum(node: Node) -> Any:
    """Build a sum of products by the indices' names."""
    equation = node.text("equation")
    if not equation or len(equation) > 256:
        raise Refused(
            f"attribute 'equation' must be an equation of at most 256 letters, got {equation!r:.60}"
        )
    return lambda *values: torch.einsum(equation, *values)


@operator("CumSum", becomes="`torch.cumsum`", numbers=(1,))
def cumulated_sum(node: Node) -> Any:
    """Build a running sum along an axis."""
    exclusive, backwards = node.flag("exclusive"), node.flag("reverse")

    def compute(x: Tensor, axis: Tensor) -> Tensor:
        along = int(axis.item())
        values = x.flip(along) if backwards else x
        total = values.cumsum(along).to(x.dtype)
        total = total - values if exclusive else total
        return total.flip(along) if backwards else total

    return compute
