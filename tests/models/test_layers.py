"""The table of rules against a second implementation: how far NaN travels through the real network."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from models import Layer, layer_table
from models.architectures import build

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
MAX_POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVERAGE_POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
ADAPTIVE = {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveAvgPool3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def reach(network: nn.Module, layer: str, shape: Sequence[int], axis: int) -> torch.Tensor:
    """Say which input planes reach which positions of a layer along one axis, by putting NaN into each plane.

    Returns bool, shape (planes of the input, positions of the output along the axis).
    """
    volumes = torch.ones(shape[axis], 1, *shape)
    for plane in range(shape[axis]):
        volumes[plane].select(axis + 1, plane).fill_(float("nan"))
    seen: list[torch.Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.no_grad():
        network.eval()(volumes)
    handle.remove()
    hit = seen[0].isnan()
    return hit.amax(dim=[d for d in range(1, hit.ndim) if d != axis + 2])


def extent_and_stride(hit: torch.Tensor) -> tuple[int, int]:
    """Reduce `reach`'s answer to the widest extent and the distance between two positions that have it."""
    hit = hit[:, hit.any(dim=0)]  # a position that sees padding alone has no extent
    first = hit.int().argmax(dim=0)
    extents = hit.shape[0] - hit.flip(0).int().argmax(dim=0) - first
    # Near the border padding hides a part of the field, so only the widest ones are whole.
    whole = (extents == extents.max()).nonzero().flatten()
    assert len(whole) >= 2, "the input is too small to measure"
    return int(extents.max()), int(first[whole[1]] - first[whole[0]])


def center_of_whole_fields(hit: torch.Tensor, layer: Layer, axis: int) -> None:
    """Compare the middles of fields that the border leaves whole with what the layer says."""
    for position in range(hit.shape[1]):
        planes = hit[:, position].nonzero().flatten()
        if len(planes) and int(planes[-1] - planes[0]) + 1 == layer.receptive_field[axis]:
            middle = layer.center([position] * len(layer.stride))[axis]
            assert float(planes[0] + planes[-1]) / 2 == middle


def measured(network: nn.Module, layer: str, shape: Sequence[int]) -> list[tuple[int, int]]:
    """Return (receptive field, stride) along each axis."""
    return [extent_and_stride(reach(network, layer, shape, axis)) for axis in range(len(shape))]


def tabled(layer: Layer) -> list[tuple[int, int]]:
    """Return what the table says in the same form."""
    return list(zip(layer.receptive_field, layer.stride, strict=True))


def table(network: nn.Module, shape: Sequence[int]) -> dict[str, Layer]:
    return {layer.name: layer for layer in layer_table(network, shape, [1.0] * len(shape))}


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Sequential, int]:
    """Stacks of convolutions, pools, norms and activations, each axis with its own figures."""
    axes = draw(st.integers(1, 3))

    def per_axis(low: int, high: int) -> Any:
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    steps: list[nn.Module] = []
    channels = 1
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["conv", "conv", "same", "max", "average", "dilated max"]))
        kernel = per_axis(1, 3)
        half = tuple(draw(st.integers(0, k // 2)) for k in kernel)
        if kind == "conv":
            options: dict[str, Any] = {
                "stride": per_axis(1, 2),
                "padding": per_axis(0, 2),
                "dilation": per_axis(1, 2),
            }
            steps += [CONV[axes](channels, 2, kernel, **options), NORM[axes](2), nn.LeakyReLU()]
            channels = 2
        elif kind == "same":
            steps.append(CONV[axes](channels, 2, kernel, padding="same", padding_mode="replicate"))
            channels = 2
        elif kind == "max":
            steps.append(
                MAX_POOL[axes](kernel, stride=per_axis(1, 2), padding=half, ceil_mode=draw(st.booleans()))
            )
        elif kind == "dilated max":
            steps.append(MAX_POOL[axes](kernel, stride=1, dilation=2))
        else:
            steps.append(AVERAGE_POOL[axes](kernel, padding=half))
    return nn.Sequential(*steps), axes


@settings(max_examples=60, deadline=None)
@given(networks())
def test_stacks_agree_with_how_far_nan_travels(drawn: tuple[nn.Sequential, int]) -> None:
    network, axes = drawn
    # Wide along the axis that is measured and just wide enough along the others.
    layers = layer_table(network, [200] * axes, [1.0] * axes)
    last = layers[-1]
    assert [layer.name for layer in layers] == [str(i) for i in range(len(network))]
    assert not last.whole_input
    for axis in range(axes):
        needed = [field + 4 for field in last.receptive_field]
        needed[axis] = last.receptive_field[axis] + 8 * last.stride[axis] + 8
        hit = reach(network, last.name, needed, axis)
        assert extent_and_stride(hit) == tabled(last)[axis]
        center_of_whole_fields(hit, last, axis)


class Branches(nn.Module):
    """Branches of unlike reach that meet by addition and by concatenation."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.narrow = CONV[axes](1, 2, 3, padding=1)
        self.wide = CONV[axes](1, 2, 5, padding=2)
        self.shifted = nn.Sequential(CONV[axes](1, 2, 4, padding=0), CONV[axes](2, 2, 2, padding=2))
        self.sum = nn.Identity()
        self.both = nn.Identity()

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        narrow, wide = self.narrow(volume), self.wide(volume)
        total = self.sum(functional.relu(narrow) + wide)
        return self.both(torch.cat([total, self.shifted(volume)], dim=1))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_branches_agree_with_how_far_nan_travels(axes: int) -> None:
    network, shape = Branches(axes), [13] * axes
    found = table(network, shape)
    assert found["both"].channels == 4
    for name in ("narrow", "wide", "sum", "both"):
        assert tabled(found[name]) == measured(network, name, shape), name


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_even_adaptive_pooling_is_a_pooling(axes: int) -> None:
    network = nn.Sequential(CONV[axes](1, 1, 3, padding=1), ADAPTIVE[axes](4))
    layer = table(network, [12] * axes)["1"]
    assert not layer.whole_input
    assert tabled(layer) == measured(network, "1", [12] * axes)


class Functional(nn.Module):
    """What many networks do without modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.first = nn.Identity()
        self.head = nn.Linear(3, 2)
        self.after = nn.Identity()

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        x = self.first(functional.gelu(self.conv(volume)) * 2)
        x = x.mean(dim=(2, 3)).view(x.shape[0], -1)
        return self.after(self.head(x).clamp(-1, 1))


def test_a_mean_over_space_sees_everything() -> None:
    found = table(Functional(), (9, 7))
    assert found["first"].receptive_field == (3, 3)
    assert not found["first"].whole_input
    for name in ("head", "after"):
        assert found[name].whole_input
        assert found[name].receptive_field == found[name].stride == (9, 7)
        assert found[name].output_shape == ()
        assert found[name].channels == 2


class Custom(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(2)


GLOBAL = [
    nn.GroupNorm(2, 4),
    nn.InstanceNorm2d(4),
    nn.BatchNorm2d(4, track_running_stats=False),
    nn.AdaptiveAvgPool2d(1),
    nn.AdaptiveMaxPool2d(3),
    nn.Softmax(dim=2),
    nn.Flatten(),
    nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    nn.Linear(8, 8),
    nn.Upsample(scale_factor=2),
    Custom(),
]


@pytest.mark.parametrize("operation", GLOBAL, ids=lambda module: type(module).__name__)
def test_an_operation_that_mixes_positions_sees_everything(operation: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), operation, nn.Identity())
    found = table(network, (8, 8))
    assert not found["0"].whole_input
    assert found["1"].whole_input
    assert found["2"].whole_input
    assert found["2"].receptive_field == (8, 8)


@pytest.mark.parametrize("operation", [nn.Softmax(dim=1), nn.LogSoftmax(dim=-3), nn.Dropout(), nn.PReLU()])
def test_an_operation_at_each_position_widens_nothing(operation: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), operation)
    assert tabled(table(network, (8, 8))["1"]) == measured(network, "1", (8, 8)) == [(3, 1), (3, 1)]


def test_flattening_a_single_position_keeps_its_view() -> None:
    network = nn.Sequential(nn.Conv1d(1, 2, 5), nn.Flatten(), nn.Linear(2, 3))
    layer = table(network, (5,))["2"]
    assert (layer.channels, layer.output_shape, layer.whole_input) == (3, (), False)
    assert layer.receptive_field == (5,)


def test_the_theoretical_size_is_not_clipped() -> None:
    network = nn.Sequential(*(nn.Conv3d(1, 1, 5, padding=2) for _ in range(4)))
    assert table(network, (6, 6, 6))["3"].receptive_field == (17, 17, 17)


class Untraceable(nn.Module):
    """Decides by the values, as no tracer can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3)
        self.never = nn.ReLU()

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        x = self.conv(volume)
        return self.never(x) if float(x.sum()) == math.inf else x


def test_what_cannot_be_traced_sees_everything() -> None:
    found = table(Untraceable(), (6, 7, 8))
    assert list(found) == ["conv"]
    assert found["conv"].whole_input
    assert found["conv"].receptive_field == (6, 7, 8)
    assert (found["conv"].channels, found["conv"].output_shape) == (2, (4, 5, 6))


def test_a_module_used_twice_is_listed_where_it_is_used_first() -> None:
    shared = nn.ReLU()
    network = nn.Sequential(nn.Conv1d(1, 2, 3), shared, nn.Conv1d(2, 2, 3), shared)
    layers = layer_table(network, (9,), (1.0,))
    assert [layer.name for layer in layers] == ["0", "1", "2"]
    assert layers[1].receptive_field == (3,)


def test_lesion_net() -> None:
    network = build("lesion-net", classes=6, widths=(16, 32, 48, 48))
    layers = layer_table(network, (91, 109, 91), (2.0, 2.0, 2.0))
    assert [layer.name for layer in layers] == [
        *(f"blocks.{i}.{part}" for i in (0, 1) for part in ("conv", "norm", "act", "pool")),
        *(f"blocks.{i}.{part}" for i in (2, 3) for part in ("conv", "norm", "act")),
        "pool",
        "classifier",
    ]
    found = {layer.name: layer for layer in layers}
    conv = found["blocks.3.conv"]
    assert (conv.type, conv.channels, conv.output_shape) == ("Conv3d", 48, (22, 27, 22))
    assert (conv.stride, conv.receptive_field, conv.whole_input) == ((4, 4, 4), (26, 26, 26), False)
    assert conv.receptive_field_mm == (52.0, 52.0, 52.0)
    assert found["pool"].output_shape == (1, 1, 1)
    whole = (91, 109, 91)
    assert found["classifier"] == Layer(
        "classifier", "Linear", 6, (), whole, whole, (182.0, 218.0, 182.0), (45.0, 54.0, 45.0), True
    )


def test_a_place_and_the_position_that_looks_there() -> None:
    layers = table(build("lesion-net", classes=6, widths=(16, 32, 48, 48)), (91, 109, 91))
    conv = layers["blocks.3.conv"]
    # Two poolings by 2 and even padding: position 0 looks at the middle of the first 4 voxels.
    assert conv.first_center == (1.5, 1.5, 1.5)
    assert conv.center((0, 3, 21)) == (1.5, 13.5, 85.5)
    assert conv.position((2.0, 13.0, 90.0)) == (0, 3, 21)
    assert conv.position((-9.0, 500.0, 85.4)) == (0, 26, 21)


def test_without_padding_the_first_position_looks_into_the_volume() -> None:
    network = nn.Sequential(nn.Conv3d(1, 1, 5), nn.MaxPool3d(2), nn.Conv3d(1, 1, 3, stride=2))
    last = table(network, (30, 30, 30))["2"]
    assert last.first_center == ((last.receptive_field[0] - 1) / 2,) * 3


def test_threads_that_ask_at_once_get_the_same_table() -> None:
    network = nn.Sequential(*(nn.Conv3d(1, 1, 3, padding=1) for _ in range(12)))
    with ThreadPoolExecutor(4) as threads:
        tables = list(threads.map(lambda _: layer_table(network, (9, 9, 9), (1, 1, 1)), range(16)))
    assert set(tables) == {layer_table(network, (9, 9, 9), (1, 1, 1))}


def test_the_network_is_left_as_found() -> None:
    network = build("lesion-net", classes=3, widths=(2, 3)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    layer_table(network, (8, 8, 8), (1, 1, 1))
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(
        parameter.device.type == "cpu" and parameter.requires_grad for parameter in network.parameters()
    )
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [((8, 8), (1.0, 1.0)), ((8, 8, 8), (1.0,)), ((8, 8, 0), (1.0,) * 3), ((2, 2, 2), (1.0,) * 3)],
)
def test_an_input_the_network_cannot_read_is_refused(
    shape: tuple[int, ...], sizes: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="input_shape"):
        layer_table(build("lesion-net"), shape, sizes)
