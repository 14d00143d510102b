"""From an ONNX model to a bundle: translated, compared with ONNX Runtime, measured on images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from models.architectures import IMPORTED
from models.bundle import Bundle
from models.errors import OnnxUnreadable
from models.importing.card import write_card
from models.importing.facts import Facts
from models.importing.images import Images, read_images
from models.importing.measuring import Track, measured_layers, prior_of, space_of
from models.layers import Layer, layer_table
from models.manifest import Architecture, Head, Import, InputSpace, Manifest
from models.onnx_graph.agreement import agreement
from models.onnx_graph.labels import before_labels
from models.onnx_graph.network import OnnxNetwork, loaded
from models.onnx_graph.reading import Source, read_onnx
from models.onnx_graph.translate import Translation, translate
from models.writing import write_bundle

# What makes probabilities of logits, and what may stand behind logits and changes nothing.
_HEADS: dict[str, Head] = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}
_NEUTRAL = frozenset({"Identity", "Flatten", "Reshape", "Squeeze"})
MAX_ACTIVATION_BYTES = 1 << 33
"""Most bytes of the layers' outputs together, for one volume."""


@dataclass(frozen=True)
class _Imported:
    """A network that was translated and agrees with its source."""

    source: Source
    translation: Translation
    network: OnnxNetwork
    layers: tuple[Layer, ...]
    agreement: float


def import_onnx(
    path: str | Path,
    repository: str | Path,
    facts: Facts,
    reference: str | Path,
    cohort: str | Path | None = None,
    *,
    origin: str = "",
    overwrite: bool = False,
    track: Track = lambda images, _what, _total: images,
) -> Bundle:
    """Make a bundle of an ONNX model.

    Parameters
    ----------
    path : str or Path
        The model; its external data lie beside it.
    repository : str or Path
        Where the bundle goes: ``<repository>/<name>/<version>``.
    facts : Facts
        What its owner says of it.
    reference : str or Path
        The mean training image, or any image as the network reads them: NIfTI or MGH, the scanner's units.
    cohort : str or Path, optional
        A folder of images as the network reads them. Without it nothing is known of how units answer to real
        images, and results are not compared with them.
    origin : str
        Where the model came from, for the manifest; by default its file's name.
    overwrite : bool
        Whether an existing bundle may be replaced.
    track : callable
        Shows progress over an iterable, given what is done and how many there are.

    Returns
    -------
    Bundle
        Verified. If anything fails, no bundle is left.

    Raises
    ------
    OnnxUnreadable, OnnxUnsupported
        If the model cannot be read or translated, or computes something else than in ONNX Runtime.
    ImageUnusable
        If an image cannot be used.
    BundleInvalid
        If the parts do not fit each other, or the bundle exists.
    """
    source = before_labels(read_onnx(path))
    images = read_images(
        Path(reference), None if cohort is None else Path(cohort), facts.normalization, _shape(source, facts)
    )
    space = space_of(images, facts)
    imported = _translated(source, space, next(iter(images.model_units(space))), facts.tolerance)
    logits, head = _logits(imported)
    classes = classes_of(logits, facts, source.file, head)
    manifest = Manifest(
        name=facts.name,
        version=facts.version,
        architecture=Architecture(name=IMPORTED),
        input=space,
        classes=classes,
        classifier_layer=logits.name if classes else "",
        probabilities=head or "softmax",
        imported=provenance(source, Path(path), imported.agreement, origin, images),
        license=facts.license,
        intended_use=facts.intended_use,
        not_for=facts.not_for,
    )
    measured = measured_layers(imported.layers, logits.name)
    prior, mean = prior_of(imported.network, measured, images, space, track)
    return write_bundle(
        Path(repository) / facts.name / str(facts.version),
        manifest,
        imported.network,
        mean,
        prior,
        write_card(manifest, imported.layers, images.known),
        graph=imported.translation.graph,
        onnx=source.model.SerializeToString(deterministic=True),
        overwrite=overwrite,
    )


def _shape(source: Source, facts: Facts) -> tuple[int, int, int] | None:
    """Return the volume's shape, as far as the owner or the file says it."""
    declared = source.input_shape[2:]
    asked = facts.input_shape
    if asked is None:
        x, y, z = declared
        return None if x is None or y is None or z is None else (x, y, z)
    if any(known not in (None, size) for known, size in zip(declared, asked, strict=True)):
        shown = " x ".join("?" if size is None else str(size) for size in declared)
        raise OnnxUnreadable(
            source.file, f"reads volumes of {shown} voxels, but --input-shape says {asked}; they must agree"
        )
    return asked


def _translated(source: Source, space: InputSpace, image: np.ndarray, tolerance: float) -> _Imported:
    translation = translate(source.model)
    network = loaded(translation.graph, translation.state)
    try:
        layers = layer_table(network, space.shape, space.voxel_size_mm)
    except ValueError as error:
        raise OnnxUnreadable(source.file, str(error)) from error
    if not layers:
        raise OnnxUnreadable(source.file, "computes nothing with its input; export the network again")
    volume = 4 * int(np.prod(space.shape))
    values = sum(4 * layer.channels * int(np.prod(layer.output_shape)) for layer in layers)
    if volume + values > MAX_ACTIVATION_BYTES:
        raise OnnxUnreadable(
            source.file,
            f"computes {values} bytes for one volume, but at most {MAX_ACTIVATION_BYTES} are accepted; "
            "give a smaller --input-shape",
        )
    difference = agreement(source, network, image, space.intensity_range, tolerance)
    return _Imported(source, translation, network, layers, difference)


def classes_of(layer: Layer, facts: Facts, label: str, head: Head | None) -> tuple[str, ...]:
    """Return the names of the classes whose logits a layer gives.

    Parameters
    ----------
    layer : Layer
        The last before what makes probabilities.
    facts : Facts
        What the network's owner says.
    label : str
        What errors call the network.
    head : "softmax", "sigmoid" or None
        What makes probabilities in the network itself.

    Returns
    -------
    tuple of str
        None if the owner names none, unless the network's own softmax tells that it has some.

    Raises
    ------
    OnnxUnreadable
        If the owner's classes are not as many as the layer's numbers.
    """
    numbers = layer.channels if layer.is_vector else 0
    if facts.classes and numbers != len(facts.classes):
        shape = (layer.channels, *layer.output_shape)
        reason = f"gives {shape}, which are no {len(facts.classes)} classes; name as many, or none"
        raise OnnxUnreadable(label, reason)
    if facts.classes or head != "softmax" or numbers < 2:
        return facts.classes
    return tuple(str(index) for index in range(numbers))


def _logits(imported: _Imported) -> tuple[Layer, Head | None]:
    """Return the layer of the output or, behind which there is a softmax or a sigmoid, the one before."""
    by_name = {layer.name: layer for layer in imported.layers}
    network = imported.network
    name = output = network.producer(imported.source.output_name)
    while name in by_name and by_name[name].type in _HEADS.keys() | _NEUTRAL:
        before = network.producer(network.sources(name)[0])
        if before not in by_name or by_name[before].channels != by_name[output].channels:
            break
        if head := _HEADS.get(by_name[name].type):
            return by_name[before], head
        name = before
    if output not in by_name:
        reason = f"output {imported.source.output_name!r} is no activation; export the network up to one"
        raise OnnxUnreadable(imported.source.file, reason)
    return by_name[output], None


def provenance(source: Source, path: Path, difference: float, origin: str, images: Images) -> Import:
    """Note where a network came from.

    Parameters
    ----------
    source : Source
        The model that was read.
    path : Path
        Its file.
    difference : float
        From ONNX Runtime's outputs.
    origin : str
        In words; by default the file's name.
    images : Images
        What came with it.

    Returns
    -------
    Import
        For the manifest.
    """
    packages = ("onnx", "onnxruntime", "torch")
    return Import(
        source=origin or f"ONNX model {source.file}",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        producer=source.producer,
        opset=source.opset,
        agreement=difference,
        software={name: version(name) for name in packages},
        cohort=f"{len(images.files)} images" if images.files else "",
    )
