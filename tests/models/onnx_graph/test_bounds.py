"""Graphs of a few bytes that ask for any amount of memory: refused before it is made."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from models import layer_table
from models.errors import OnnxUnsupported
from models.onnx_graph import bounds, translate
from models.onnx_graph.network import OnnxNetwork, build_empty, loaded
from tests.models.onnx_graph.small_models import model_of

node = helper.make_node
SHAPE = node("Shape", ["x"], ["s"])
MOST = 1 << 20
TO_DATA = (
    node("ReduceMax", ["z"], ["m"], keepdims=0),
    node("Cast", ["m"], ["f"], to=1),
    node("Add", ["x", "f"], ["y"]),
)


def network(*nodes: onnx.NodeProto, **constants: Any) -> OnnxNetwork:
    found = translate.translate(model_of(nodes, 18, constants, ["n", 1, 4, 4, 4]))
    return loaded(found.graph, found.state)


@pytest.fixture(autouse=True)
def nothing_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a test makes more than a few numbers, instead of filling the machine's memory."""
    for name in ("full", "arange", "ones", "zeros"):
        make = getattr(torch, name)

        def watched(*args: Any, make: Any = make, **kwargs: Any) -> torch.Tensor:
            sizes = [one for one in args[:2] if isinstance(one, int)]
            small = max(sizes, default=0) <= MOST
            assert small or str(kwargs.get("device")) == "meta", f"{args} would be made"
            made: torch.Tensor = make(*args, **kwargs)
            return made

        monkeypatch.setattr(torch, name, watched)


BOMBS: dict[str, tuple[Sequence[onnx.NodeProto], dict[str, Any], str]] = {
    "ConstantOfShape": (
        [SHAPE, node("Mul", ["s", "k"], ["b"]), node("ConstantOfShape", ["b"], ["z"], "bomb"), *TO_DATA],
        {"k": np.array([1, 1, 1000, 1000, 1000])},
        r"'bomb' \(ConstantOfShape\) makes 64000000000 numbers",
    ),
    "Range": (
        [
            node("Size", ["x"], ["d"]),
            node("Mul", ["d", "k"], ["l"]),
            node("Range", ["zero", "l", "one"], ["z"], "bomb"),
            *TO_DATA,
        ],
        {"k": np.int64(10**8), "zero": np.int64(0), "one": np.int64(1)},
        r"'bomb' \(Range\) makes 6400000001 numbers",
    ),
    "Tile": (
        [SHAPE, node("Tile", ["s", "k"], ["z"], "bomb"), *TO_DATA],
        {"k": np.array([10**5])},
        r"500000 numbers",
    ),
    "Pad": (
        [SHAPE, node("Pad", ["s", "p"], ["z"], "bomb", mode="edge"), *TO_DATA],
        {"p": np.array([0, 10**5])},
        "100005 numbers",
    ),
    "Pad of data": (
        [node("Pad", ["x", "p"], ["y"], "bomb", mode="wrap")],
        {"p": np.array([0] * 9 + [10**10])},
        "layer y: its result has 10000000004 numbers",
    ),
    "Expand and Add": (
        [
            SHAPE,
            node("Expand", ["s", "k"], ["e"]),
            node("Add", ["e", "e"], ["z"], "bomb"),
            *TO_DATA,
        ],
        {"k": np.array([10**5, 5])},
        r"'bomb' \(Add\) reads 500000 numbers",
    ),
    "a pooling of shapes": (
        [
            SHAPE,
            node("Cast", ["s"], ["f0"], to=1),
            node("Reshape", ["f0", "k"], ["e"]),
            node("AveragePool", ["e"], ["z"], "bomb", kernel_shape=[200001], pads=[200000, 200000]),
            *TO_DATA,
        ],
        {"k": np.array([1, 1, 5])},
        r"numbers",
    ),
    "batch": (
        [
            node("Expand", ["x", "k"], ["b"]),
            node("Slice", ["b", "last", "all", "zero", "minus"], ["y"]),
        ],
        {
            "k": np.array([10**9, 1, 1, 1, 1]),
            "last": np.array([-1]),
            "all": np.array([-(2**62)]),
            "zero": np.array([0]),
            "minus": np.array([-1]),
        },
        "layer b: its result has 64000000000 numbers",
    ),
    "whole numbers": (
        [
            node("Cast", ["x"], ["i"], to=7),
            *(node("Tile", ["i", "k"], [f"t{index}"]) for index in range(4)),
            node("Sum", ["t0", "t1", "t2", "t3"], ["z"]),
            *TO_DATA,
        ],
        {"k": np.array([1, 5_000_000, 1, 1, 1])},
        "computes .* bytes up to t3",
    ),
    "in between": (
        [node("AveragePool", ["x"], ["y"], kernel_shape=[1001] * 3, pads=[1000] * 6, strides=[1000] * 3)],
        {},
        "layer y.*numbers",
    ),
    "data that say a size": (
        [
            node("ReduceMax", ["x"], ["m"], keepdims=0),
            node("Clip", ["x", "", "m"], ["c"], "clip"),
            node("Expand", ["c", "k"], ["y"]),
        ],
        {"k": np.array([1, 10**9, 1, 1, 1])},
        "layer c: needs numbers that depend on the data",
    ),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_what_a_graph_would_make_is_seen_before(kind: str) -> None:
    nodes, constants, reason = BOMBS[kind]
    with pytest.raises(ValueError, match=re.compile(reason)):
        layer_table(network(*nodes, **constants), (4, 4, 4), (1.0, 1.0, 1.0))


def test_many_small_values_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.layers._MAX_REAL_BYTES", 10_000)
    nodes = [SHAPE, *(node("Tile", ["s", "k"], [f"t{index}"]) for index in range(4))]
    nodes += [node("Concat", [f"t{index}" for index in range(4)], ["z"], axis=0), *TO_DATA]
    with pytest.raises(ValueError, match="bytes up to t2; at most 10000"):
        layer_table(network(*nodes, k=np.array([100])), (4, 4, 4), (1.0, 1.0, 1.0))


def test_zeros_of_the_datas_size_take_no_memory_and_are_moved_once() -> None:
    nodes = [SHAPE, node("ConstantOfShape", ["s"], ["z"]), node("Concat", ["x", "z"], ["y"], axis=1)]
    found = network(*nodes)
    size = 1 << 9
    rows = layer_table(found, (size, size, size), (1.0, 1.0, 1.0))
    assert [(row.name, row.channels) for row in rows] == [("y", 2)]
    small = torch.ones(2, 1, 3, 3, 3)
    assert torch.equal(found(small), torch.cat([small, 0 * small], 1))


def test_a_bundles_graph_cannot_hide_what_is_made_of_shapes() -> None:
    nodes = [SHAPE, node("Tile", ["s", "k"], ["z"], "bomb"), *TO_DATA]
    found = translate.translate(model_of(nodes, 18, {"k": np.array([10**5])}, ["n", 1, 4, 4, 4]))
    for one in found.graph["nodes"]:
        for read in one["inputs"]:
            if read and "value" in read:
                read["sized"] = True
    with pytest.raises(ValueError, match="500000 numbers"):
        layer_table(build_empty(found.graph), (4, 4, 4), (1.0, 1.0, 1.0))


def folding(count: int, op: str = "ConstantOfShape") -> onnx.ModelProto:
    sizes = "n" if op == "ConstantOfShape" else "p"
    nodes, last = [], "x"
    for index in range(count):
        read = ["n"] if op == "ConstantOfShape" else ["w", "p"]
        made = node(op, read, [f"z{index}"], f"fold{index}", **({} if sizes == "n" else {"mode": "edge"}))
        nodes += [made, node("ReduceMax", [f"z{index}"], [f"m{index}"], keepdims=0)]
        nodes.append(node("Add", [last, f"m{index}"], [f"a{index}"]))
        last = f"a{index}"
    constants = {"n": np.array([400]), "w": np.ones(2, np.float32), "p": np.array([0, 398])}
    return model_of(nodes, 18, constants, ["n", 1, 4, 4, 4], outputs=[last])


@pytest.mark.parametrize("op", ["ConstantOfShape", "Pad"])
def test_what_is_folded_is_bounded_together(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translate, "MAX_FOLDED", 1000)
    translate.translate(folding(2, op))
    with pytest.raises(OnnxUnsupported, match=r"'fold2' .*its result and those before it have 1202 numbers"):
        translate.translate(folding(3, op))


def test_what_is_folded_and_repeated_is_counted_where_it_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translate, "_MAX_COPIES", 1000)
    ones = numpy_helper.from_array(np.ones(1, np.float32))
    nodes = [node("ConstantOfShape", ["n"], ["z"], value=ones)]
    nodes += [node("Add", ["x", "z"], ["a"]), node("Mul", ["a", "z"], ["b"]), node("Sub", ["b", "z"], ["y"])]
    model = model_of(nodes, 18, {"n": np.array([100])}, ["n", 1, 4, 4, 100])
    translate.translate(model)
    monkeypatch.setattr(translate, "_MAX_COPIES", 500)
    with pytest.raises(OnnxUnsupported, match="weights that several nodes share take more than 500 bytes"):
        translate.translate(model)


def test_no_value_in_between_is_larger_than_asked() -> None:
    with bounds.Measured(4000), pytest.raises(ValueError, match="1001 numbers; at most 4000 bytes"):
        (torch.zeros(1000, device="meta").sum() + torch.zeros(1001, device="meta")).sum()
