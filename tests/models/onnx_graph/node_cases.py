"""ONNX's own backend node tests: which are for us, how one is run, and which are left out for what reason."""

import copy
import fnmatch
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import torch
from onnx.backend.test.loader import load_model_tests

from models.onnx_graph.graph import FIRST_OPSET, LAST_OPSET
from models.onnx_graph.network import OnnxNetwork, loaded
from models.onnx_graph.operations import OPERATORS
from models.onnx_graph.translate import translate

COVERAGE = Path(__file__).parent / "coverage.json"
SEVERAL = "functions of several operators"
# By pattern of the case's name; the first one that fits counts.
_FEW_BITS = "types of 8 bits and fewer; networks compute in float32"
_UNSIGNED = "torch has no arithmetic on uint16, uint32 and uint64"
_TRAINING = "training mode; refused, networks are imported as they act in evaluation"
_BFLOAT16 = "the reference rounds every step to bfloat16; networks compute in float32"
LEFT_OUT: dict[str, str] = {
    "test_cast*_FLOAT*_to_FLOAT8E*": _FEW_BITS,
    "test_cast*_FLOAT*_to_FLOAT4E2M1*": _FEW_BITS,
    "test_cast*_FLOAT_to_*INT[24]*": _FEW_BITS,
    "test_cast*_FLOAT16_to_*INT[24]*": _FEW_BITS,
    **{
        f"test_{name}_{kind}": _UNSIGNED
        for name in ("add", "sub", "div", "mod", "max", "min", "greater*", "less*")
        for kind in ("uint16*", "uint32*", "uint64*")
    },
    "test_equal_string*": "texts",
    "test_batchnorm_*_training_mode": _TRAINING,
    "test_training_dropout*": _TRAINING,
    "test_maxpool_with_argmax_*": "the places of the maxima are not computed; refused",
    "test_resize_downsample_scales_*_align_corners": "ONNX takes the size before it is rounded; torch "
    "and onnxruntime take the whole one, and so do we",
    "test_attention_*causal*_bf16_expanded": _BFLOAT16,
    "test_attention_4d_padded_kv_bf16_expanded": _BFLOAT16,
}


def load() -> list[Any]:
    """Return every node test of the installed onnx package; its references are computed on the way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return [case for case in load_model_tests(kind="node") if case.model is not None]


def operators(case: Any) -> set[str]:
    """Return the operators that a case needs."""
    return {
        node.op_type if not node.domain else f"{node.domain}.{node.op_type}" for node in case.model.graph.node
    }


def version(case: Any) -> int:
    """Return the opset of a case, 0 if it uses none of ONNX's standard operators."""
    return next((one.version for one in case.model.opset_import if one.domain == ""), 0)


def fitted(case: Any) -> onnx.ModelProto | None:
    """Return a case's model with an opset that we accept, None if its operators are others there.

    A case carries the opset in which its operator was last changed. Above ours, ONNX has but added types
    since; below, it is the same where ONNX says that the definition still held.
    """
    model, opset = copy.deepcopy(case.model), version(case)
    nearest = min(max(opset, FIRST_OPSET), LAST_OPSET)
    if opset < FIRST_OPSET:
        for op in operators(case):
            if (
                onnx.defs.get_schema(op, nearest).since_version
                != onnx.defs.get_schema(op, opset).since_version
            ):
                return None
    for one in model.opset_import:
        if one.domain == "":
            one.version = nearest
    return model


def reason(case: Any) -> str | None:
    """Return why a case is left out, None if it is run."""
    for pattern, why in LEFT_OUT.items():
        if fnmatch.fnmatch(case.name, pattern):
            return why
    return None


def to_array(stored: Any) -> np.ndarray:
    """Return an array; types that numpy has not come as those that onnx adds to it."""
    return onnx.numpy_helper.to_array(stored) if isinstance(stored, onnx.TensorProto) else np.asarray(stored)


def floats(array: np.ndarray) -> bool:
    """Tell whether an array's type is a floating one, of numpy's own or of those that onnx adds."""
    return array.dtype.kind == "f" or array.dtype.name.startswith(("bfloat", "float"))


def to_torch(stored: Any) -> torch.Tensor:
    """Return an input as the network takes it: what floats is float32."""
    array = to_array(stored)
    if floats(array):
        array = array.astype(np.float32)
    elif array.dtype.name.removeprefix("u") in ("int2", "int4"):
        array = array.astype(np.int8)
    return torch.from_numpy(np.array(array))


def network(case: Any) -> OnnxNetwork:
    """Translate a case."""
    model = fitted(case)
    assert model is not None
    translation = translate(model)
    # What a bundle keeps has to survive being written.
    return loaded(json.loads(json.dumps(translation.graph)), translation.state)


def run(case: Any) -> None:
    """Run a case and compare every output in type, shape and values, as ONNX's own runner does."""
    found = network(case)
    for given, expected in case.data_sets:
        with torch.no_grad():
            answers = found.run(*(to_torch(array) for array in given))
        for answer, array in zip(answers, expected, strict=True):
            wanted = to_array(array)
            floating = floats(wanted)
            got = answer.detach().numpy()
            assert got.shape == wanted.shape, f"shape {got.shape}, expected {wanted.shape}"
            assert got.dtype == (np.float32 if floating else wanted.dtype), (
                f"type {got.dtype}, not {wanted.dtype}"
            )
            if floating:
                assert wanted.dtype.itemsize > 1, f"rounds to {wanted.dtype}"
                # Rounded as the case's type is, for the network computes in float32.
                got, wanted = got.astype(wanted.dtype).astype(np.float64), wanted.astype(np.float64)
            np.testing.assert_allclose(got, wanted, rtol=case.rtol, atol=case.atol)


def rows(cases: list[Any]) -> dict[str, list[Any]]:
    """Sort the cases that covered operators can run by operator; those of several have a row of their own."""
    found: dict[str, list[Any]] = {name: [] for name in sorted(OPERATORS)} | {SEVERAL: []}
    for case in cases:
        needed = operators(case)
        if needed and needed <= set(OPERATORS):
            found[SEVERAL if len(needed) > 1 else next(iter(needed))].append(case)
    return found
