"""Models of a single node, with weights inside as exporters write them, and what onnxruntime says to them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

FLOAT = onnx.TensorProto.FLOAT


def model_of(
    nodes: Sequence[onnx.NodeProto],
    opset: int,
    constants: Mapping[str, Any],
    shape: Sequence[int | str | None],
    outputs: Sequence[str] = ("y",),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """Return a model that reads ``x``."""
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("x", FLOAT, list(shape))],
        [helper.make_value_info(name, helper.make_tensor_type_proto(FLOAT, None)) for name in outputs],
        stored,
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(one.domain, 1) for one in functions)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=list(functions))


def single(
    op: str, opset: int, shape: Sequence[int], constants: Sequence[Any], **attributes: Any
) -> onnx.ModelProto:
    """Return a model of one node, whose further inputs are constants; None leaves one out."""
    names = ["" if value is None else f"c{index}" for index, value in enumerate(constants)]
    stored = {name: value for name, value in zip(names, constants, strict=True) if name}
    node = helper.make_node(op, ["x", *names], ["y"], name="the node", **attributes)
    return model_of([node], opset, stored, [*shape])


def by_onnxruntime(model: onnx.ModelProto, volume: torch.Tensor) -> list[torch.Tensor]:
    """Return what onnxruntime computes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [torch.from_numpy(np.array(one)) for one in session.run(None, {"x": volume.numpy()})]
