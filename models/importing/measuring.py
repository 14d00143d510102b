"""An imported network's input space and prior, from the images that were given with it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import nibabel
import numpy as np
import torch
from nibabel.affines import voxel_sizes
from torch import nn

from models.importing.facts import Facts
from models.importing.images import Images
from models.layers import Layer
from models.manifest import InputSpace
from models.prior import Prior
from models.statistics import UnitStatistics, assumed_deviation, foreground, measure_prior, watched

# Layers whose units are measured on the cohort, beside the output's: others follow from them.
_MEASURED = ("Conv3d", "ConvTranspose3d", "Linear", "Conv", "ConvTranspose", "Gemm", "MatMul")

Track = Callable[[Iterable[np.ndarray], str, int], Iterable[np.ndarray]]
"""Shows progress over an iterable, given what is done and how many there are."""


def measured_layers(layers: Collection[Layer], logits: str) -> set[str]:
    """Return the names of the layers whose units are measured: the weighted ones and that of the logits."""
    return {layer.name for layer in layers if layer.type in _MEASURED} | {logits}


def space_of(images: Images, facts: Facts) -> InputSpace:
    """Describe the space of the reference as a network's input.

    Parameters
    ----------
    images : Images
        The reference and the cohort.
    facts : Facts
        What the network's owner says.

    Returns
    -------
    InputSpace
        The reference's grid, with the images' intensities where the owner says none.
    """
    reference = images.reference
    affine = np.asarray(reference.affine)
    x, y, z = reference.shape
    sizes = tuple(float(size) for size in voxel_sizes(affine))
    return InputSpace(
        shape=(x, y, z),
        voxel_size_mm=sizes,
        affine=affine.tolist(),
        orientation="".join(nibabel.aff2axcodes(affine)),
        space=facts.space,
        normalization=facts.normalization,
        intensity_range=facts.intensity_range or images.intensity_range(),
        clipped=False,
    )


def prior_of(
    network: nn.Module, layers: Collection[str], images: Images, space: InputSpace, track: Track
) -> tuple[Prior, nibabel.Nifti1Image]:
    """Measure the cohort, or what the reference tells alone.

    Parameters
    ----------
    network : torch.nn.Module
        In eval mode.
    layers : collection of str
        Whose units are measured on the cohort.
    images : Images
        The reference and the cohort.
    space : InputSpace
        The network's.
    track : callable
        Shows progress, see `models.importing.import_onnx`.

    Returns
    -------
    Prior, nibabel.Nifti1Image
        What was measured, and the reference in model units.
    """
    mask = foreground(track(images.raw(), "where brains are", images.known))
    reference = space.normalize(np.asarray(images.reference.dataobj, np.float32))
    mean = nibabel.Nifti1Image(reference, images.reference.affine)
    units = UnitStatistics()
    if not images.files:
        deviation = assumed_deviation(reference, mask)
    else:
        deviation = _measure(network, layers, images, space, units, track)
    inside = np.concatenate([image[mask] for image in images.model_units(space)])
    stacked = [{name: np.stack(rows) for name, rows in each.items()} for each in (units.means, units.maxima)]
    return measure_prior(images.model_units(space), inside, mask, deviation, *stacked), mean


@torch.no_grad()
def _measure(
    network: nn.Module,
    layers: Collection[str],
    images: Images,
    space: InputSpace,
    units: UnitStatistics,
    track: Track,
) -> np.ndarray:
    """Run the network on every image of the cohort; returns the voxelwise standard deviation."""
    total = squares = np.zeros(space.shape)
    with watched(network, layers) as outputs:
        for image in track(images.model_units(space), "how units answer", images.known):
            network(torch.from_numpy(image)[None, None])
            units.add(outputs)
            total, squares = total + image, squares + image.astype(np.float64) ** 2
    mean = total / images.known
    return np.sqrt(np.maximum(squares / images.known - mean**2, 0))
