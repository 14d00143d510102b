"""Layers are called by ONNX's names wherever PyTorch can."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from models import layer_table
from models.onnx_graph.graph import MAX_PARTS
from models.onnx_graph.naming import layer_names
from models.onnx_graph.network import build_empty, loaded
from models.onnx_graph.translate import translate
from models.onnx_graph.written import LAYER_NAME
from tests.models.onnx_graph.small_models import model_of


@pytest.mark.parametrize(
    ("values", "layers"),
    [
        (["/conv/Conv_output_0", "189", "blocks.0.act"], ["/conv/Conv_output_0", "189", "blocks.0.act"]),
        (["a", "a.b", "a.b.c"], ["a_", "a.b_", "a.b.c"]),
        (["a.b", "a"], ["a.b", "a_"]),
        (["a", "a_", "a.b"], ["a_", "a__", "a.b"]),
        ([".a", "b..c", "d."], ["_.a", "b._.c", "d._"]),
        (["forward", "graph", "x.training", "lambda", "meta"],
         ["forward_", "graph_", "x.training_", "lambda_", "meta_"]),
        (["é", 'x"y', "x\ny", "x y"], ["_", "x_y", "x_y_", "x_y__"]),
        (["y:pad", "y"], ["y:pad_", "y"]),
    ],
)  # fmt: skip
def test_names_are_kept_or_changed_in_one_way(values: list[str], layers: list[str]) -> None:
    assert list(layer_names(values).values()) == layers


@settings(deadline=None)
@given(st.lists(st.text(alphabet="ab._/:\"'\\\n(é", max_size=6), unique=True, max_size=8))
def test_any_names_make_a_network_that_runs_and_is_traced(values: list[str]) -> None:
    names = [value or "v" for value in dict.fromkeys(values) if value != "x"]
    names = [*dict.fromkeys(names), "y"]
    nodes = [
        helper.make_node("Relu", [before], [after])
        for before, after in zip(["x", *names], names, strict=False)
    ]
    found = translate(model_of(nodes, 18, {}, [1, 1, 3], outputs=[names[-1]]))
    network = loaded(found.graph, found.state)
    table = layer_table(network, (3,), (1.0,))
    assert [layer.name for layer in table] == list(layer_names(names).values())
    # Found by tracing, not by running: a name that broke the traced code would leave fields unknown.
    assert all(layer.receptive_field == (1,) and not layer.whole_input for layer in table)
    assert all(LAYER_NAME.fullmatch(layer.name) for layer in table)
    assert torch.equal(network(torch.ones(1, 1, 3)), torch.ones(1, 1, 3))


@pytest.mark.parametrize(
    "name", ['x"); import os; ("', "a b", "", "a.", ".a", "a..b", "forward", "a\n", "training"]
)
def test_a_bundle_cannot_bring_a_name_in_that_is_code_or_hides_an_attribute(name: str) -> None:
    found = translate(model_of([helper.make_node("Relu", ["x"], ["y"])], 18, {}, [1, 1, 3]))
    found.graph["nodes"][0]["layers"] = [name]
    with pytest.raises(ValueError, match=re.compile("name|called")):
        build_empty(found.graph)


def test_a_name_of_thousands_of_parts_is_cut_and_a_bundle_cannot_bring_one_in() -> None:
    deep = "a." * 3000 + "b"
    name = layer_names([deep])[deep]
    assert name.count(".") == MAX_PARTS - 1
    found = translate(model_of([helper.make_node("Relu", ["x"], [deep])], 18, {}, [1, 1, 3], outputs=[deep]))
    assert [layer.name for layer in layer_table(build_empty(found.graph), (3,), (1.0,))] == [name]
    found.graph["nodes"][0]["layers"] = [deep]
    with pytest.raises(ValueError, match=f"more than {MAX_PARTS} parts"):
        build_empty(found.graph)
