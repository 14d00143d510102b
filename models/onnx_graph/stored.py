"""What an ONNX model has stored, as torch has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from models.onnx_graph.graph import Refused

_WIDER = {np.dtype(np.uint16): np.int32, np.dtype(np.uint32): np.int64, np.dtype(np.uint64): np.int64}


def to_tensor(stored: onnx.TensorProto) -> torch.Tensor:
    """Read a stored tensor; what floats becomes float32, and whole numbers keep their type if torch has it.

    Parameters
    ----------
    stored : onnx.TensorProto
        With its data inside.

    Returns
    -------
    torch.Tensor
        With memory of its own.

    Raises
    ------
    Refused
        If it holds texts or complex numbers, or its data do not fit its shape.
    """
    try:
        array = np.asarray(numpy_helper.to_array(stored))
    except (ValueError, TypeError, RuntimeError) as error:
        raise Refused(f"cannot be read: {str(error)[:200]}") from error
    if array.dtype.kind in "OUSc":
        raise Refused("texts and complex numbers are not covered")
    if array.dtype.kind in "iub" and array.dtype.itemsize <= 8 and array.dtype in _WIDER:
        array = array.astype(_WIDER[array.dtype])
    elif array.dtype.kind not in "iub":
        # Types of 4 and 8 bits, which numpy has not, come here too.
        array = array.astype(np.float32)
    return torch.from_numpy(np.array(array, order="C"))


def to_attribute(attribute: onnx.AttributeProto) -> Any:
    """Read a node's attribute.

    Parameters
    ----------
    attribute : onnx.AttributeProto
        Of any kind.

    Returns
    -------
    int, float, str, torch.Tensor or list
        Its value.

    Raises
    ------
    Refused
        If it is a graph, or of another kind that no operator of the table has.
    """
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return to_tensor(value)
    if isinstance(value, int | float):
        return value
    values: list[Any] = list(value) if isinstance(value, Sequence) else [None]
    if all(isinstance(one, bytes) for one in values):
        return [one.decode(errors="replace") for one in values]
    if not all(isinstance(one, int | float) for one in values):
        raise Refused(f"attribute {attribute.name!r} is of a kind that is not covered")
    return values


def to_constant(attributes: dict[str, Any]) -> torch.Tensor:
    """Read what a Constant node holds.

    Parameters
    ----------
    attributes : dict
        Its one attribute.

    Returns
    -------
    torch.Tensor
        The value.

    Raises
    ------
    Refused
        If it holds texts.
    """
    (value,) = attributes.values()
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, str) or (isinstance(value, list) and any(isinstance(one, str) for one in value)):
        raise Refused("texts are not covered")
    floating = next(iter(attributes)).startswith("value_float")
    return torch.tensor(value, dtype=torch.float32 if floating else torch.int64)
