"""Bundles out of torch modules."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import JsonValue
from torch import nn

from models.architectures import REGISTRY
from models.bundle import Bundle
from models.importing.facts import Facts
from models.importing.images import read_image, read_images
from models.importing.making import Found, make_bundle
from models.importing.measuring import Track, space_of
from models.importing.network import import_onnx
from models.layers import layer_table
from models.manifest import Architecture
from models.onnx_export import write_onnx
from models.onnx_graph.agreement import agreement
from models.onnx_graph.reading import read_onnx


def export_bundle(
    module: nn.Module,
    repository: str | Path,
    facts: Facts,
    reference: str | Path,
    cohort: str | Path | None = None,
    *,
    hyperparameters: dict[str, JsonValue] | None = None,
    origin: str = "",
    overwrite: bool = False,
    track: Track = lambda images, _what, _total: images,
) -> Bundle:
    """Make a bundle of any torch module that reads one volume.

    A module of the project's own architectures is kept as it is. Of any other the code is not kept: it is
    written as ONNX and imported, so that the service needs nothing of it; its layers are named by ONNX
    values, which begin with the module's own names.

    Parameters
    ----------
    module : torch.nn.Module
        Reads ``(batch, 1, X, Y, Z)``. It is left as found.
    repository, facts, reference, cohort, overwrite, track
        As `models.importing.import_onnx` takes them.
    hyperparameters : dict, optional
        What the module was built with, if its class is in `models.architectures.REGISTRY`; without them it is
        taken as any other.
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
    shape = facts.input_shape or _shape_of(reference)
    name = type(module).__name__
    origin = origin or f"torch module {type(module).__module__}.{name}"
    given = None if cohort is None else Path(cohort)
    registered = next((key for key, kind in REGISTRY.items() if type(module) is kind), "")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / f"{name}.onnx"
        with _as_evaluated(module):
            write_onnx(module, shape, file, "output")
            if not registered or hyperparameters is None:
                return import_onnx(
                    file, repository, facts, reference, given, origin=origin, overwrite=overwrite, track=track
                )
            images = read_images(Path(reference), given, facts.normalization, shape)
            source, space = read_onnx(file), space_of(images, facts)
            image = next(iter(images.model_units(space)))
            difference = agreement(source, module, image, space.intensity_range, facts.tolerance)
            layers = layer_table(module, space.shape, space.voxel_size_mm)
            found = Found(
                source=source,
                path=file,
                origin=origin,
                architecture=Architecture(name=registered, hyperparameters=hyperparameters),
                graph=None,
                network=module,
                layers=layers,
                logits=layers[-1],
                head=None,
                agreement=difference,
            )
            return make_bundle(found, facts, images, space, repository, overwrite, track)


def _shape_of(reference: str | Path) -> tuple[int, int, int]:
    x, y, z = read_image(Path(reference)).shape
    return x, y, z


@contextmanager
def _as_evaluated(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode for a while."""
    training = [each for each in module.modules() if each.training]
    module.eval()
    try:
        yield
    finally:
        for each in training:
            each.training = True
