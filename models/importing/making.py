"""The last steps of every import: classes, provenance, what the images tell, and the bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from models.bundle import Bundle
from models.errors import OnnxUnreadable
from models.importing.card import write_card
from models.importing.facts import Facts
from models.importing.images import Images
from models.importing.measuring import Track, measured_layers, prior_of
from models.layers import Layer
from models.manifest import Architecture, Head, Import, InputSpace, Manifest
from models.onnx_graph.reading import Source
from models.writing import write_bundle


@dataclass(frozen=True)
class Found:
    """A network from elsewhere that agrees with its ONNX model.

    Attributes
    ----------
    source : Source
        The ONNX model that it was compared with.
    path : Path
        That model's file.
    origin : str
        Where it came from, in words; empty for the file's name.
    architecture : Architecture
        What builds it.
    graph : mapping or None
        Of an imported network, as `models.onnx_graph.translate.translate` writes it.
    network : torch.nn.Module
        In eval mode.
    layers : tuple of Layer
        Its layers.
    logits : Layer
        The last before what makes probabilities.
    head : "softmax", "sigmoid" or None
        What makes them in the network itself.
    agreement : float
        Difference from ONNX Runtime's outputs.
    """

    source: Source
    path: Path
    origin: str
    architecture: Architecture
    graph: Mapping[str, Any] | None
    network: nn.Module
    layers: tuple[Layer, ...]
    logits: Layer
    head: Head | None
    agreement: float


def make_bundle(
    found: Found,
    facts: Facts,
    images: Images,
    space: InputSpace,
    repository: str | Path,
    overwrite: bool,
    track: Track,
) -> Bundle:
    """Make a bundle of a network that was found to be what its ONNX model is.

    Parameters
    ----------
    found : Found
        The network.
    facts : Facts
        What its owner says of it.
    images : Images
        The reference and the cohort.
    space : InputSpace
        The network's.
    repository : str or Path
        Where the bundle goes.
    overwrite : bool
        Whether an existing bundle may be replaced.
    track : callable
        Shows progress, see `models.importing.import_onnx`.

    Returns
    -------
    Bundle
        Verified.

    Raises
    ------
    OnnxUnreadable
        If the owner's classes are not as many as the logits.
    ImageUnusable, BundleInvalid, ExportFailed
        See `models.importing.import_onnx` and `models.write_bundle`.
    """
    classes = _classes(found.logits, facts, found.source.file, found.head)
    manifest = Manifest(
        name=facts.name,
        version=facts.version,
        architecture=found.architecture,
        input=space,
        classes=classes,
        classifier_layer=found.logits.name if classes else "",
        probabilities=found.head or "softmax",
        imported=_provenance(found, images),
        license=facts.license,
        intended_use=facts.intended_use,
        not_for=facts.not_for,
    )
    measured = measured_layers(found.layers, found.logits.name)
    prior, mean = prior_of(found.network, measured, images, space, track)
    return write_bundle(
        Path(repository) / facts.name / str(facts.version),
        manifest,
        found.network,
        mean,
        prior,
        write_card(manifest, found.layers, images.known),
        graph=found.graph,
        # The model that was imported, or one of the network as the bundle holds it.
        onnx=True if found.graph is None else found.source.model.SerializeToString(deterministic=True),
        overwrite=overwrite,
    )


def _classes(layer: Layer, facts: Facts, label: str, head: Head | None) -> tuple[str, ...]:
    """Return the names of the classes, if the owner or the network's own softmax tells that there are any."""
    numbers = layer.channels if layer.is_vector else 0
    if facts.classes and numbers != len(facts.classes):
        shape = (layer.channels, *layer.output_shape)
        reason = f"gives {shape}, which are no {len(facts.classes)} classes; name as many, or none"
        raise OnnxUnreadable(label, reason)
    if facts.classes or head != "softmax" or numbers < 2:
        return facts.classes
    return tuple(str(index) for index in range(numbers))


def _provenance(found: Found, images: Images) -> Import:
    packages = ("onnx", "onnxruntime", "torch")
    return Import(
        source=found.origin or f"ONNX model {found.source.file}",
        sha256=hashlib.sha256(found.path.read_bytes()).hexdigest(),
        producer=found.source.producer,
        opset=found.source.opset,
        agreement=found.agreement,
        software={name: version(name) for name in packages},
        cohort=f"{len(images.files)} images" if images.files else "",
    )
