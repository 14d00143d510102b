"""Readers say what the network says, run nothing behind the target, and leave the network alone."""

import copy
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from engine import Precision, Prepared, UnknownLayer
from engine.network import thin
from engine.network.capture import activations, heard
from engine.network.convolution import FrozenConvolution
from engine.network.pooling import AveragePooling
from models.architectures import build

Read = Callable[..., Mapping[str, Tensor]]


class _Bomb(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("what lies behind the target must not run")


class _Swallower(nn.Module):
    """Hides exceptions of what it wraps, as some frameworks do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        try:
            return self.inner(x)
        except Exception:
            return x


class _Whimsical(nn.Module):
    """Decides by its data, so that no graph of it can be drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.other = nn.Conv1d(1, 3, 3), nn.BatchNorm1d(3), nn.Conv1d(3, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return self.other(x) if x.mean() > -1e9 else x


def _by_graph(
    network: nn.Module, layers: list[str], volume: Tensor, behind: bool = False
) -> Mapping[str, Tensor]:
    return Prepared(network).reader(layers, behind)(volume)


@pytest.fixture(params=[_by_graph, activations], ids=["graph", "hooks"])
def read(request: pytest.FixtureRequest) -> Read:
    """Both ways of reading."""
    return request.param  # type: ignore[no-any-return]


def test_activations_are_those_of_the_layers(read: Read) -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3)).eval()
    volume = torch.randn(2, 1, 9, 9)
    found = read(network, ["0", "2"], volume)
    torch.testing.assert_close(found["0"], network[0](volume))
    torch.testing.assert_close(found["2"], network(volume))


def test_the_run_stops_at_the_target(read: Read) -> None:
    network = nn.Sequential(nn.Conv1d(1, 2, 3), _Bomb())
    assert read(network, ["0"], torch.randn(1, 1, 8))["0"].shape == (1, 2, 6)


def test_the_run_stops_even_inside_a_swallowing_module(read: Read) -> None:
    network = nn.Sequential(_Swallower(nn.Sequential(nn.Conv1d(1, 2, 3), _Bomb())), _Bomb())
    assert set(read(network, ["0.inner.0"], torch.randn(1, 1, 8))) == {"0.inner.0"}


def test_a_layer_that_runs_twice_answers_with_its_first_output(read: Read) -> None:
    shared = nn.Linear(4, 4)
    volume = torch.randn(1, 4)
    found = read(nn.Sequential(shared, shared, nn.Identity()), ["0", "2"], volume)
    torch.testing.assert_close(found["0"], shared(volume))


def test_a_container_answers_with_what_leaves_it(read: Read) -> None:
    network = nn.Sequential(nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU()), nn.Conv1d(2, 2, 1))
    volume = torch.randn(1, 1, 8)
    torch.testing.assert_close(read(network, ["0"], volume)["0"], network[0](volume))


def test_unknown_layers_are_named_with_the_valid_ones(read: Read) -> None:
    network = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU())
    with pytest.raises(UnknownLayer, match=r"'conv9'.*0, 1"):
        read(network, ["0", "conv9"], torch.randn(1, 1, 8))
    assert not any(module._forward_hooks for module in network.modules())


def test_readings_survive_what_overwrites_its_input(read: Read) -> None:
    network = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(inplace=True), nn.Conv1d(4, 2, 3)).eval()
    volume = torch.randn(1, 1, 30)
    found = read(network, ["0", "2"], volume)
    torch.testing.assert_close(found["0"], network[0](volume))
    assert found["0"].min() < 0


def test_a_nonlinearity_says_what_enters_it(read: Read) -> None:
    network = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(inplace=True), nn.Conv1d(4, 2, 3)).eval()
    volume = torch.randn(1, 1, 30)
    before = read(network, ["1", "2"], volume)
    torch.testing.assert_close(before["1"], network[0](volume))
    assert before["1"].min() < 0
    behind = read(network, ["1", "2"], volume, True)
    torch.testing.assert_close(behind["1"], network[0](volume).relu())
    torch.testing.assert_close(behind["2"], before["2"])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network)


def test_a_sum_in_place_does_not_reach_what_was_wanted() -> None:
    class Adds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv1d(1, 2, 1), nn.Conv1d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            x += 1
            return self.second(functional.relu(x, inplace=True))

    network, volume = Adds(), torch.randn(1, 1, 8)
    found = Prepared(network).reader(["first", "second"])(volume)
    torch.testing.assert_close(found["first"], network.first(volume))
    torch.testing.assert_close(found["second"], network(volume))


def test_a_network_that_cannot_be_drawn_runs_as_it_is() -> None:
    network = _Whimsical().train()
    volume = torch.randn(2, 1, 20)
    found = Prepared(network).reader(["norm", "other"])(volume)
    torch.testing.assert_close(found["other"], copy.deepcopy(network).eval()(volume))
    assert network.training
    assert network.norm.training


def _shaken(network: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights as training would."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            for values in (module.running_mean, module.bias):
                values.data.normal_()
            for values in (module.running_var, module.weight):
                values.data.uniform_(0.5, 2)
    return network.eval()


@pytest.mark.parametrize(
    ("name", "layers", "edge"),
    [
        ("sfcn", ["blocks.1.norm", "blocks.2.act", "classifier"], 32),
        ("lesion-net", ["blocks.0.conv", "blocks.3.act", "classifier"], 20),
        ("resnet", ["classifier"], 32),
        ("volume-net", ["classifier"], 32),
    ],
)
def test_prepared_networks_agree_with_themselves_and_so_do_their_gradients(
    name: str, layers: list[str], edge: int
) -> None:
    torch.manual_seed(0)
    network = _shaken(build(name))
    layers = [layer for layer in layers if layer in dict(network.named_modules())]
    assert layers
    volume = torch.rand(2, 1, edge, edge, edge + 4, requires_grad=True)
    found = Prepared(network).reader(layers)(volume)
    wanted = activations(network, layers, volume)
    for layer in layers:
        torch.testing.assert_close(found[layer], wanted[layer], rtol=1e-4, atol=1e-4)
        mine, theirs = (
            torch.autograd.grad(each[layer].square().mean(), volume, retain_graph=True)[0]
            for each in (found, wanted)
        )
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def test_batch_norms_are_folded_and_what_lies_behind_is_gone() -> None:
    network = _shaken(build("sfcn"))
    reader = Prepared(network).reader(["blocks.1.norm"])
    kept = {type(module).__name__ for module in reader.modules() if not any(module.children())}
    assert kept == {"ThinConvolution", "ReLU", "FrozenConvolution"}


def test_a_convolution_that_is_wanted_itself_is_not_folded() -> None:
    network = _shaken(build("sfcn"))
    volume = torch.rand(1, 1, 16, 16, 16)
    found = Prepared(network).reader(["blocks.0.conv", "blocks.0.norm"])(volume)
    torch.testing.assert_close(found["blocks.0.conv"], network.blocks[0].conv(volume))
    torch.testing.assert_close(found["blocks.0.norm"], network.blocks[0].norm(network.blocks[0].conv(volume)))


def test_the_network_is_not_touched() -> None:
    network = build("sfcn").train()
    network.blocks[0].conv.bias.requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    flags = [(weight.requires_grad, weight.stride()) for weight in network.parameters()]
    reader = Prepared(network).reader(["classifier"])
    reader(torch.rand(1, 1, 32, 32, 32, requires_grad=True))["classifier"].sum().backward()
    assert [(weight.requires_grad, weight.stride()) for weight in network.parameters()] == flags
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert all(weight.grad is None for weight in network.parameters())
    assert not any(weight.requires_grad for weight in reader.parameters())


def test_a_reader_is_made_once_and_few_are_kept() -> None:
    network = Prepared(nn.Sequential(*(nn.Conv1d(1, 1, 1) for _ in range(20))))
    first = network.reader(["3"])
    assert network.reader(["3"]) is first
    assert network.reader(["3"], precision=Precision.BFLOAT16) is not first
    for layer in range(20):
        network.reader([str(layer)])
    assert network.reader(["3"]) is not first


def test_half_precision_answers_in_the_volumes_numbers() -> None:
    torch.manual_seed(0)
    network = Prepared(_shaken(build("lesion-net")))
    volume = torch.rand(1, 1, 24, 24, 24)
    exact, rough = (
        network.reader(["classifier"], precision=precision)(volume)["classifier"]
        for precision in (Precision.FLOAT32, Precision.BFLOAT16)
    )
    assert rough.dtype == torch.float32
    assert 0 < float((rough - exact).abs().max()) < 0.05 * float(exact.abs().max())


_EDGES = st.lists(st.integers(1, 4), min_size=3, max_size=3).map(tuple)


@settings(max_examples=60, deadline=None)
@given(
    inputs=st.sampled_from((1, 1, 3)),
    kernel=_EDGES,
    padding=_EDGES,
    channels=st.integers(1, 5),
    batch=st.integers(1, 3),
    bias=st.booleans(),
    pool=st.sampled_from((None, 2, (2, 1, 3))),
    planes=st.integers(1, 5),
    few=st.booleans(),
)
def test_frozen_convolutions_are_the_general_ones(
    inputs: int,
    kernel: tuple[int, ...],
    padding: tuple[int, ...],
    channels: int,
    batch: int,
    bias: bool,
    pool: int | tuple[int, ...] | None,
    planes: int,
    few: bool,
) -> None:
    padding = tuple(min(pad, size) - 1 for pad, size in zip(padding, kernel, strict=True))
    steps = [nn.Conv3d(inputs, channels, kernel, padding=padding, bias=bias)]
    steps += [] if pool is None else [nn.MaxPool3d(pool)]
    network = nn.Sequential(nn.Identity(), *steps)
    volume = torch.randn(batch, inputs, 9, 7, 8, requires_grad=True)
    theirs = network(volume)
    layer = str(len(network) - 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thin, "_SLAB_ELEMENTS", planes * channels * 60)
        patch.setattr(thin, "_FEW_VOXELS", 10**6 * few)
        mine = Prepared(network).reader([layer])(volume)[layer]
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
        slope = torch.randn_like(theirs)
        gradients = [torch.autograd.grad(each, volume, slope)[0] for each in (mine, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("window", [2, (1, 3, 2), (3, 2, 1)])
def test_average_poolings_are_the_general_ones(window: int | tuple[int, ...]) -> None:
    network = nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.AvgPool3d(window))
    volume = torch.randn(2, 1, 9, 12, 7, requires_grad=True)
    reader = Prepared(network).reader(["1"])
    assert any(isinstance(module, AveragePooling) for module in reader.modules())
    mine, theirs = reader(volume)["1"], network(volume)
    torch.testing.assert_close(mine, theirs)
    slope = torch.randn_like(theirs)
    gradients = [torch.autograd.grad(each, volume, slope)[0] for each in (mine, theirs)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    "unsuitable",
    [
        nn.AvgPool3d(2, stride=1),
        nn.AvgPool3d(3, stride=3, padding=1),
        nn.AvgPool3d(2, ceil_mode=True),
        nn.AvgPool3d(2, divisor_override=3),
        nn.MaxPool3d(2),
    ],
)
def test_other_poolings_are_left_alone(unsuitable: nn.Module) -> None:
    assert not AveragePooling.suits(unsuitable)


@pytest.mark.parametrize(
    "unsuitable",
    [
        nn.Conv3d(2, 4, 3, groups=2),
        nn.Conv3d(1, 4, 3, stride=2),
        nn.Conv3d(1, 4, 3, dilation=2),
        nn.Conv3d(1, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv3d(1, 4, 3, padding="same"),
        nn.Conv3d(1, 4, 1, padding=2),
        nn.Conv3d(1, 4, 3).double(),
        nn.Conv2d(1, 4, 3),
        nn.Linear(1, 2),
    ],
)
def test_other_convolutions_are_left_alone(unsuitable: nn.Module) -> None:
    assert not FrozenConvolution.suits(unsuitable)


class _Branched(nn.Module):
    """A network in which values skip over others."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = nn.Conv3d(1, 4, 3), nn.Conv3d(4, 4, 1), nn.Conv3d(4, 4, 1)
        self.act, self.pool, self.last = nn.ReLU(inplace=True), nn.MaxPool3d(2), nn.Conv3d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        return self.last(self.pool(self.left(x) + self.right(x)))


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        (build("sfcn"), ["classifier"]),
        (build("sfcn"), ["blocks.0.act", "blocks.2.conv", "top.act"]),
        (build("resnet"), ["classifier"]),
        (build("lesion-net"), ["blocks.1.act", "classifier"]),
        (_Branched(), ["last"]),
    ],
    ids=["sfcn", "sfcn layers", "resnet", "lesion-net", "branched"],
)
def test_what_is_computed_again_is_the_same_to_the_bit(network: nn.Module, layers: list[str]) -> None:
    layers = [layer for layer in layers if layer in dict(network.named_modules())]
    reader = Prepared(_shaken(network)).reader(layers)
    volume = torch.rand(1, 1, 32, 34, 36, requires_grad=True)
    assert reader.fits(volume, 1 << 40)
    assert reader.segments is None
    assert not reader.fits(volume, 1)
    assert sum("_Recomputed" in type(module).__name__ for module in reader.segments.children()) > 1
    kept: dict[bool, int] = {}
    found = []
    for keep in (True, False):
        living: dict[int, int] = {}

        def note(tensor: Tensor, living: dict[int, int] = living) -> Tensor:
            living[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            answers = reader(volume, keep)
        kept[keep] = sum(living.values())
        slope = sum(answers[layer].square().mean() for layer in layers)
        found.append([*answers.values(), *torch.autograd.grad(slope, volume)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert kept[False] < kept[True]


def test_average_poolings_answer_in_half_precision_too() -> None:
    """On a CPU torch has no average pooling in 16 bits."""
    network = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.AvgPool3d(2), nn.Conv3d(4, 3, 3)).eval()
    volume = torch.rand(2, 1, 12, 12, 12, requires_grad=True)
    exact, coarse = (
        Prepared(network).reader(["3"], precision=precision)(volume)["3"]
        for precision in (Precision.FLOAT32, Precision.BFLOAT16)
    )
    assert coarse.dtype == torch.float32
    assert (coarse - exact).abs().max() < 0.02 * exact.abs().max()
    (slope,) = torch.autograd.grad(coarse.sum(), volume)
    assert slope.abs().sum() > 0


class _Standardized(nn.Conv3d):
    """A convolution that does something to its weights, as some do."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3, 4), keepdim=True)
        return functional.conv3d(x, weight, self.bias)


class _Shortcut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.second = nn.Conv3d(1, 2, 3), nn.ReLU(inplace=True), nn.Conv3d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(self.act(x)) + x


class _Statement(_Shortcut):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        self.act(x)
        return self.second(x)


class _Optional(_Shortcut):
    def forward(self, x: Tensor, age: Tensor | None = None) -> Tensor:
        x = self.second(self.first(x))
        return x if age is None else torch.cat([x, age], 1)


class _Biased(_Shortcut):
    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool3d(self.first(x), 2)
        x += 1
        x *= 2
        return self.second(functional.relu(x, True))


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(_Standardized(1, 3, 3), nn.BatchNorm3d(3), nn.ReLU(), nn.Conv3d(3, 2, 1)),
        nn.Sequential(_Shortcut()),
        nn.Sequential(_Statement()),
        nn.Sequential(_Optional()),
        nn.Sequential(_Biased()),
    ],
    ids=["subclass", "shortcut", "statement", "optional input", "in place"],
)
@pytest.mark.parametrize("keep", [True, False])
def test_what_a_graph_could_get_wrong_is_as_the_network_says(network: nn.Module, keep: bool) -> None:
    network = _shaken(network)
    layer = str(len(network) - 1)
    volume = torch.randn(1, 1, 9, 8, 10, requires_grad=True)
    reader = Prepared(network).reader([layer])
    reader.fits(volume, 1)
    mine, theirs = reader(volume, keep)[layer], network(volume)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(each.square().sum(), volume)[0] for each in (mine, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def test_a_hooked_convolution_keeps_its_hook() -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Conv3d(2, 2, 1))
    network[0].register_forward_hook(lambda module, inputs, output: output * 2)
    volume = torch.randn(1, 1, 6, 6, 6)
    torch.testing.assert_close(Prepared(network).reader(["1"])(volume)["1"], network(volume))


@pytest.mark.parametrize("behind", [False, True])
def test_a_whole_run_is_heard_and_no_hook_stays(behind: bool) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 3)).eval()
    volume = torch.randn(1, 1, 4, 4, 4)
    said: list[tuple[str, Tensor]] = []
    with torch.no_grad():
        # What runs on overwrites the convolution's answer: whoever hears it is told before.
        with heard(network, ["3", "1"], lambda *told: said.append((told[0], told[1].clone())), behind):
            answer = network(volume)
        convolved = network[0](volume)
    assert [layer for layer, _ in said] == ["1", "3"]
    assert torch.equal(said[0][1], convolved.relu() if behind else convolved)
    assert torch.equal(said[1][1], answer)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    with pytest.raises(UnknownLayer, match="no layer '9'"), heard(network, ["9"], lambda *_: None):
        pass
