"""What is translated how, and what is refused in which words."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from models.errors import OnnxUnsupported
from models.onnx_graph.network import build_empty, loaded
from models.onnx_graph.translate import translate
from tests.models.onnx_graph.small_models import FLOAT, by_onnxruntime, model_of, single

node = helper.make_node


def problems(model: onnx.ModelProto) -> tuple[str, ...]:
    with pytest.raises(OnnxUnsupported) as caught:
        translate(model)
    return caught.value.problems


def test_every_problem_is_named_with_its_node() -> None:
    nodes = [
        node("TopK", ["x", "k"], ["top", "places"], name="best"),
        node("QuantizeLinear", ["top", "scale"], ["q"], name="narrow"),
        node("Relu", ["q"], ["r"]),
        node("FusedConv", ["r"], ["f"], name="fused", domain="com.microsoft"),
        node("MaxPool", ["f"], ["m", "where"], kernel_shape=[2], name="pooled"),
        node("Add", ["m", "where"], ["y"]),
    ]
    found = problems(model_of(nodes, 18, {"k": np.array([1]), "scale": np.float32(1)}, [1, 1, 4]))
    assert found == (
        "node 'best' (TopK, opset 18): the operator is not covered; "
        "docs/reference/operators.md lists those that are",
        "node 'narrow' (QuantizeLinear, opset 18): quantized networks are not covered; "
        "export the one of floating-point numbers",
        "node 'fused' (com.microsoft.FusedConv, opset 18): "
        "operators of other domains than ONNX's own are not covered",
        "node 'pooled' (MaxPool, opset 18): output 1 is not computed",
    )


def test_control_flow_and_sequences_are_refused_by_name() -> None:
    branch = helper.make_graph(
        [node("Relu", ["x"], ["z"])], "branch", [], [helper.make_tensor_value_info("z", FLOAT, None)]
    )
    nodes = [
        node("If", ["c"], ["i"], then_branch=branch, else_branch=branch, name="choice"),
        node("SequenceConstruct", ["i"], ["s"], name="list"),
        node("SequenceAt", ["s", "n"], ["y"]),
    ]
    found = problems(model_of(nodes, 18, {"c": np.array(True), "n": np.int64(0)}, [1, 1, 4]))
    assert len(found) == 3
    assert found[0].startswith("node 'choice' (If, opset 18): control flow is not covered")
    assert found[1].startswith("node 'list' (SequenceConstruct, opset 18): sequences")


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (single("Resize", 18, [1, 1, 4], [None, np.ones(3, np.float32)], mode="magic"), "mode 'magic'"),
        (single("Pad", 18, [1, 1, 4], [np.zeros(6, np.int64)], mode="magic"), "mode 'magic' is not covered"),
        (single("Cast", 18, [1, 1, 4], [], to=onnx.TensorProto.STRING), "type 8 is not covered"),
        (single("AveragePool", 18, [1, 1, 4], []), "attribute 'kernel_shape' is missing"),
        (single("MaxPool", 18, [1, 1, 4], [], kernel_shape=[2], pads=[1]), "do not fit"),
        (single("Conv", 18, [1, 1, 4], [np.ones((3, 1, 2), np.float32)], group=2), "do not fit kernel"),
        (single("Dropout", 18, [1, 1, 4], [np.float32(0.1), np.array(True)]), "training_mode is set"),
    ],
)  # fmt: skip
def test_what_an_operator_cannot_do_is_said(model: onnx.ModelProto, reason: str) -> None:
    (found,) = problems(model)
    assert reason in found
    assert "node 'the node'" in found


def test_constants_are_computed_once_and_a_bomb_is_not_computed() -> None:
    shape = np.array([1, 1, 4], np.int64)
    nodes = [
        node("ConstantOfShape", ["s"], ["ones"], value=numpy_helper.from_array(np.ones(1, np.float32))),
        node("Add", ["ones", "ones"], ["twos"]),
        node("Transpose", ["w"], ["turned"], perm=[1, 0]),
        node("Mul", ["x", "twos"], ["m"]),
        node("MatMul", ["m", "turned"], ["y"]),
    ]
    weight = np.arange(8, dtype=np.float32).reshape(2, 4)
    found = translate(model_of(nodes, 18, {"s": shape, "w": weight}, [1, 1, 4]))
    assert [one["op"] for one in found.graph["nodes"]] == ["Mul", "MatMul"]
    assert torch.equal(found.state["y.weight"], torch.from_numpy(weight))
    assert found.state["m.input1"].tolist() == [[[2.0] * 4]]
    for growing in (
        [node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])],
        [
            node("ConstantOfShape", ["one"], ["z"]),
            node("Expand", ["z", "s"], ["c"]),
            node("Add", ["x", "c"], ["y"]),
        ],
    ):
        huge = {"s": np.array([1 << 20, 1 << 20], np.int64), "one": np.array([1], np.int64)}
        (reason,) = problems(model_of(growing, 18, huge, [1, 1, 4]))
        assert f"its result has {1 << 40} numbers; at most" in reason


def test_types_are_those_that_a_bundle_keeps() -> None:
    halves = np.array([0.5, 0.25], np.float16)
    nodes = [
        node("Cast", ["x"], ["half"], to=onnx.TensorProto.FLOAT16),
        node("Mul", ["half", "w"], ["m"]),
        node("Gather", ["m", "i"], ["g"], axis=2),
        node("Cast", ["g"], ["y"], to=FLOAT),
    ]
    found = translate(model_of(nodes, 18, {"w": halves, "i": np.array([1, 0], np.int32)}, [1, 1, 2]))
    assert {name: value.dtype for name, value in found.state.items()} == {
        "m.input1": torch.float32,
        "g.input1": torch.int32,
    }
    assert loaded(found.graph, found.state)(torch.ones(1, 1, 2)).tolist() == [[[0.25, 0.5]]]


def test_functions_of_the_model_are_inlined() -> None:
    function = helper.make_function(
        "own", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    nodes = [node("Twice", ["x"], ["t"], domain="own"), node("Relu", ["t"], ["y"])]
    found = translate(model_of(nodes, 18, {}, [1, 1, 2], functions=[function]))
    assert [one["op"] for one in found.graph["nodes"]] == ["Add", "Relu"]


def test_what_nobody_reads_is_left_out_and_shared_weights_have_memory_of_their_own() -> None:
    nodes = [
        node("TopK", ["x", "k"], ["unread", "places"]),
        node("Add", ["x", "w"], ["a"]),
        node("Mul", ["a", "w"], ["y"]),
    ]
    found = translate(model_of(nodes, 18, {"k": np.array([1]), "w": np.ones(4, np.float32)}, [1, 1, 4]))
    assert [one["op"] for one in found.graph["nodes"]] == ["Add", "Mul"]
    assert found.state["a.input1"].data_ptr() != found.state["y.input1"].data_ptr()


def test_padding_that_torch_has_not_is_a_layer_before_torchs_own() -> None:
    kernel = np.ones((2, 1, 3), np.float32)
    model = single("Conv", 18, [1, 1, 9], [kernel], pads=[2, 0])
    found = translate(model)
    network = loaded(found.graph, found.state)
    modules = {name: type(module) for name, module in network.named_modules() if name}
    assert list(modules) == ["y:pad", "y"]
    assert modules["y"] is nn.Conv1d
    volume = torch.rand(1, 1, 9)
    assert torch.allclose(network(volume), by_onnxruntime(model, volume)[0], atol=1e-6)


def test_several_outputs_have_a_layer_each() -> None:
    nodes = [
        node("Split", ["x", "s"], ["a", "b", "unread"], axis=1),
        node("Concat", ["b", "a"], ["y"], axis=1),
    ]
    found = translate(model_of(nodes, 18, {"s": np.array([1, 2, 1])}, [1, 4, 3]))
    network = build_empty(found.graph)
    assert [name for name, _ in network.named_modules() if name] == ["a", "b", "y"]


def test_a_graph_survives_json_with_infinities() -> None:
    model = single("Clip", 18, [1, 1, 3], [np.float32(-np.inf), np.float32(0.5)])
    found = translate(model)
    written = json.dumps(found.graph, allow_nan=False)
    network = loaded(json.loads(written), found.state)
    assert network(torch.tensor([[[-1e9, 0.2, 3.0]]])).tolist() == [[[-1e9, pytest.approx(0.2), 0.5]]]


def test_a_model_exported_for_a_batch_of_one_takes_any() -> None:
    nodes = [
        node("Resize", ["x", "", "", "s"], ["r"], mode="linear"),
        node("Reshape", ["r", "flat"], ["f"]),
        node("MatMul", ["f", "w"], ["y"]),
    ]
    constants = {
        "s": np.array([1, 1, 4, 6]),
        "flat": np.array([1, 24]),
        "w": np.random.default_rng(0).standard_normal((24, 2)).astype(np.float32),
    }
    model = model_of(nodes, 18, constants, [1, 1, 2, 3])
    found = translate(model)
    network = loaded(found.graph, found.state)
    volumes = torch.rand(3, 1, 2, 3)
    expected = torch.cat([by_onnxruntime(model, volumes[i : i + 1])[0] for i in range(3)])
    torch.testing.assert_close(network(volumes), expected)
