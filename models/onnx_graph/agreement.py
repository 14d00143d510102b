"""Whether a translated network computes what ONNX Runtime computes, and each item of a batch by itself."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from torch import nn

from models.errors import OnnxUnreadable
from models.onnx_graph.reading import Source

TOLERANCE = 1e-4
"""Largest difference that is accepted by default, in parts of the largest output if that is above 1."""
_DTYPES: dict[int, type[np.floating]] = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.FLOAT16: np.float16,
    onnx.TensorProto.DOUBLE: np.float64,
}


def agreement(
    source: Source,
    network: nn.Module,
    image: np.ndarray,
    intensity_range: tuple[float, float],
    tolerance: float = TOLERANCE,
) -> float:
    """Compare a network with ONNX Runtime, on an image and on noise, and two of a batch with one by one.

    Parameters
    ----------
    source : Source
        What was read.
    network : torch.nn.Module
        What it became, in eval mode.
    image : numpy.ndarray
        Shape `(X, Y, Z)`, float32, model units.
    intensity_range : tuple of float
        Of the noise.
    tolerance : float
        Largest difference that is accepted, as it is returned.

    Returns
    -------
    float
        The largest absolute difference, in parts of the largest output if that is above 1.

    Raises
    ------
    OnnxUnreadable
        If ONNX Runtime does not run the model, or computes something else; or if the items of a batch are
        not computed each by itself.
    """
    low, high = intensity_range
    noise = np.random.default_rng(0).uniform(low, high, image.shape).astype(np.float32)
    volumes = np.stack([image, noise])[:, None]
    with torch.no_grad():
        each = [network(torch.from_numpy(volume[None])) for volume in volumes]
        _check_batch(source, network, volumes, each)
    difference = 0.0
    for volume, ours in zip(volumes, each, strict=True):
        theirs = _run(source, volume)
        if theirs.shape != tuple(ours.shape):
            raise OnnxUnreadable(
                source.file, f"gives {theirs.shape} in ONNX Runtime and {tuple(ours.shape)} in torch"
            )
        scale = max(1.0, float(np.abs(theirs).max(initial=0)))
        difference = max(difference, float(np.abs(theirs - ours.numpy()).max(initial=0)) / scale)
    if not difference <= tolerance:
        raise OnnxUnreadable(
            source.file,
            f"computes something else in torch than in ONNX Runtime: outputs differ by {difference:.2e}, at "
            f"most {tolerance:g} is accepted. Where it is rounding (half precision, normalizations over many "
            "voxels) allow more by --tolerance; else please report the model's operators",
        )
    return difference


def _check_batch(source: Source, network: nn.Module, volumes: np.ndarray, each: list[torch.Tensor]) -> None:
    remedy = "export it with a free batch axis (dynamic_axes or dynamic_shapes) and in eval mode"
    try:
        together = network(torch.from_numpy(volumes))
    except (RuntimeError, ValueError, IndexError) as error:
        text = " ".join(str(error).split())[:200]
        raise OnnxUnreadable(source.file, f"cannot run two volumes at once ({text}); {remedy}") from None
    if not each[0].ndim:
        raise OnnxUnreadable(source.file, f"gives one number for a whole batch; {remedy}")
    apart = torch.cat(each)
    if together.shape != apart.shape or not torch.allclose(together, apart, atol=TOLERANCE, rtol=TOLERANCE):
        raise OnnxUnreadable(source.file, f"lets the volumes of a batch change each other; {remedy}")


def _run(source: Source, volume: np.ndarray) -> np.ndarray:
    """Run ONNX Runtime on a volume, repeated where the model's batch is fixed; returns the first item."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            source.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        kind = next(one for one in source.model.graph.input if one.name == source.input_name)
        data = np.repeat(volume[None], source.input_shape[0] or 1, axis=0)
        given = {source.input_name: data.astype(_DTYPES[kind.type.tensor_type.elem_type])}
        return np.asarray(session.run([source.output_name], given)[0][:1], np.float32)
    except Exception as error:  # the runtime's errors have no common base
        text = " ".join(str(error).split())[:300]
        raise OnnxUnreadable(source.file, f"does not run in ONNX Runtime: {text}") from None
