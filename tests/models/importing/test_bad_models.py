"""Model files that are damaged, too large, or meant to harm: a clear error, and no half-made bundle."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from models import OnnxUnreadable
from models.__main__ import app
from models.onnx_graph.reading import read_onnx
from tests.models.importing.conftest import SHAPE, save_image

VOLUME = ["batch", 1, *SHAPE]
NONZERO = helper.make_node("NonZero", ["x"], ["y"], "where")


def simple(
    nodes: list[onnx.NodeProto] | None = None,
    weights: list[onnx.TensorProto] | None = None,
    shape: Sequence[object] | None = VOLUME,
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
    out: tuple[int, Sequence[object] | None] = (TensorProto.FLOAT, ["any"] * 5),
) -> onnx.ModelProto:
    """A model of one volume; by default it doubles it."""
    graph = helper.make_graph(
        nodes or [helper.make_node("Add", ["x", "x"], ["y"], "double")],
        "simple",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", *out)],
        weights or [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def external(place: str, offset: str = "0", length: str | None = None) -> onnx.ModelProto:
    """A model that keeps one weight elsewhere."""
    weight = numpy_helper.from_array(np.ones(4, np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entries = {"location": place, "offset": offset} | ({"length": length} if length else {})
    for key, value in entries.items():
        weight.external_data.add(key=key, value=value)
    return simple([helper.make_node("Mul", ["x", "w"], ["y"], "scale")], [weight], ["batch", 1, 16, 18, 4])


def huge() -> onnx.ModelProto:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 20, 1 << 20], raw_data=b"\0" * 16)
    return simple([helper.make_node("Mul", ["x", "w"], ["y"], "scale")], [weight])


def inflated() -> onnx.ModelProto:
    """A few bytes that become terabytes when they run."""
    size = numpy_helper.from_array(np.array([1, 1, 1 << 14, 1 << 14, 1 << 14], np.int64), "size")
    nodes = [helper.make_node("Expand", ["x", "size"], ["y"], "grow")]
    return simple(nodes, [size], shape=["batch", 1, 1, 1, 1])


def doubling(*bodies: tuple[str, ...]) -> onnx.ModelProto:
    """A model that calls the last of its functions; each is a chain of calls of others."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = []
    for index, calls in enumerate(bodies):
        names = ["a", *(f"v{step}" for step in range(len(calls) - 1)), "b"]
        nodes = [
            helper.make_node(op, [before], [after], domain="" if op == "Relu" else "own")
            for op, before, after in zip(calls, names, names[1:], strict=False)
        ]
        functions.append(helper.make_function("own", f"f{index}", ["a"], ["b"], nodes, imports))
    call = helper.make_node(f"f{len(bodies) - 1}", ["x"], ["y"], domain="own")
    model = simple([call])
    model.functions.extend(functions)
    model.opset_import.append(imports[1])
    return model


def laughing(count: int) -> onnx.ModelProto:
    """Each function calls the one before it twice."""
    return doubling(("Relu",), *((f"f{index}",) * 2 for index in range(count)))


def heavy() -> onnx.ModelProto:
    """Few nodes, but each call brings a copy of a large constant along."""
    model = laughing(12)
    weight = numpy_helper.from_array(np.zeros(1 << 18, np.float32))
    model.functions[0].node.append(helper.make_node("Constant", [], ["w"], value=weight))
    return model


def outside_in_a_function() -> onnx.ModelProto:
    model = doubling(("Relu",))
    weight = external("../secret.bin").graph.initializer[0]
    model.functions[0].node.append(helper.make_node("Constant", [], ["w"], value=weight))
    return model


def outside_in_a_branch() -> onnx.ModelProto:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [external("../secret.bin").graph.initializer[0]],
    )
    return simple([helper.make_node("If", ["c"], ["y"], "choose", then_branch=branch, else_branch=branch)])


def without_output() -> onnx.ModelProto:
    model = simple()
    del model.graph.output[:]
    return model


BAD: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "wrong opset": (lambda: simple(opset=9), "opset 9, but 11 to 23"),
    "unknown operator": (
        lambda: simple([helper.make_node("If", [], ["y"], "choose")]),
        "choose|not valid",
    ),
    "operator of others": (
        lambda: simple([helper.make_node("Frobnicate", ["x"], ["y"], "odd", domain="acme")]),
        "Frobnicate|acme",
    ),
    "unsupported operator": (
        lambda: simple([NONZERO], out=(TensorProto.INT64, [5, "found"])),
        "'where' .NonZero",
    ),
    "huge tensor": (huge, "takes .* bytes; at most"),
    "path outside the folder": (lambda: external("../secret.bin"), "outside the model's folder"),
    "absolute path": (lambda: external("/etc/passwd"), "outside the model's folder"),
    "missing weights": (lambda: external("nothing.bin"), "'nothing.bin' cannot be opened"),
    "offset beyond the end": (lambda: external("weights.bin", "1000", "16"), "are asked of it"),
    "negative offset": (lambda: external("weights.bin", "-8"), "negative"),
    "offset that is no number": (lambda: external("weights.bin", "x"), "no whole number"),
    "link": (lambda: external("link.bin"), "cannot be opened as a plain file"),
    "link of a folder": (lambda: external("folder/weights.bin"), "behind a link"),
    "dynamic rank": (lambda: simple(shape=None), "says not how many axes"),
    "two axes": (lambda: simple(shape=["batch", 10], out=(TensorProto.FLOAT, ["batch", 10])), "has 2 axes"),
    "three channels": (lambda: simple(shape=["batch", 3, *SHAPE]), "3 channels"),
    "whole numbers": (lambda: simple(kind=TensorProto.INT64), "is INT64"),
    "external data in a function": (outside_in_a_function, "outside the model's folder"),
    "external data in a branch": (outside_in_a_branch, "outside the model's folder"),
    "functions that double": (lambda: laughing(40), "has .* nodes, with its functions inlined"),
    "functions that copy": (heavy, "takes up to .* bytes with its functions inlined"),
    "a function that calls itself": (lambda: doubling(("Relu", "f0")), "call themselves"),
    "functions too deep": (
        lambda: doubling(("Relu",), *((f"f{index}",) for index in range(100))),
        "more than 64 deep",
    ),
    "no output": (without_output, "has no output"),
    "no node": (lambda: onnx.ModelProto(ir_version=8), "has no node"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.bin").write_bytes(b"\0" * 64)
    place = tmp_path / "model"
    place.mkdir()
    (place / "weights.bin").write_bytes(np.arange(8, dtype=np.float32).tobytes())
    (place / "link.bin").symlink_to(tmp_path / "secret.bin")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "weights.bin").write_bytes(b"\0" * 64)
    (place / "folder").symlink_to(tmp_path / "other")
    return place


def run(file: Path, folder: Path, *more: str) -> str:
    """Import it by the command; returns what it said, after having seen that nothing was made."""
    out = folder / "repository"
    reference = save_image(folder / "reference.nii.gz")
    found = CliRunner().invoke(
        app, ["import", str(file), "--reference", str(reference), "--out", str(out), *more]
    )
    assert found.exit_code == 2, found.output
    assert not list(out.rglob("*")) if out.exists() else True
    assert str(folder.parent) not in found.output
    assert "Traceback" not in found.output
    return " ".join(found.output.split())


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_model_is_named_and_leaves_no_bundle(kind: str, folder: Path) -> None:
    make, words = BAD[kind]
    file = folder / "bad.onnx"
    file.write_bytes(make().SerializeToString())
    said = run(file, folder)
    assert re.search(words, said), said


def test_a_truncated_file_is_named(exported: Path, folder: Path) -> None:
    whole = exported.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        file = folder / "cut.onnx"
        file.write_bytes(whole[: int(share * len(whole))])
        assert "cut.onnx" in run(file, folder)


def test_what_is_no_model_is_named(folder: Path) -> None:
    for content in (b"", b"hello", os.urandom(4096), save_image(folder / "image.nii.gz").read_bytes()):
        file = folder / "other.onnx"
        file.write_bytes(content)
        assert "other.onnx" in run(file, folder)
    assert "cannot be opened" in run(folder / "absent.onnx", folder)


def test_a_value_that_no_memory_holds_is_refused_before_it_is_made(folder: Path) -> None:
    file = folder / "bad.onnx"
    file.write_bytes(inflated().SerializeToString())
    said = run(file, folder)
    assert "shape" in said or "bytes" in said


def test_every_operator_that_is_not_covered_is_named(folder: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["a"], "one"),
        helper.make_node("Cast", ["a"], ["b"], "cast", to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["b"], ["c"], "largest", keepdims=0),
        helper.make_node("Unique", ["x"], ["d"], "two"),
        helper.make_node("ReduceMax", ["d"], ["e"], "most", keepdims=0),
        helper.make_node("Add", ["c", "e"], ["f"], "both"),
        helper.make_node("Add", ["x", "f"], ["y"], "three"),
    ]
    model = simple(nodes)
    file = folder / "bad.onnx"
    file.write_bytes(model.SerializeToString())
    said = run(file, folder)
    assert "'one' (NonZero" in said
    assert "'two' (Unique" in said
    assert "three" not in said


def test_weights_beside_the_model_are_read(folder: Path) -> None:
    file = folder / "good.onnx"
    file.write_bytes(external("weights.bin", "16", "16").SerializeToString())
    source = read_onnx(file)
    np.testing.assert_array_equal(numpy_helper.to_array(source.model.graph.initializer[0]), [4, 5, 6, 7])


def test_weights_of_a_functions_body_are_read(folder: Path) -> None:
    model = doubling(("Relu",))
    weight = external("weights.bin", "16", "16").graph.initializer[0]
    model.functions[0].node.append(helper.make_node("Constant", [], ["w"], value=weight))
    file = folder / "good.onnx"
    file.write_bytes(model.SerializeToString())
    found = read_onnx(file).model.functions[0].node[1].attribute[0].t
    np.testing.assert_array_equal(numpy_helper.to_array(found), [4, 5, 6, 7])


def test_what_the_output_does_not_need_is_taken_out(folder: Path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["huge"], ["z"], "unread"),
        helper.make_node("Relu", ["x"], ["y"], "read"),
    ]
    file = folder / "good.onnx"
    huge = numpy_helper.from_array(np.array([1 << 50], np.int64), "huge")
    file.write_bytes(simple(nodes, [huge]).SerializeToString())
    assert [node.name for node in read_onnx(file).model.graph.node] == ["read"]


def test_bytes_are_bounded_together(folder: Path) -> None:
    file = folder / "good.onnx"
    file.write_bytes(external("weights.bin", "16", "16").SerializeToString())
    size = file.stat().st_size
    read_onnx(file, max_bytes=size + 16)
    with pytest.raises(OnnxUnreadable, match="at most 15 are read"):
        read_onnx(file, max_bytes=size + 15)
    with pytest.raises(OnnxUnreadable, match="at most 10 are read"):
        read_onnx(file, max_bytes=10)
