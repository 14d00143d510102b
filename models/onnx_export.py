"""The same network as ONNX, for inference elsewhere.

The packages onnx and onnxruntime are imported when an export is made: whoever only reads bundles does without
them.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from models.errors import ExportFailed

OPSET = 18
TOLERANCE = 1e-4


def export_onnx(network: nn.Module, input_shape: Sequence[int]) -> bytes:
    """Write a network as one self-contained ONNX model and prove that it computes the same.

    The input is named ``volume``, shape ``(batch, 1, *input_shape)``; the output ``logits``; the batch is
    free.

    Parameters
    ----------
    network : torch.nn.Module
        In eval mode.
    input_shape : sequence of int
        Spatial shape of the input in voxels.

    Returns
    -------
    bytes
        The content of ``model.onnx``; the same network gives the same bytes.

    Raises
    ------
    ExportFailed
        If the network is in training mode, cannot be exported, gives an invalid model, or logits that differ
        from torch's by more than `TOLERANCE` (absolute, plus a tenth of it relative to the logit).
    """
    if network.training:
        raise ExportFailed("the network is in training mode; call eval() first")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.onnx"
        write_onnx(network, input_shape, file, "logits")
        model = file.read_bytes()
    check_onnx(model, network, input_shape)
    return model


def write_onnx(network: nn.Module, input_shape: Sequence[int], file: Path, output: str) -> None:
    """Write a network as ONNX, unchecked.

    Parameters
    ----------
    network : torch.nn.Module
        In eval mode.
    input_shape : sequence of int
        Spatial shape of the input in voxels.
    file : Path
        Where.
    output : str
        Name of the output; the input is named ``volume``, and both have a free batch.

    Raises
    ------
    ExportFailed
        If torch cannot write it.
    """
    parameter = next(network.parameters(), torch.zeros(()))
    # torch's exporter built on torch.export writes stack traces with this machine's paths into the model and
    # depends on onnxscript; the older one gives a third of the size, holds no path and needs no
    # further package.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                network,
                (torch.zeros(1, 1, *input_shape, device=parameter.device),),
                file,
                dynamo=False,
                opset_version=OPSET,
                input_names=["volume"],
                output_names=[output],
                dynamic_axes={"volume": {0: "batch"}, output: {0: "batch"}},
            )
        except Exception as error:  # the exporter's own errors have no common base
            raise ExportFailed(f"{type(error).__name__}: {str(error)[:300]}") from error


def check_onnx(model: bytes, network: nn.Module, input_shape: Sequence[int]) -> None:
    """Check an ONNX model's validity and its agreement with torch on a random batch of two.

    Parameters
    ----------
    model : bytes
        The ONNX model.
    network : torch.nn.Module
        What it must agree with, in eval mode.
    input_shape : sequence of int
        Spatial shape of the input in voxels.

    Raises
    ------
    ExportFailed
        If the model is invalid or disagrees.
    """
    import onnx
    import onnxruntime

    generator = torch.Generator().manual_seed(0)
    volume = torch.rand(2, 1, *input_shape, generator=generator)
    try:
        onnx.checker.check_model(onnx.load_model_from_string(model), full_check=True)
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        logits = torch.from_numpy(session.run(["logits"], {"volume": volume.numpy()})[0])
    except Exception as error:  # protobuf, checker and runtime errors have no common base
        raise ExportFailed(f"{type(error).__name__}: {str(error)[:300]}") from error
    with torch.no_grad():
        expected = network(volume)
    if logits.shape != expected.shape:
        raise ExportFailed(f"logits have shape {tuple(logits.shape)}, torch's {tuple(expected.shape)}")
    if not torch.allclose(logits, expected, atol=TOLERANCE, rtol=TOLERANCE / 10):
        worst = float((logits - expected).abs().max())
        raise ExportFailed(f"logits differ from torch's by {worst:.2e}; at most {TOLERANCE:.0e} is accepted")
