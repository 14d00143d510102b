"""The networks that a bundle may name.

Architecture code comes from this registry, never from a bundle. An architecture keeps every tensor it needs
in its state dict, because bundles build it without memory (on PyTorch's meta device) and then assign the
stored weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from models.architectures.lesion_net import LesionNet
from models.architectures.resnet import ResNet
from models.architectures.sfcn import SFCN
from models.architectures.ukb import UKBNetA, UKBNetB
from models.architectures.volume_net import VolumeNet
from models.errors import BundleInvalid
from models.onnx_graph import OnnxNetwork

REGISTRY: dict[str, Callable[..., nn.Module]] = {
    "lesion-net": LesionNet,
    "onnx": OnnxNetwork,
    "resnet": ResNet,
    "sfcn": SFCN,
    "ukb-a": UKBNetA,
    "ukb-b": UKBNetB,
    "volume-net": VolumeNet,
}


def build(name: str, **hyperparameters: Any) -> nn.Module:
    """Build a registered architecture with fresh weights.

    Parameters
    ----------
    name : str
        A key of `REGISTRY`.
    **hyperparameters
        Passed to the architecture.

    Returns
    -------
    torch.nn.Module
        The network, in training mode, as its constructor leaves it.

    Raises
    ------
    BundleInvalid
        If the name is unknown (the known ones are listed) or the architecture refuses the hyperparameters.
    """
    if name not in REGISTRY:
        known = ", ".join(sorted(REGISTRY))
        raise BundleInvalid("", "architecture.name", f"{name!r} is not registered; use one of: {known}")
    try:
        return REGISTRY[name](**hyperparameters)
    except (TypeError, ValueError) as error:
        raise BundleInvalid("", "architecture.hyperparameters", str(error)) from error
