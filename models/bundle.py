"""A bundle: one model's folder, verified and read without unpickling anything.

Every file is opened as a plain file, never through a link, and its digest is compared before a byte of it is
parsed; that is done again each time a part is loaded, because files may change while a service runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import nibabel
import safetensors.torch
import torch
from torch import nn

from models import reference as reference_image
from models.architectures import IMPORTED, build
from models.errors import BundleCorrupt, BundleInvalid, LayerNotFound
from models.files import read_plain
from models.layers import Layer, layer_table
from models.manifest import Manifest
from models.prior import Prior

MANIFEST = "bundle.json"
WEIGHTS = "weights.safetensors"
ONNX = "model.onnx"
REFERENCE = "reference.nii.gz"
PRIOR = "prior.safetensors"
GRAPH = "graph.json"
CARD = "MODEL_CARD.md"
# So many boxes are remembered with the layers as they act on them.
_SURVEYS = 8


@dataclass(frozen=True)
class Bundle:
    """A verified model. Obtain it from `models.read_bundle`, `models.write_bundle` or `models.Repository`.

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
        data = verified(self, REFERENCE)
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
        data = verified(self, CARD)
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
        imported = self.manifest.architecture.name == IMPORTED
        with _blaming(self, GRAPH if imported else "architecture.hyperparameters"):
            return layer_table(_empty_network(self), shape, self.manifest.input.voxel_size_mm)


def verified(bundle: Bundle, file: str) -> bytes:
    """Read a file of a bundle and compare its digest.

    Parameters
    ----------
    bundle : Bundle
        The bundle.
    file : str
        A name that its manifest lists.

    Returns
    -------
    bytes
        The whole content.

    Raises
    ------
    BundleCorrupt
        If the file is missing, no plain file, or has changed.
    """
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
    except RecursionError as error:
        raise BundleInvalid(bundle.label, field, "is nested too deeply") from error


def _tensors(bundle: Bundle, file: str) -> dict[str, torch.Tensor]:
    data = verified(bundle, file)
    with _blaming(bundle, file):
        # Cloned, because the parser's tensors lie unaligned in one shared buffer.
        return {name: tensor.clone() for name, tensor in safetensors.torch.load(data).items()}


def _empty_network(bundle: Bundle) -> nn.Module:
    """Build the architecture without memory and without touching the random state."""
    architecture = bundle.manifest.architecture
    hyperparameters: dict[str, Any] = dict(architecture.hyperparameters)
    if architecture.name == IMPORTED:
        with _blaming(bundle, GRAPH):
            hyperparameters["graph"] = json.loads(verified(bundle, GRAPH))
    try:
        with torch.device("meta"):
            return build(architecture.name, **hyperparameters)
    except BundleInvalid as error:
        raise BundleInvalid(bundle.label, error.field, error.reason) from error
