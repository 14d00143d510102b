"""Resize: every axis by itself, as a weighted sum of planes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from models.onnx_graph.graph import Node, Refused
from models.onnx_graph.operations.base import Local, numbers, operator
from models.onnx_graph.operations.reach import enlarged
from models.views import Shapes, View

_COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
                "tf_half_pixel_for_nn", "tf_crop_and_resize")  # fmt: skip
_ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}


@dataclass(frozen=True)
class _Axis:
    """How one axis is resized: sizes before and after, their ratio, and the part that is kept."""

    size: int
    wanted: int
    scale: float
    begin: float = 0.0
    end: float = 1.0


@dataclass(frozen=True)
class Resizing:
    """The attributes of a Resize node."""

    mode: str
    coordinates: str
    rounding: str
    cubic: float
    exclude: bool
    outside: float
    antialias: bool
    policy: str

    @classmethod
    def of(cls, node: Node) -> Resizing:
        """Read them, and refuse what is unknown."""
        found = cls(
            node.text("mode", "nearest"),
            node.text("coordinate_transformation_mode", "half_pixel"),
            node.text("nearest_mode", "round_prefer_floor"),
            node.number("cubic_coeff_a", -0.75),
            node.flag("exclude_outside"),
            node.number("extrapolation_value", 0.0),
            node.flag("antialias"),
            node.text("keep_aspect_ratio_policy", "stretch"),
        )
        known = found.mode in ("nearest", "linear", "cubic") and found.coordinates in _COORDINATES
        if not known or found.rounding not in _ROUNDINGS:
            raise Refused(f"mode {found.mode!r:.40} with {found.coordinates!r:.40} is not covered")
        if found.policy not in ("stretch", "not_larger", "not_smaller"):
            raise Refused(f"keep_aspect_ratio_policy {found.policy!r:.40} is not covered")
        return found

    def axes(
        self, shape: Sequence[int], chosen: Sequence[int], scales: Sequence[float], sizes: Sequence[int],
        region: Sequence[float],
    ) -> dict[int, _Axis]:  # fmt: skip
        """Return how each axis that changes is resized."""
        if sizes:
            ratios = [size / shape[axis] for size, axis in zip(sizes, chosen, strict=True)]
            if self.policy != "stretch":
                ratios = [(min if self.policy == "not_larger" else max)(ratios)] * len(ratios)
                sizes = [
                    math.floor(ratio * shape[axis] + 0.5) for ratio, axis in zip(ratios, chosen, strict=True)
                ]
        else:
            ratios = list(scales)
        crops = self.coordinates == "tf_crop_and_resize" and len(region) == 2 * len(chosen)
        found = {}
        for index, (axis, ratio) in enumerate(zip(chosen, ratios, strict=True)):
            begin, end = (region[index], region[index + len(chosen)]) if crops else (0.0, 1.0)
            wanted = sizes[index] if sizes else math.floor(shape[axis] * ratio * (end - begin) + 1e-9)
            if ratio != 1 or (begin, end) != (0.0, 1.0) or wanted != shape[axis]:
                found[axis] = _Axis(shape[axis], wanted, ratio, begin, end)
        return found

    def places(self, axis: _Axis, device: str) -> Tensor:
        """Return where each new plane lies among the old ones."""
        # In float32, as onnxruntime: where rounding decides which plane is the nearest, both take the same.
        at = torch.arange(axis.wanted, dtype=torch.float32, device=device)
        match self.coordinates:
            case "asymmetric":
                return at / axis.scale
            case "align_corners":
                return at * ((axis.size - 1) / (axis.wanted - 1)) if axis.wanted > 1 else at * 0
            case "tf_half_pixel_for_nn":
                return (at + 0.5) / axis.scale
            case "tf_crop_and_resize":
                first, last = axis.begin * (axis.size - 1), axis.end * (axis.size - 1)
                step = (last - first) / (axis.wanted - 1) if axis.wanted > 1 else 0.0
                return first + at * step if axis.wanted > 1 else at + (first + last) / 2
            case "pytorch_half_pixel" if axis.wanted <= 1:
                return at * 0
            case "half_pixel_symmetric":
                # The centre stays where it is if the new size is not the ratio times the old one.
                adjusted = axis.wanted / (axis.scale * axis.size)
                centre = axis.size / 2
                return centre * (1 - adjusted) + (at + 0.5) / axis.scale - 0.5
        return (at + 0.5) / axis.scale - 0.5

    def weights(self, axis: _Axis, device: str) -> tuple[Tensor, Tensor]:
        """Return which old planes each new one is made of, and their weights, `(new planes, neighbours)`."""
        at = self.places(axis, device)
        if self.mode == "nearest":
            return self._round(at).clamp(0, axis.size - 1).unsqueeze(1), torch.ones(len(at), 1, device=device)
        stretch = min(axis.scale, 1.0) if self.antialias else 1.0
        radius = (1 if self.mode == "linear" else 2) / stretch
        span = math.ceil(2 * radius) + 1
        planes = torch.floor(at - radius).long().unsqueeze(1) + torch.arange(span, device=device)
        distance = (planes - at.unsqueeze(1)) * stretch
        weights = self._kernel(distance.abs())
        inside = (planes >= 0) & (planes < axis.size)
        if self.exclude:
            weights = weights * inside
        weights = weights / weights.sum(1, keepdim=True)
        return planes.clamp(0, axis.size - 1), weights

    def _kernel(self, distance: Tensor) -> Tensor:
        if self.mode == "linear":
            return (1 - distance).clamp(min=0)
        a = self.cubic
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = a * (((distance - 5) * distance + 8) * distance - 4)
        return torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))

    def _round(self, at: Tensor) -> Tensor:
        match self.rounding:
            case "floor":
                return at.floor().long()
            case "ceil":
                return at.ceil().long()
            case "round_prefer_floor":
                return (at - 0.5).ceil().long()
        return (at + 0.5).floor().long()


@operator("Resize", becomes="`torch.nn.functional.interpolate` where that computes the same, else "
          "weighted sums of planes by `Tensor.index_select`", numbers=(1, 2, 3))  # fmt: skip
def resize(node: Node) -> Local:
    """Build a resampling to other sizes."""
    settings, given = Resizing.of(node), node.wholes("axes", [])

    def compute(
        x: Tensor, region: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None
    ) -> Tensor:
        chosen = [axis % x.ndim for axis in given] or list(range(x.ndim))
        axes = settings.axes(x.shape, chosen, numbers(scales), numbers(sizes), numbers(region))
        if _as_torch(settings, x, axes):
            return _interpolated(settings, x, axes)
        for index, axis in axes.items():
            x = _resampled(x, index, *settings.weights(axis, _beside(x)))
        if settings.coordinates == "tf_crop_and_resize":
            x = _outside(x, settings, axes)
        return x

    return Local(compute, _follow)


def _beside(x: Tensor) -> str:
    """Return where the places of planes are computed: a GPU divides otherwise than a CPU."""
    return "meta" if x.is_meta else "cpu"


def _as_torch(settings: Resizing, x: Tensor, axes: dict[int, _Axis]) -> bool:
    """Tell whether torch's own interpolation computes the same."""
    exact = all(axis.wanted == axis.size * axis.scale for axis in axes.values())
    if x.ndim not in _LINEAR or not set(axes) <= set(range(2, x.ndim)) or not x.is_floating_point():
        return False
    if settings.mode == "linear" and not settings.antialias and not settings.exclude:
        half = settings.coordinates in ("half_pixel", "pytorch_half_pixel")
        return settings.coordinates == "align_corners" or (
            exact and half and all(axis.wanted > 1 for axis in axes.values())
        )
    whole = all(float(axis.scale).is_integer() for axis in axes.values())
    by_floor = settings.coordinates == "asymmetric" and settings.rounding == "floor"
    by_middle = settings.coordinates == "half_pixel" and settings.rounding.startswith("round")
    return settings.mode == "nearest" and exact and whole and (by_floor or by_middle)


def _interpolated(settings: Resizing, x: Tensor, axes: dict[int, _Axis]) -> Tensor:
    sizes = [axes[axis].wanted if axis in axes else x.shape[axis] for axis in range(2, x.ndim)]
    if settings.mode == "nearest":
        return functional.interpolate(x, sizes, mode="nearest")
    corners = settings.coordinates == "align_corners"
    return functional.interpolate(x, sizes, mode=_LINEAR[x.ndim], align_corners=corners)


def _resampled(x: Tensor, index: int, planes: Tensor, weights: Tensor) -> Tensor:
    planes = planes.to(x.device)
    if weights.shape[1] == 1:
        return x.index_select(index, planes[:, 0])
    total: Any = 0
    for one, weight in zip(planes.unbind(1), weights.to(x.device, x.dtype).unbind(1), strict=True):
        total = total + x.index_select(index, one) * weight.reshape(-1, *[1] * (x.ndim - index - 1))
    out: Tensor = total
    return out


def _outside(x: Tensor, settings: Resizing, axes: dict[int, _Axis]) -> Tensor:
    """Replace what was asked for from beyond the volume."""
    for index, axis in axes.items():
        at = settings.places(axis, _beside(x))
        beyond = ((at < 0) | (at > axis.size - 1)).to(x.device).reshape(-1, *[1] * (x.ndim - index - 1))
        x = torch.where(beyond, torch.full_like(x, settings.outside), x)
    return x


def _follow(node: Node, views: Sequence[View], shapes: Shapes) -> View:
    settings = Resizing.of(node)
    pairs = list(zip(shapes.inputs[0], shapes.output, strict=True))
    simple = settings.coordinates in ("half_pixel", "pytorch_half_pixel", "asymmetric")
    if not simple or any(after % before for before, after in pairs) or settings.rounding == "ceil":
        return views[0].widened()
    neighbours = {"nearest": 0, "linear": 1, "cubic": 2}[settings.mode]
    if settings.mode == "nearest" and settings.coordinates == "asymmetric" and settings.rounding != "floor":
        neighbours = 1
    return enlarged([after // before for before, after in pairs[2:]], neighbours, views[0])
