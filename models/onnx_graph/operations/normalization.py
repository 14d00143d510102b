"""Normalizations as they act in evaluation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.onnx_graph.graph import Node, Refused
from models.onnx_graph.operations.base import Leaf, Local, operator, plain_data, refuse_output, spatial
from models.onnx_graph.operations.reach import elementwise

_BATCH = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_INSTANCE = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


@operator("BatchNormalization", becomes="`nn.BatchNorm1d`, `nn.BatchNorm2d`, `nn.BatchNorm3d`; "
          "`torch.batch_norm` where figures are computed")  # fmt: skip
def batch_norm(node: Node) -> Any:
    """Build a batch norm with the statistics it has learnt."""
    refuse_output(node, 1, 2, 3, 4)
    if node.flag("training_mode"):
        raise Refused("training_mode is set; export the network in evaluation mode")
    eps, scale = node.number("epsilon", 1e-5), node.weight(1)
    if scale and plain_data(node, 1, 2, 3, 4) and node.rank in (2, 3, 4, 5):
        names = ("weight", "bias", "running_mean", "running_var")
        fills: dict[str, Any] = {name: lambda w, i=i: w[i] for i, name in enumerate(names, start=1)}
        fills["num_batches_tracked"] = lambda w: torch.tensor(0)
        return Leaf(_BATCH[node.rank - 2](math.prod(scale.shape), eps), fills)

    def compute(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return functional.batch_norm(x, mean, variance, scale, bias, eps=eps)

    return Local(compute, lambda node, views, shapes: views[0])


@operator("InstanceNormalization", becomes="`nn.InstanceNorm1d`, `nn.InstanceNorm2d`, `nn.InstanceNorm3d`; "
          "`torch.instance_norm` where figures are computed")  # fmt: skip
def instance_norm(node: Node) -> Any:
    """Build an instance norm."""
    eps, scale, axes = node.number("epsilon", 1e-5), node.weight(1), spatial(node)
    if scale and axes and plain_data(node, 1, 2):
        module = _INSTANCE[axes](math.prod(scale.shape), eps, affine=True)
        return Leaf(module, {"weight": lambda w: w[1], "bias": lambda w: w[2]})
    return lambda x, scale, bias: functional.instance_norm(x, weight=scale, bias=bias, eps=eps)


@operator("GroupNormalization", becomes="`nn.GroupNorm`; `torch.group_norm` where figures are computed")
def group_norm(node: Node) -> Any:
    """Build a group norm. Before opset 21 there is one factor per group, since then one per channel."""
    eps, groups, scale = node.number("epsilon", 1e-5), node.whole("num_groups"), node.weight(1)
    if scale and plain_data(node, 1, 2) and node.opset >= 21:
        module = nn.GroupNorm(groups, math.prod(scale.shape), eps)
        return Leaf(module, {"weight": lambda w: w[1], "bias": lambda w: w[2]})

    def compute(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        each = x.shape[1] // scale.numel()
        scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
        return functional.group_norm(x, groups, scale, bias, eps)

    return compute


@operator("LayerNormalization", becomes="`nn.LayerNorm`; `torch.layer_norm` where figures are computed")
def layer_norm(node: Node) -> Any:
    """Build a layer norm over all axes from the given one on."""
    eps, axis, scale = node.number("epsilon", 1e-5), node.whole("axis", -1), node.weight(1)
    if scale and node.output == 0 and node.rank and plain_data(node, 1, 2):
        inner = node.rank - axis % node.rank
        if len(scale.shape) == inner:
            fills: dict[str, Any] = {"weight": lambda w: w[1]}
            if node.has(2):
                fills["bias"] = lambda w: w[2]
            return Leaf(nn.LayerNorm(scale.shape, eps, bias=node.has(2)), fills)

    def compute(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> list[Tensor]:
        axes = list(range(axis % x.ndim, x.ndim))
        mean = x.mean(axes, keepdim=True)
        deviation = ((x - mean).square().mean(axes, keepdim=True) + eps).rsqrt()
        out = (x - mean) * deviation * scale
        return [out if bias is None else out + bias, mean, deviation]

    return compute


@operator("LRN", becomes="`torch.avg_pool3d` over channels")
def local_response_norm(node: Node) -> Local:
    """Build a local response norm over neighbouring channels."""
    size = node.whole("size")
    alpha, beta, bias = node.number("alpha", 1e-4), node.number("beta", 0.75), node.number("bias", 1.0)
    before, after = (size - 1) // 2, size // 2

    def compute(x: Tensor) -> Tensor:
        squares = functional.pad(x.square().flatten(2), (0, 0, before, after))
        sums = squares.unfold(1, size, 1).sum(-1).reshape(x.shape)
        return x / (bias + alpha / size * sums) ** beta

    return Local(compute, elementwise)


@operator("LpNormalization", becomes="`torch.linalg.vector_norm`")
def lp_norm(node: Node) -> Any:
    """Build a division by the p-norm along an axis; what is all zeros stays so."""
    axis, p = node.whole("axis", -1), node.whole("p", 2)

    def compute(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
        return x / torch.where(norm == 0, torch.ones_like(norm), norm)

    return compute


@operator("MeanVarianceNormalization", becomes="`torch.mean`")
def mean_variance_norm(node: Node) -> Any:
    """Build a normalization to mean 0 and variance 1 over some axes."""
    axes = node.wholes("axes", [0, 2, 3])

    def compute(x: Tensor) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)

    return compute
