"""The card of an imported network: what is known of it, and plainly what is not."""

from __future__ import annotations

from collections.abc import Sequence

from models.architectures import IMPORTED
from models.layers import Layer
from models.manifest import Manifest


def write_card(manifest: Manifest, layers: Sequence[Layer], images: int) -> str:
    """Write the card.

    Parameters
    ----------
    manifest : Manifest
        Complete but for its `files`, with `imported`.
    layers : sequence of Layer
        The network's.
    images : int
        How many images its prior was measured on.

    Returns
    -------
    str
        Markdown.
    """
    return "\n\n".join(
        [
            f"# {manifest.name}, version {manifest.version}",
            _what(manifest, layers),
            "## Intended use",
            manifest.intended_use,
            f"**Not for:** {manifest.not_for}",
            "## Source",
            _source(manifest),
            "## Images",
            _images(manifest, images),
            "## Training and evaluation",
            "Not known: the network was imported. Ask its owner for data, split and held-out figures.",
            "## License",
            f"{manifest.license}\n",
        ]
    )


def _what(manifest: Manifest, layers: Sequence[Layer]) -> str:
    space = manifest.input
    names = ", named by the ONNX values that they compute" if manifest.architecture.name == IMPORTED else ""
    shape = " x ".join(str(length) for length in space.shape)
    size = " x ".join(f"{edge:.4g}" for edge in space.voxel_size_mm)
    classes = (
        f"A classifier with the classes {', '.join(manifest.classes)}, whose logits are the output of "
        f"`{manifest.classifier_layer}`."
        if manifest.classes
        else f"No classifier: its last layer is `{layers[-1].name}`."
    )
    return (
        f"A 3D network of {len(layers)} layers{names}. {classes}\n\n"
        f"Input: {shape} voxels of {size} mm, orientation {space.orientation}, space {space.space}. Model "
        f"units are {space.normalization.words}, within {space.intensity_range[0]:g} to "
        f"{space.intensity_range[1]:g}."
    )


def _source(manifest: Manifest) -> str:
    found = manifest.imported
    assert found is not None  # the manifest of an imported network
    lines = [
        f"- {found.source}, SHA-256 `{found.sha256}`",
        f"- written by {found.producer or 'an unnamed producer'}, ONNX opset {found.opset}",
        f"- outputs differ from ONNX Runtime's by at most {found.agreement:.1e}",
        f"- imported with {', '.join(f'{name} {version}' for name, version in found.software.items())}",
    ]
    return "\n".join(lines)


def _images(manifest: Manifest, images: int) -> str:
    if manifest.imported is not None and manifest.imported.cohort:
        return f"Intensities, spectrum and the units' activations were measured on {images} images."
    return (
        "Only a reference image was given. Intensities and spectrum are those of that image, the deviation "
        "between brains is assumed, and how units answer to real images is not known: results are not placed "
        "among real images. Import again with a cohort to have that."
    )
