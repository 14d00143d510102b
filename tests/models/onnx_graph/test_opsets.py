"""Operators as 3D networks have them, with weights inside, in every opset that defines them anew.

ONNX's own node tests are written for the newest opset only and have no weights; onnxruntime knows them all.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from models.errors import OnnxUnsupported
from models.onnx_graph.graph import FIRST_OPSET, LAST_OPSET
from models.onnx_graph.network import loaded
from models.onnx_graph.translate import translate
from tests.models.onnx_graph.small_models import by_onnxruntime, single

Write = Callable[[int], tuple[list[Any], dict[str, Any]]]
Entry = tuple[str, tuple[int, ...], Write]
VOLUME = (2, 4, 6, 7, 5)
_NUMBERS = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return (_NUMBERS.standard_normal(shape) / 3).astype(np.float32)


def whole(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def fixed(*constants: Any, **attributes: Any) -> Write:
    """Give the same inputs and attributes in every opset."""
    return lambda opset: (list(constants), attributes)


def axes_input(since: int, axes: list[int], **attributes: Any) -> Write:
    """Give axes as an input since an opset, and as an attribute before."""
    return lambda opset: (
        ([whole(*axes)], attributes) if opset >= since else ([], {"axes": axes, **attributes})
    )


KERNEL, DEPTHWISE, TRANSPOSED = weights(3, 4, 3, 2, 3), weights(4, 1, 3, 3, 3), weights(4, 2, 3, 2, 3)
FOUR, POSITIVE, THREE = weights(4), np.abs(weights(4)) + 0.5, weights(3)
UP, DOWN = np.array([1, 1, 2, 2, 3], np.float32), np.array([1, 1, 0.5, 0.6, 1], np.float32)
NONE = np.array([], np.float32)

ENTRIES: list[Entry] = [
    ("Conv", VOLUME, fixed(KERNEL, THREE, pads=[1, 0, 1, 1, 0, 1], strides=[2, 1, 1])),
    ("Conv", VOLUME, fixed(KERNEL, pads=[2, 0, 1, 0, 1, 1])),
    ("Conv", VOLUME, fixed(DEPTHWISE, FOUR, group=4, dilations=[1, 2, 1])),
    *[
        ("Conv", VOLUME, fixed(KERNEL, THREE, auto_pad=auto, strides=strides))
        for auto in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for strides in ([1, 1, 1], [2, 3, 2])
    ],
    ("ConvTranspose", VOLUME, fixed(TRANSPOSED, weights(2), strides=[2, 2, 1], pads=[1, 0, 1, 1, 0, 1])),
    ("ConvTranspose", VOLUME, fixed(TRANSPOSED, strides=[2, 2, 2], output_padding=[1, 0, 1],
                                     pads=[1, 0, 0, 0, 1, 1])),
    ("ConvTranspose", VOLUME, fixed(TRANSPOSED, weights(2), strides=[2, 2, 2], output_shape=[12, 14, 11])),
    ("ConvTranspose", VOLUME, fixed(DEPTHWISE, group=4, dilations=[1, 2, 2])),
    ("MaxPool", VOLUME, fixed(kernel_shape=[2, 3, 2], strides=[2, 2, 1], pads=[1, 1, 0, 1, 1, 0])),
    ("MaxPool", VOLUME, fixed(kernel_shape=[2, 2, 2], pads=[0, 0, 0, 1, 1, 1])),
    ("MaxPool", VOLUME, fixed(kernel_shape=[2, 2, 2], strides=[2, 2, 2], ceil_mode=1)),
    ("MaxPool", VOLUME, fixed(kernel_shape=[3, 3, 3], strides=[2, 2, 2], auto_pad="SAME_UPPER")),
    *[
        ("AveragePool", VOLUME, fixed(kernel_shape=[3, 2, 3], strides=[2, 2, 1], pads=pads,
                                      count_include_pad=count))
        for pads in ([1, 1, 1, 1, 1, 1], [1, 0, 0, 1, 1, 2], [0] * 6)
        for count in (0, 1)
    ],
    ("AveragePool", VOLUME, fixed(kernel_shape=[2, 2, 2], strides=[2, 2, 2], ceil_mode=1)),
    ("AveragePool", VOLUME, fixed(kernel_shape=[3, 3, 3], strides=[2, 2, 2], auto_pad="SAME_LOWER")),
    ("LpPool", (2, 3, 8, 9), fixed(kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1], p=3)),
    ("GlobalAveragePool", VOLUME, fixed()),
    ("GlobalMaxPool", VOLUME, fixed()),
    ("BatchNormalization", VOLUME, fixed(FOUR, FOUR, FOUR, POSITIVE, epsilon=1e-3)),
    ("BatchNormalization", (3, 4), fixed(FOUR, FOUR, FOUR, POSITIVE)),
    ("InstanceNormalization", VOLUME, fixed(FOUR, FOUR)),
    ("LayerNormalization", (2, 3, 4), fixed(FOUR, FOUR)),
    ("LRN", (2, 4, 3, 5), fixed(size=3, alpha=0.3)),
    ("MeanVarianceNormalization", (2, 3, 4, 5), fixed(axes=[0, 2, 3])),
    ("LeakyRelu", VOLUME, fixed(alpha=0.2)),
    ("PRelu", VOLUME, fixed(weights(4, 1, 1, 1))),
    ("PRelu", VOLUME, fixed(weights(1))),
    ("PRelu", VOLUME, fixed(weights(7, 1))),
    ("Relu", VOLUME, fixed()),
    ("Selu", VOLUME, fixed()),
    ("Selu", VOLUME, fixed(alpha=2.0, gamma=1.5)),
    ("HardSigmoid", VOLUME, fixed(alpha=1 / 6)),
    ("HardSwish", VOLUME, fixed()),
    ("Mish", VOLUME, fixed()),
    ("Gelu", VOLUME, fixed(approximate="tanh")),
    ("Clip", VOLUME, fixed(np.float32(0), np.float32(6))),
    ("Clip", VOLUME, fixed(np.float32(0))),
    ("Clip", VOLUME, fixed(None, np.float32(0.2))),
    ("Clip", VOLUME, fixed(np.float32(0.3), np.float32(-0.2))),
    *[(name, VOLUME, fixed(axis=axis)) for name in ("Softmax", "LogSoftmax") for axis in (1, 2, -1)],
    ("Softmax", VOLUME, fixed()),
    ("Gemm", (3, 4), fixed(weights(4, 5), weights(5))),
    ("Gemm", (3, 4), fixed(weights(5, 4), weights(1, 5), transB=1, alpha=0.5, beta=2.0)),
    ("Gemm", (3, 4), fixed(weights(3, 5), weights(4, 1), transA=1)),
    ("MatMul", (2, 3, 4), fixed(weights(4, 5))),
    ("MatMul", (2, 3, 4), fixed(weights(2, 4, 5))),
    *[(name, VOLUME, fixed(weights(4, 1, 1, 1)))
      for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean")],
    ("Pow", VOLUME, fixed(np.float32(2))),
    *[
        (name, VOLUME, axes_input(13 if name == "ReduceSum" else 18, [2, -1], keepdims=keep))
        for name in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1",
                     "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp")
        for keep in (0, 1)
    ],
    ("ReduceMean", VOLUME, fixed()),
    ("Squeeze", (2, 1, 3, 1), axes_input(13, [1, -1])),
    ("Squeeze", (2, 1, 3, 1), fixed()),
    ("Unsqueeze", (2, 3), axes_input(13, [0, -1])),
    ("Reshape", VOLUME, fixed(whole(0, -1, 5))),
    ("Flatten", VOLUME, fixed()),
    ("Flatten", VOLUME, fixed(axis=-2)),
    ("Transpose", VOLUME, fixed(perm=[0, 2, 3, 4, 1])),
    ("Expand", (2, 1, 3), fixed(whole(4, 1))),
    ("Tile", (2, 1, 3), fixed(whole(1, 2, 3))),
    ("Concat", (2, 4, 3), fixed(weights(2, 1, 3), axis=1)),
    ("Dropout", VOLUME, lambda opset: ([], {"ratio": 0.4}) if opset < 12 else ([np.float32(0.4)], {})),
    ("Slice", VOLUME, fixed(whole(1, -2), whole(100, -100), whole(2, -1), whole(2, -1))),
    ("Slice", VOLUME, fixed(whole(1, 0, 0), whole(3, 2, -1))),
    ("Gather", VOLUME, fixed(whole(3, -1), axis=2)),
    ("Gather", VOLUME, fixed(np.int64(1), axis=1)),
    ("Pad", VOLUME, fixed(whole(0, 0, 1, 0, 2, 0, 0, 1, 2, -1), np.float32(0.5))),
    ("Pad", VOLUME, fixed(whole(0, 0, 1, 0, 2, 0, 0, 1, 2, 0), mode="edge")),
    ("Pad", VOLUME, fixed(whole(0, 0, 1, 0, 2, 0, 0, 1, 2, 0), mode="reflect")),
    *[
        ("Resize", VOLUME, fixed(NONE, scales, mode=mode, coordinate_transformation_mode=coordinates))
        for scales in (UP, DOWN)
        for mode in ("linear",)
        for coordinates in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")
    ],
    *[
        ("Resize", VOLUME, fixed(NONE, scales, mode="nearest", coordinate_transformation_mode=coordinates,
                                 nearest_mode=rounding))
        for scales in (UP, DOWN)
        for coordinates in ("half_pixel", "asymmetric")
        for rounding in ("floor", "round_prefer_floor", "ceil")
    ],
    (
        "Resize",
        VOLUME,
        lambda opset: ([NONE, NONE if opset < 13 else None, whole(2, 4, 9, 7, 11)], {"mode": "linear"}),
    ),
    ("Resize", (1, 2, 6, 5), fixed(NONE, np.array([1, 1, 2, 1.5], np.float32), mode="cubic")),
    ("SpaceToDepth", (2, 3, 4, 6), fixed(blocksize=2)),
    ("DepthToSpace", (2, 8, 3, 2), fixed(blocksize=2, mode="CRD")),
    ("CumSum", (2, 3, 4), fixed(np.int64(1), reverse=1)),
    ("Einsum", (2, 3, 4), fixed(weights(4, 5), equation="bij,jk->bki")),
]  # fmt: skip


def opsets(op: str) -> Iterator[int]:
    """Yield those of the opsets that we accept in which an operator was defined anew."""
    before = None
    for opset in range(FIRST_OPSET, LAST_OPSET + 1):
        try:
            since = onnx.defs.get_schema(op, opset).since_version
        except onnx.defs.SchemaError:
            continue
        if since != before:
            yield opset
        before = since


def test_every_entry_agrees_with_onnxruntime_in_every_opset() -> None:
    volumes = torch.Generator().manual_seed(0)
    wrong, compared = [], 0
    for index, (op, shape, write) in enumerate(ENTRIES):
        volume = torch.randn(shape, generator=volumes)
        for opset in opsets(op):
            constants, attributes = write(opset)
            model = single(op, opset, shape, constants, **attributes)
            label = f"entry {index}, {op} of opset {opset} {attributes}"
            try:
                (expected,) = by_onnxruntime(model, volume)
                found = translate(model)
                (answer,) = loaded(found.graph, found.state).run(volume)
                torch.testing.assert_close(answer.detach(), expected, atol=1e-5, rtol=1e-4)
                compared += 1
            except Exception as error:  # whatever it is, it belongs into the list
                wrong.append(f"{label}: {type(error).__name__}: {' '.join(str(error).split())[:250]}")
    assert not wrong, "\n".join(wrong)
    assert compared > 2 * len(ENTRIES)


@pytest.mark.parametrize("opset", [10, 24])
def test_another_opset_is_refused(opset: int) -> None:
    with pytest.raises(OnnxUnsupported, match=f"opset {opset}: export the model with an opset from 11 to 23"):
        translate(single("Relu", opset, VOLUME, []))
