"""A bundle: one model's folder, verified, read without unpickling anything, and written atomically.

Every file is opened as a plain file, never through a link, and its digest is compared before a byte of it is
parsed; that is done again each time a part is loaded, because files may change while a service runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import nibabel
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import nn

from models import reference as reference_image
from models.architectures import build
from models.errors import BundleCorrupt, BundleInvalid, LayerNotFound, bundle_label
from models.files import read_plain
from models.layers import Layer, layer_table
from models.manifest import Manifest
from models.prior import Prior

MANIFEST = "bundle.json"
WEIGHTS = "weights.safetensors"
ONNX = "model.onnx"
REFERENCE = "reference.nii.gz"
PRIOR = "prior.safetensors"
CARD = "MODEL_CARD.md"
# So many boxes are remembered with the layers as they act on them.
_SURVEYS = 8
REQUIRED = frozenset({WEIGHTS, REFERENCE, PRIOR, CARD})
MAX_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True)
class Bundle:
    """A verified model. Obtain it from `read_bundle`, `write_bundle` or `models.repository.Repository`.

    Attributes
    ----------
    path : Path
        The bundle's folder.
    manifest : Manifest
        The content of ``bundle.json``.
    digest : str
        SHA-256 of the bytes of ``bundle.json``, in hex; since that lists the other digests, it names the
        whole model.
    """

    path: Path
    manifest: Manifest
    digest: str

    @property
    def label(self) -> str:
        """``"<name>/<version>"``."""
        return f"{self.manifest.name}/{self.manifest.version}"

    def network(self) -> nn.Module:
        """Build the network and load its weights.

        Returns
        -------
        torch.nn.Module
            A new one at each call, float32, in eval mode.

        Raises
        ------
        BundleCorrupt
            If the weights' file has changed.
        BundleInvalid
            If the weights do not fit the architecture exactly.
        """
        state = _tensors(self, WEIGHTS)
        network = _empty_network(self)
        try:
            network.load_state_dict(state, strict=True, assign=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:400]
            raise BundleInvalid(self.label, WEIGHTS, f"does not fit the architecture: {reason}") from error
        return network.float().eval()

    def layers(self, shape: tuple[int, int, int] | None = None) -> tuple[Layer, ...]:
        """List the network's layers in order of execution.

        Parameters
        ----------
        shape : tuple of int, optional
            Voxels of the volume that the network reads; by default the whole grid.

        Returns
        -------
        tuple of Layer
            See `models.layers.layer_table`.

        Raises
        ------
        BundleInvalid
            If the network cannot read a volume of that shape.
        """
        if shape is None or shape == self.manifest.input.shape:
            return self._layers
        return self._surveyed(shape)

    def layer(self, name: str) -> Layer:
        """Look one layer up.

        Parameters
        ----------
        name : str
            As PyTorch writes it.

        Returns
        -------
        Layer
            The layer of that name.

        Raises
        ------
        LayerNotFound
            If there is none; lists the valid names.
        """
        for layer in self._layers:
            if layer.name == name:
                return layer
        raise LayerNotFound(name, [layer.name for layer in self._layers])

    def reference(self) -> nibabel.Nifti1Image:
        """Load the mean training image.

        Returns
        -------
        nibabel.Nifti1Image
            float32 in model units, with the manifest's shape and affine.

        Raises
        ------
        BundleCorrupt, BundleInvalid
            If the file has changed or is not such an image.
        """
        data = _verified(self, REFERENCE)
        space = self.manifest.input
        with _blaming(self, REFERENCE):
            return reference_image.decode(data, space.shape, space.affine)

    def prior(self) -> Prior:
        """Load the cohort's statistics.

        Returns
        -------
        Prior
            A mapping of the stored tensors with methods that say what they stand for.

        Raises
        ------
        BundleCorrupt, BundleInvalid
            If the file has changed or holds something else.
        """
        tensors = _tensors(self, PRIOR)
        with _blaming(self, PRIOR):
            prior = Prior(tensors)
            if prior.shape != self.manifest.input.shape:
                raise ValueError(f"has mask_shape {prior.shape}, the input {self.manifest.input.shape}")
        return prior

    def card(self) -> str:
        """Load the model card.

        Returns
        -------
        str
            Markdown.

        Raises
        ------
        BundleCorrupt, BundleInvalid
            If the file has changed or is not UTF-8.
        """
        data = _verified(self, CARD)
        with _blaming(self, CARD):
            return data.decode()

    @cached_property
    def _surveyed(self) -> Callable[[tuple[int, int, int]], tuple[Layer, ...]]:
        """Return the layers on a box; boxes that were asked for of late are remembered."""
        return lru_cache(_SURVEYS)(self._layers_on)

    @cached_property
    def _layers(self) -> tuple[Layer, ...]:
        return self._layers_on(self.manifest.input.shape)

    def _layers_on(self, shape: tuple[int, int, int]) -> tuple[Layer, ...]:
        with _blaming(self, "architecture.hyperparameters"):
            return layer_table(_empty_network(self), shape, self.manifest.input.voxel_size_mm)


def read_bundle(path: str | Path) -> Bundle:
    """Read and verify a bundle.

    Digests come first; then every part is loaded once, so that a bundle which is returned works.

    Parameters
    ----------
    path : str or Path
        The folder ``<repository>/<name>/<version>``.

    Returns
    -------
    Bundle
        Verified.

    Raises
    ------
    BundleCorrupt
        If a file is missing, superfluous, altered, or not a plain file.
    BundleInvalid
        If ``bundle.json`` does not follow the schema, disagrees with the folder's name, or the parts do not
        fit each other.
    """
    folder = Path(path).absolute()
    bundle = verify(folder, bundle_label(folder))
    if folder.parent.name != bundle.manifest.name:
        reason = (
            f"is {bundle.manifest.name!r}, but the folder is named {folder.parent.name!r}; they must agree"
        )
        raise BundleInvalid(folder, "name", reason)
    if folder.name != str(bundle.manifest.version):
        reason = f"is {bundle.manifest.version}, but the folder is named {folder.name!r}; they must agree"
        raise BundleInvalid(folder, "version", reason)
    return bundle


def verify(folder: Path, label: str, beside: frozenset[str] = frozenset()) -> Bundle:
    """Verify a folder as `read_bundle` does, whatever the folder is called.

    Parameters
    ----------
    folder : Path
        Where the files lie.
    label : str
        What errors call the bundle.
    beside : frozenset of str
        What else may lie there and is no part of the bundle.

    Returns
    -------
    Bundle
        Verified.

    Raises
    ------
    BundleCorrupt, BundleInvalid
        As `read_bundle`.
    """
    manifest_bytes = read_plain(folder, MANIFEST, label, limit=MAX_MANIFEST_BYTES)
    bundle = Bundle(folder, _parse(manifest_bytes, label), hashlib.sha256(manifest_bytes).hexdigest())
    _check_listing(bundle, label, beside)
    for file in sorted(bundle.manifest.files):
        _verified(bundle, file)
    _check_parts(bundle)
    return bundle


def _parse(data: bytes, label: str) -> Manifest:
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or MANIFEST
        given = first["input"]
        value = f", got {given!r:.80}" if isinstance(given, str | int | float) else ""
        raise BundleInvalid(label, field, first["msg"] + value) from error


def _check_listing(bundle: Bundle, label: str, beside: frozenset[str]) -> None:
    listed = bundle.manifest.files
    unlisted = sorted(REQUIRED - set(listed))
    if unlisted:
        raise BundleInvalid(label, "files", f"must list {', '.join(unlisted)}")
    if MANIFEST in listed:
        raise BundleInvalid(label, "files", f"must not list {MANIFEST} itself")
    present = {file.name for file in bundle.path.iterdir()}
    for file in sorted(set(listed) - present):
        raise BundleCorrupt(label, file, "is missing; restore the bundle")
    for file in sorted(present - set(listed) - {MANIFEST} - beside):
        raise BundleCorrupt(label, file, f"is not listed in {MANIFEST}; remove it")


def _verified(bundle: Bundle, file: str) -> bytes:
    data = read_plain(bundle.path, file, bundle.label)
    digest = hashlib.sha256(data).hexdigest()
    if digest != bundle.manifest.files[file]:
        reason = f"has SHA-256 {digest[:12]}…, {MANIFEST} says {bundle.manifest.files[file][:12]}…"
        raise BundleCorrupt(bundle.label, file, f"{reason}; restore the bundle")
    return data


@contextmanager
def _blaming(bundle: Bundle, field: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, safetensors.SafetensorError) as error:
        raise BundleInvalid(bundle.label, field, str(error)[:400]) from error


def _tensors(bundle: Bundle, file: str) -> dict[str, torch.Tensor]:
    data = _verified(bundle, file)
    with _blaming(bundle, file):
        # Cloned, because the parser's tensors lie unaligned in one shared buffer.
        return {name: tensor.clone() for name, tensor in safetensors.torch.load(data).items()}


def _empty_network(bundle: Bundle) -> nn.Module:
    """Build the architecture without memory and without touching the random state."""
    architecture = bundle.manifest.architecture
    hyperparameters: dict[str, Any] = dict(architecture.hyperparameters)
    try:
        with torch.device("meta"):
            return build(architecture.name, **hyperparameters)
    except BundleInvalid as error:
        raise BundleInvalid(bundle.label, error.field, error.reason) from error


def _check_parts(bundle: Bundle) -> None:
    """Load each part once and see that they fit each other."""
    manifest = bundle.manifest
    layers = {layer.name: layer for layer in bundle.layers()}
    classifier = layers.get(manifest.classifier_layer)
    if classifier is None:
        valid = ", ".join(layers)
        reason = f"{manifest.classifier_layer!r} is no layer of the network; valid layers: {valid}"
        raise BundleInvalid(bundle.label, "classifier_layer", reason)
    if classifier.output_shape or classifier.channels != len(manifest.classes):
        reason = f"{len(manifest.classes)} classes, but {classifier.name} gives {classifier.channels} units"
        raise BundleInvalid(bundle.label, "classes", reason)
    bundle.network()
    bundle.reference()
    bundle.card()
    for layer in bundle.prior().layers:
        if layer not in layers:
            raise BundleInvalid(bundle.label, PRIOR, f"has activations of {layer!r}, which is no layer")
