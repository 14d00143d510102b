"""Verifying a bundle: digests first, then every part is loaded once, so that what is returned works."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import ValidationError

from models.architectures import IMPORTED
from models.bundle import CARD, GRAPH, MANIFEST, PRIOR, REFERENCE, WEIGHTS, Bundle, verified
from models.errors import BundleCorrupt, BundleInvalid, bundle_label
from models.files import read_plain
from models.layers import Layer
from models.manifest import Manifest

REQUIRED = frozenset({WEIGHTS, REFERENCE, PRIOR, CARD})
MAX_MANIFEST_BYTES = 1 << 20


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
        verified(bundle, file)
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
    required = REQUIRED | {GRAPH} if bundle.manifest.architecture.name == IMPORTED else REQUIRED
    unlisted = sorted(required - set(listed))
    if unlisted:
        raise BundleInvalid(label, "files", f"must list {', '.join(unlisted)}")
    if MANIFEST in listed:
        raise BundleInvalid(label, "files", f"must not list {MANIFEST} itself")
    present = {file.name for file in bundle.path.iterdir()}
    for file in sorted(set(listed) - present):
        raise BundleCorrupt(label, file, "is missing; restore the bundle")
    for file in sorted(present - set(listed) - {MANIFEST} - beside):
        raise BundleCorrupt(label, file, f"is not listed in {MANIFEST}; remove it")


def _check_classifier(bundle: Bundle, layers: dict[str, Layer]) -> None:
    manifest = bundle.manifest
    classifier = layers.get(manifest.classifier_layer)
    if classifier is None:
        valid = ", ".join(layers)
        reason = f"{manifest.classifier_layer!r} is no layer of the network; valid layers: {valid}"
        raise BundleInvalid(bundle.label, "classifier_layer", reason)
    if not classifier.is_vector or classifier.channels != len(manifest.classes):
        reason = f"{len(manifest.classes)} classes, but {classifier.name} gives {classifier.channels} units"
        raise BundleInvalid(bundle.label, "classes", reason)


def _check_parts(bundle: Bundle) -> None:
    """Load each part once and see that they fit each other."""
    manifest = bundle.manifest
    layers = {layer.name: layer for layer in bundle.layers()}
    if manifest.classes:
        _check_classifier(bundle, layers)
    bundle.network()
    bundle.reference()
    bundle.card()
    for layer in bundle.prior().layers:
        if layer not in layers:
            raise BundleInvalid(bundle.label, PRIOR, f"has activations of {layer!r}, which is no layer")
