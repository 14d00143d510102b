"""Bundles out of MONAI bundles: the network that their configuration names, with their weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.bundle import Bundle
from models.errors import MonaiBundleUnusable
from models.importing.facts import UNSTATED, Facts
from models.importing.measuring import Track
from models.importing.module import export_bundle

_CONFIGURATIONS = (
    "inference.json",
    "inference.yaml",
    "inference.yml",
    "train.json",
    "train.yaml",
    "train.yml",
)
_NETWORKS = ("network_def", "network")


def import_monai(
    folder: str | Path,
    repository: str | Path,
    facts: Facts,
    reference: str | Path,
    cohort: str | Path | None = None,
    *,
    overwrite: bool = False,
    track: Track = lambda images, _what, _total: images,
) -> Bundle:
    """Make a bundle of a MONAI bundle.

    Its configuration names Python classes, which are made and run: import bundles of people you trust. What
    `facts` leaves open is taken from its metadata.

    Parameters
    ----------
    folder : str or Path
        With ``configs`` and ``models/model.pt``.
    repository, facts, reference, cohort, overwrite, track
        As `models.importing.import_onnx` takes them.

    Returns
    -------
    Bundle
        Verified. If anything fails, no bundle is left.

    Raises
    ------
    MonaiBundleUnusable
        If the folder is no such bundle, or its weights do not fit its network.
    ExportFailed, OnnxUnreadable, OnnxUnsupported, ImageUnusable, BundleInvalid
        As `models.importing.export_bundle`.
    """
    folder = Path(folder)
    metadata = _metadata(folder)
    network = _network(folder)
    named = f"{metadata.get('name', folder.name)} {metadata.get('version', '')}".strip()
    return export_bundle(
        network,
        repository,
        _completed(facts, metadata),
        reference,
        cohort,
        origin=f"MONAI bundle {named}",
        overwrite=overwrite,
        track=track,
    )


def _metadata(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "configs" / "metadata.json").read_bytes())
    except (OSError, ValueError) as error:
        reason = "has no readable configs/metadata.json; give the folder that holds configs and models"
        raise MonaiBundleUnusable(folder.name, reason) from error
    return found if isinstance(found, dict) else {}


def _network(folder: Path) -> nn.Module:
    """Make the network that the first configuration names, with the bundle's weights."""
    from monai.bundle import ConfigParser

    file = next(
        (folder / "configs" / name for name in _CONFIGURATIONS if (folder / "configs" / name).is_file()), None
    )
    if file is None:
        raise MonaiBundleUnusable(folder.name, f"has none of configs/{', '.join(_CONFIGURATIONS)}")
    parser = ConfigParser()
    parser.read_config(str(file))
    parser["bundle_root"] = str(folder)
    parser["device"] = "cpu"
    for name in _NETWORKS:
        if name in parser:
            network = parser.get_parsed_content(name, instantiate=True)
            if isinstance(network, nn.Module):
                return _filled(folder, network.eval())
    raise MonaiBundleUnusable(folder.name, f"configs/{file.name} defines none of {', '.join(_NETWORKS)}")


def _filled(folder: Path, network: nn.Module) -> nn.Module:
    weights = folder / "models" / "model.pt"
    try:
        # Never unpickled freely: a file that holds more than tensors is refused.
        state = torch.load(weights, map_location="cpu", weights_only=True)
        state = state.get("model", state.get("state_dict", state))
        network.load_state_dict(state)
    except Exception as error:  # torch.load's errors have no common base
        text = " ".join(str(error).split())[:300]
        raise MonaiBundleUnusable(folder.name, f"models/model.pt does not fit the network: {text}") from error
    return network


def _completed(facts: Facts, metadata: dict[str, Any]) -> Facts:
    """Take from the metadata what the owner did not say."""
    formats = metadata.get("network_data_format", {})
    image: dict[str, Any] = next(iter(formats.get("inputs", {}).values()), {})
    output: dict[str, Any] = next(iter(formats.get("outputs", {}).values()), {})
    shape = image.get("spatial_shape", [])
    fixed = len(shape) == 3 and all(isinstance(size, int) and size > 0 for size in shape)
    channels = output.get("channel_def", {})
    is_vector = not output.get("spatial_shape")
    return replace(
        facts,
        input_shape=facts.input_shape or ((shape[0], shape[1], shape[2]) if fixed else None),
        classes=facts.classes
        or (tuple(str(channels[key]) for key in sorted(channels, key=int)) if is_vector else ()),
        license=metadata.get("license", facts.license) if facts.license == UNSTATED else facts.license,
        intended_use=_stated(
            facts.intended_use, metadata.get("intended_use", metadata.get("description", ""))
        ),
    )


def _stated(own: str, theirs: str) -> str:
    return theirs if own == UNSTATED and theirs else own
