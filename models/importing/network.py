"""From an ONNX model to a bundle: translated, compared with ONNX Runtime, measured on images."""

from __future__ import annotations

from pathlib import Path

from models.architectures import IMPORTED
from models.bundle import Bundle
from models.errors import OnnxUnreadable
from models.importing.facts import Facts
from models.importing.images import read_images
from models.importing.making import Found, make_bundle
from models.importing.measuring import Track, space_of
from models.layers import Layer, layer_table
from models.manifest import Architecture, Head, InputSpace
from models.onnx_graph.agreement import agreement
from models.onnx_graph.labels import before_labels
from models.onnx_graph.network import OnnxNetwork, loaded
from models.onnx_graph.reading import Source, read_onnx
from models.onnx_graph.translate import translate

# What makes probabilities of logits, and what may stand behind logits and changes nothing.
_HEADS: dict[str, Head] = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}
_NEUTRAL = frozenset({"Identity", "Flatten", "Reshape", "Squeeze"})


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
    translation = translate(source.model)
    network = loaded(translation.graph, translation.state)
    layers = _layers(source, network, space)
    image = next(iter(images.model_units(space)))
    difference = agreement(source, network, image, space.intensity_range, facts.tolerance)
    logits, head = _logits(source, network, layers)
    found = Found(
        source=source,
        path=Path(path),
        origin=origin,
        architecture=Architecture(name=IMPORTED),
        graph=translation.graph,
        network=network,
        layers=layers,
        logits=logits,
        head=head,
        agreement=difference,
    )
    return make_bundle(found, facts, images, space, repository, overwrite, track)


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


def _layers(source: Source, network: OnnxNetwork, space: InputSpace) -> tuple[Layer, ...]:
    try:
        layers = layer_table(network, space.shape, space.voxel_size_mm)
    except ValueError as error:
        raise OnnxUnreadable(source.file, str(error)) from error
    if not layers:
        raise OnnxUnreadable(source.file, "computes nothing with its input; export the network again")
    return layers


def _logits(source: Source, network: OnnxNetwork, layers: tuple[Layer, ...]) -> tuple[Layer, Head | None]:
    """Return the layer of the output or, behind which there is a softmax or a sigmoid, the one before."""
    by_name = {layer.name: layer for layer in layers}
    name = output = network.producer(source.output_name)
    while name in by_name and by_name[name].type in _HEADS.keys() | _NEUTRAL:
        before = network.producer(network.sources(name)[0])
        if before not in by_name or by_name[before].channels != by_name[output].channels:
            break
        if head := _HEADS.get(by_name[name].type):
            return by_name[before], head
        name = before
    if output not in by_name:
        reason = f"output {source.output_name!r} is no activation; export the network up to one"
        raise OnnxUnreadable(source.file, reason)
    return by_name[output], None
