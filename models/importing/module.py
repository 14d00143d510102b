"""Bundles out of torch modules."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

from models.bundle import Bundle
from models.errors import ExportFailed
from models.importing.facts import Facts
from models.importing.images import read_image
from models.importing.network import Track, import_onnx
from models.onnx_export import OPSET


def export_bundle(
    module: nn.Module,
    repository: str | Path,
    facts: Facts,
    reference: str | Path,
    cohort: str | Path | None = None,
    *,
    input_shape: tuple[int, int, int] | None = None,
    origin: str = "",
    overwrite: bool = False,
    track: Track = lambda images, _what, _total: images,
) -> Bundle:
    """Make a bundle of any torch module that reads one volume.

    The module's code is not kept: it is written as ONNX and imported, so that the service needs nothing of
    it. Layers are named by ONNX values, which begin with the module's own names.

    Parameters
    ----------
    module : torch.nn.Module
        Reads ``(batch, 1, X, Y, Z)``. It is left as found.
    repository, facts, reference, cohort, overwrite, track
        As `models.importing.import_onnx` takes them.
    input_shape : tuple of int, optional
        Voxels along three axes; by default `facts.input_shape`, or the reference's shape.
    origin : str
        Where the module came from, for the manifest; by default its class.

    Returns
    -------
    Bundle
        Verified. If anything fails, no bundle is left.

    Raises
    ------
    ExportFailed
        If torch cannot write the module as ONNX.
    OnnxUnreadable, OnnxUnsupported, ImageUnusable, BundleInvalid
        As `models.importing.import_onnx`.
    """
    shape = input_shape or facts.input_shape or _shape_of(reference)
    name = type(module).__name__
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / f"{name}.onnx"
        _write(module, shape, file)
        return import_onnx(
            file,
            repository,
            facts,
            reference,
            cohort,
            origin=origin or f"torch module {type(module).__module__}.{name}",
            overwrite=overwrite,
            track=track,
        )


def _shape_of(reference: str | Path) -> tuple[int, int, int]:
    x, y, z = read_image(Path(reference)).shape
    return x, y, z


def _write(module: nn.Module, shape: tuple[int, int, int], file: Path) -> None:
    was_training = [each for each in module.modules() if each.training]
    parameter = next(module.parameters(), torch.zeros(()))
    module.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (torch.zeros(1, 1, *shape, device=parameter.device),),
                file,
                # The exporter that needs no further package; see models.onnx_export.
                dynamo=False,
                opset_version=OPSET,
                input_names=["volume"],
                output_names=["output"],
                dynamic_axes={"volume": {0: "batch"}, "output": {0: "batch"}},
            )
    except Exception as error:  # the exporter's own errors have no common base
        raise ExportFailed(f"{type(error).__name__}: {str(error)[:300]}") from error
    finally:
        for each in was_training:
            each.training = True
