"""Writing a bundle: all of it, verified, or nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import safetensors.torch
import torch
from torch import nn

from models import bundle as layout
from models import reference as reference_image
from models.bundle import Bundle
from models.errors import BundleInvalid
from models.manifest import Manifest
from models.prior import Prior
from models.verifying import read_bundle, verify


def write_bundle(
    directory: str | Path,
    manifest: Manifest,
    network: nn.Module,
    reference: nibabel.Nifti1Image,
    prior: Mapping[str, torch.Tensor],
    card: str,
    *,
    graph: Mapping[str, Any] | None = None,
    onnx: bool | bytes = True,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle and read it back.

    Everything is made and verified in a hidden folder beside the target, which is then renamed. Equal
    arguments give equal bytes.

    Parameters
    ----------
    directory : str or Path
        The bundle's own folder, ``<repository>/<name>/<version>``.
    manifest : Manifest
        All but `files`, which is filled in here.
    network : torch.nn.Module
        The trained network, as ``manifest.architecture`` builds it. It is left as found.
    reference : nibabel.Nifti1Image
        The mean training image in model units, on the manifest's grid.
    prior : mapping of str to torch.Tensor
        A `Prior`, or the tensors of one.
    card : str
        The model card, Markdown.
    graph : mapping, optional
        Of an imported network, as `models.onnx_graph.translate.translate` writes it.
    onnx : bool or bytes
        Whether to write ``model.onnx`` too, checked against torch; needs the packages onnx and onnxruntime.
        The bytes of an imported model are written as they are.
    overwrite : bool
        Whether an existing bundle may be replaced.

    Returns
    -------
    Bundle
        Read from `directory`.

    Raises
    ------
    BundleInvalid
        If the parts do not fit each other or the folder, or the folder exists and `overwrite` is not set.
    ExportFailed
        If the ONNX model cannot be made or disagrees with torch.
    """
    target = Path(directory).absolute()
    if (target.parent.name, target.name) != (manifest.name, str(manifest.version)):
        reason = f"the folder must be named {manifest.name}/{manifest.version}"
        raise BundleInvalid(target, "name and version", reason)
    if target.exists() and not overwrite:
        reason = "this version exists already; raise the version or allow overwriting"
        raise BundleInvalid(target, "version", reason)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        staged = scratch / "new"
        staged.mkdir()
        _fill(staged, manifest, _parts(manifest, network, reference, prior, card, graph))
        fresh = verify(staged, f"{manifest.name}/{manifest.version}")
        if onnx:
            _add_onnx(fresh, onnx)
        _swap(staged, target, scratch / "old")
    finally:
        shutil.rmtree(scratch)
    return read_bundle(target)


def _parts(
    manifest: Manifest,
    network: nn.Module,
    reference: nibabel.Nifti1Image,
    prior: Mapping[str, torch.Tensor],
    card: str,
    graph: Mapping[str, Any] | None,
) -> dict[str, bytes]:
    """Turn every part into the bytes of its file."""
    state, tensors = _owned(network.state_dict()), _owned(prior)
    label = f"{manifest.name}/{manifest.version}"
    try:
        Prior(tensors)
    except ValueError as error:
        raise BundleInvalid(label, layout.PRIOR, str(error)) from error
    try:
        picture = reference_image.encode(reference)
    except ValueError as error:
        raise BundleInvalid(label, layout.REFERENCE, str(error)) from error
    return {
        **({} if graph is None else {layout.GRAPH: _canonical(graph)}),
        layout.WEIGHTS: safetensors.torch.save(state),
        layout.REFERENCE: picture,
        layout.PRIOR: safetensors.torch.save(tensors),
        layout.CARD: card.encode(),
    }


def _canonical(graph: object) -> bytes:
    return (json.dumps(graph, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def _owned(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy tensors, because the format refuses those that share memory."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def _fill(folder: Path, manifest: Manifest, parts: Mapping[str, bytes]) -> None:
    for file, data in parts.items():
        (folder / file).write_bytes(data)
    files = {file: hashlib.sha256(data).hexdigest() for file, data in parts.items()}
    (folder / layout.MANIFEST).write_bytes(manifest.model_copy(update={"files": files}).to_json())


def _add_onnx(bundle: Bundle, given: bool | bytes) -> None:
    """Add the ONNX model, exported from the network as the bundle holds it: what is checked is shipped."""
    if isinstance(given, bytes):
        model = given
    else:
        from models.onnx_export import export_onnx

        model = export_onnx(bundle.network(), bundle.manifest.input.shape)
    (bundle.path / layout.ONNX).write_bytes(model)
    files = {**bundle.manifest.files, layout.ONNX: hashlib.sha256(model).hexdigest()}
    manifest = bundle.manifest.model_copy(update={"files": files})
    (bundle.path / layout.MANIFEST).write_bytes(manifest.to_json())


def _swap(staged: Path, target: Path, old: Path) -> None:
    """Put the new folder in place; whatever was there is put back if that fails."""
    if not target.exists():
        staged.rename(target)
        return
    target.rename(old)
    try:
        staged.rename(target)
    except OSError:
        old.rename(target)
        raise
