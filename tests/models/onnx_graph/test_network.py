"""The network of a graph: as a bundle builds it, on any size, seeing what the exported network sees."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from torch import nn

from engine.network import prepared
from models import layer_table
from models.architectures import build
from models.errors import BundleInvalid
from models.layers import Layer
from models.onnx_export import export_onnx
from models.onnx_graph.network import OnnxNetwork, build_empty, loaded
from models.onnx_graph.translate import Translation, translate
from tests.models.architectures.test_every import SMALL, as_trained
from tests.models.onnx_graph.small_models import by_onnxruntime, model_of, single
from tests.models.test_layers import reach

NATIVE = ("lesion-net", "resnet", "sfcn", "volume-net")
node = helper.make_node


@pytest.fixture(scope="module")
def exported() -> Callable[[str], tuple[nn.Module, Translation]]:
    """Export a small native network and translate it, once for all tests."""
    kept: dict[str, tuple[nn.Module, Translation]] = {}

    def export(name: str) -> tuple[nn.Module, Translation]:
        if name not in kept:
            network = as_trained(name)
            model = onnx.load_model_from_string(export_onnx(network, SMALL[name][1]))
            kept[name] = network, translate(model)
        return kept[name]

    return export


def table(network: nn.Module, shape: Sequence[int]) -> dict[str, Layer]:
    return {layer.name: layer for layer in layer_table(network, shape, [2.0] * len(shape))}


Exported = Callable[[str], tuple[nn.Module, Translation]]


@pytest.mark.parametrize("name", NATIVE)
def test_an_imported_network_computes_the_same_and_sees_the_same(name: str, exported: Exported) -> None:
    native, found = exported(name)
    shape = SMALL[name][1]
    network = loaded(found.graph, found.state)
    volumes = torch.rand(3, 1, *shape)
    with torch.no_grad():
        torch.testing.assert_close(network(volumes), native(volumes), atol=1e-5, rtol=1e-4)
    ours = table(build_empty(found.graph), shape)
    for layer, theirs in table(native, shape).items():
        # The exporter folds norms into convolutions, and names values after modules.
        last = layer.rpartition(".")[2]
        matches = [one for key, one in ours.items() if _module(key) == layer and one.type == theirs.type]
        if last.startswith(("conv", "act")):
            assert len(matches) == 1, f"{layer} is missing among {list(ours)}"
        for match in matches:
            assert match.receptive_field == theirs.receptive_field
            assert (match.stride, match.first_center) == (theirs.stride, theirs.first_center)
            assert (match.channels, match.output_shape) == (theirs.channels, theirs.output_shape)
            assert match.whole_input == theirs.whole_input


def _module(value: str) -> str:
    """``/blocks/blocks.0/conv/Conv_output_0`` is a value of the module ``blocks.0.conv``."""
    path = value.split("/")[1:-1]
    while len(path) > 1 and path[1].startswith(path[0] + "."):
        path = path[1:]
    return ".".join(path)


@pytest.mark.parametrize("name", NATIVE[:3])
def test_the_optimizer_reads_the_same_out_of_an_imported_network(name: str, exported: Exported) -> None:
    native, found = exported(name)
    network = loaded(found.graph, found.state)
    layer = next(key for key, one in table(network, SMALL[name][1]).items() if one.type == "MaxPool3d")
    readers = [
        prepared(native).reader([_module(layer)]),
        prepared(network).reader([layer]),
    ]
    volume = torch.rand(1, 1, *SMALL[name][1], requires_grad=True)
    answers, slopes = [], []
    for reader in readers:
        (answer,) = reader(volume).values()
        answers.append(answer)
        slopes += torch.autograd.grad(answer[:, 1].square().mean(), volume)
    torch.testing.assert_close(answers[1], answers[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(slopes[1], slopes[0], atol=1e-7, rtol=1e-3)


def test_the_registry_builds_it_and_says_what_is_wrong(exported: Exported) -> None:
    _, found = exported("lesion-net")
    with torch.device("meta"):
        network = build("onnx", graph=found.graph)
    assert all(tensor.is_meta for tensor in network.state_dict().values())
    network.load_state_dict(found.state, strict=True, assign=True)
    assert not any(tensor.is_meta for tensor in network.state_dict().values())
    with pytest.raises(BundleInvalid, match="graph: must be an object"):
        build("onnx", graph=[])
    with pytest.raises(BundleInvalid, match=r"architecture\.hyperparameters"):
        build("onnx")


def shapes_model() -> onnx.ModelProto:
    """Halve the grid, bring it back to the input's own size and flatten it, as exporters write it."""
    nodes = [
        node("MaxPool", ["x"], ["low"], kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
        node("Shape", ["x"], ["shape"]),
        node("Slice", ["shape", "two", "five"], ["grid"]),
        node("Shape", ["low"], ["small"]),
        node("Slice", ["small", "zero", "two"], ["batch"]),
        node("Cast", ["grid"], ["floats"], to=1),
        node("Mul", ["floats", "factor"], ["scaled"]),
        node("Floor", ["scaled"], ["floored"]),
        node("Cast", ["floored"], ["wanted"], to=7),
        node("Concat", ["batch", "wanted"], ["sizes"], axis=0),
        node("Resize", ["low", "", "", "sizes"], ["back"], mode="nearest",
             coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        node("ConstantOfShape", ["sizes"], ["zeros"]),
        node("Concat", ["back", "zeros"], ["joined"], axis=1),
        node("Gather", ["shape", "first"], ["items"]),
        node("Unsqueeze", ["items", "zero"], ["row"]),
        node("Concat", ["row", "rest"], ["flat"], axis=0),
        node("Reshape", ["joined", "flat"], ["y"]),
    ]  # fmt: skip
    constants = {
        "zero": np.array([0]), "two": np.array([2]), "five": np.array([5]), "first": np.array(0),
        "factor": np.float32(1), "rest": np.array([-1]),
    }  # fmt: skip
    return model_of(nodes, 18, constants, ["n", 1, "a", "b", "c"])


@pytest.mark.parametrize("shape", [(1, 1, 4, 6, 8), (3, 1, 8, 4, 6)])
def test_batch_and_grid_are_free_where_the_graph_leaves_them_free(shape: tuple[int, ...]) -> None:
    model = shapes_model()
    found = translate(model)
    volume = torch.rand(shape)
    network = loaded(found.graph, found.state)
    assert torch.equal(network(volume), by_onnxruntime(model, volume)[0])
    assert build_empty(found.graph)(volume.to("meta")).shape == network(volume).shape
    rows = table(build_empty(found.graph), shape[2:])
    # What is made of shapes alone is no layer.
    assert list(rows) == ["low", "back", "joined", "y"]
    assert rows["joined"].receptive_field == rows["back"].receptive_field == (3, 3, 3)
    assert not rows["joined"].whole_input


def _stack(*nodes: onnx.NodeProto, **constants: Any) -> OnnxNetwork:
    found = translate(model_of(nodes, 18, constants, [1, 1, 24]))
    return loaded(found.graph, {key: torch.ones_like(value) for key, value in found.state.items()})


K3, TWICE = np.ones((1, 1, 3), np.float32), np.array([1, 1, 2], np.float32)
DOWN = node("MaxPool", ["x"], ["d"], kernel_shape=[2], strides=[2])
NETWORKS: dict[str, OnnxNetwork] = {
    "padded": _stack(node("Conv", ["x", "k"], ["y"], pads=[2, 0]), k=K3),
    "same": _stack(node("Conv", ["x", "k"], ["y"], auto_pad="SAME_LOWER", strides=[2]), k=K3),
    "pad": _stack(
        node("Pad", ["x", "p"], ["a"]), node("Conv", ["a", "k"], ["y"]),
        k=K3, p=np.array([0, 0, 2, 0, 0, 1]),
    ),
    "crop": _stack(node("Pad", ["x", "p"], ["y"]), p=np.array([0, 0, -2, 0, 0, -3])),
    "slice": _stack(
        node("Slice", ["x", "s", "e", "a", "t"], ["y"]),
        s=np.array([3]), e=np.array([99]), a=np.array([2]), t=np.array([2]),
    ),
    "up": _stack(
        DOWN,
        node("Resize", ["d", "", "s"], ["y"], mode="nearest", coordinate_transformation_mode="asymmetric",
             nearest_mode="floor"),
        s=TWICE,
    ),
    "linear": _stack(DOWN, node("Resize", ["d", "", "s"], ["y"], mode="linear"), s=TWICE),
    "transposed": _stack(DOWN, node("ConvTranspose", ["d", "k"], ["y"], strides=[2], pads=[1, 1]), k=K3),
    "transposed evenly": _stack(DOWN, node("ConvTranspose", ["d", "k"], ["y"], strides=[2]), k=K3[:, :, :2]),
    "average": _stack(node("AveragePool", ["x"], ["y"], kernel_shape=[3], pads=[1, 0], strides=[2])),
    "joined": _stack(
        node("Conv", ["x", "k"], ["a"], pads=[1, 1]), node("Mul", ["x", "w"], ["b"]),
        node("Concat", ["a", "b"], ["c"], axis=1), node("Split", ["c"], ["y", "d"], axis=1, num_outputs=2),
        k=K3, w=np.float32(1),
    ),
    "norm": _stack(node("LRN", ["x"], ["y"], size=3)),
}  # fmt: skip

SLACK = {"up": 1, "linear": 3, "transposed": 1, "transposed evenly": 1}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_position_sees_no_further_than_the_table_says(name: str) -> None:
    network = NETWORKS[name]
    layer = table(network, (24,))["y"]
    assert not layer.whole_input
    hit = reach(network, "y", (24,), 0)
    extent = layer.receptive_field[0]
    for position in range(hit.shape[1]):
        seen = hit[:, position].nonzero().flatten()
        middle = layer.center([position])[0]
        if len(seen):
            assert middle - (extent - 1) / 2 <= int(seen[0])
            assert int(seen[-1]) <= middle + (extent - 1) / 2
    # Nor does the table say more than there is, but where positions see unlike many voxels.
    assert int(hit.sum(0).max()) >= extent - SLACK.get(name, 0)


def test_several_inputs_and_outputs() -> None:
    model = single("Add", 18, [1, 2], [])
    model.graph.input.add().CopyFrom(helper.make_tensor_value_info("z", 1, [1, 2]))
    model.graph.node[0].input.append("z")
    model.graph.output.add().CopyFrom(helper.make_tensor_value_info("z", 1, [1, 2]))
    found = translate(model)
    network = loaded(found.graph, found.state)
    one = torch.ones(1, 2)
    assert [answer.tolist() for answer in network.run(one, 2 * one)] == [[[3, 3]], [[2, 2]]]


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 99), st.just(10**12), st.floats(), st.text(max_size=3),
    st.just([]), st.just({}), st.just([[]]), st.just({"value": "x"}),
    st.just({"weight": [0], "dtype": "float32"}),
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_damaged_graph_is_a_value_error_or_a_network(exported: Exported, data: st.DataObject) -> None:
    graph = copy.deepcopy(exported("lesion-net")[1].graph)
    place: Any = graph
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.integers(0, 3)) == 0:
            break
        place = place[key]
    place[key] = data.draw(JUNK)
    with suppress(ValueError):
        build_empty(graph)


def test_networks_are_built_without_the_package_onnx(exported: Exported) -> None:
    script = """
import json, sys
sys.modules["onnx"] = None
import models, service.worker.process
from models.architectures import build
build("onnx", graph=json.loads(sys.argv[1]))
"""
    graph = json.dumps(exported("volume-net")[1].graph)
    subprocess.run([sys.executable, "-c", script, graph], check=True, timeout=120)
