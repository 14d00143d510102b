"""What visualization needs to know of real images, measured: the prior that a bundle carries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from models.prior import Prior

LEVELS = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
"""Levels of all quantiles in the prior."""
# Where one image is all there is: how brains differ at a voxel, in parts of how a brain differs from voxel to
# voxel. In the three cohorts behind the shipped models it is 0.41 to 0.53.
_DEVIATION_PER_CONTRAST = 0.5
# Voxels that never move by themselves: an image with fewer of them has no background of zeros.
_LEAST_BACKGROUND = 0.01
_DARK = 0.1


@contextmanager
def watched(network: nn.Module, layers: Collection[str] | None = None) -> Iterator[dict[str, Tensor]]:
    """Keep the latest output of some layers; the hooks are removed at the end.

    Parameters
    ----------
    network : torch.nn.Module
        Any.
    layers : collection of str, optional
        Names of modules; by default every convolution and linear layer.

    Yields
    ------
    dict of str to torch.Tensor
        Outputs by layer, after each run of the network.
    """
    outputs: dict[str, Tensor] = {}
    handles = []
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv3d, nn.Linear)) if layers is None else name in layers:

            def keep(_module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
                outputs[name] = output

            handles.append(module.register_forward_hook(keep))
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


class UnitStatistics:
    """Spatial means and maxima of every unit, image by image.

    Attributes
    ----------
    means, maxima : dict of list of numpy.ndarray
        By layer, for each image the units' values, float32, shape `(units,)`.
    """

    def __init__(self) -> None:
        self.means: dict[str, list[np.ndarray]] = {}
        self.maxima: dict[str, list[np.ndarray]] = {}

    def add(self, outputs: Mapping[str, Tensor]) -> None:
        """Note what `watched` holds after one image, a batch of one."""
        for name, output in outputs.items():
            flat = output[0].reshape(output.shape[1] if output.ndim > 1 else 1, -1)
            self.means.setdefault(name, []).append(flat.mean(dim=1).numpy())
            self.maxima.setdefault(name, []).append(flat.amax(dim=1).numpy())


def measure_prior(
    brains: Iterable[np.ndarray],
    intensities: np.ndarray,
    mask: np.ndarray,
    deviation: np.ndarray,
    means: Mapping[str, np.ndarray],
    maxima: Mapping[str, np.ndarray],
) -> Prior:
    """Measure the statistics that a bundle carries.

    Parameters
    ----------
    brains : iterable of numpy.ndarray
        Each of shape `(X, Y, Z)`, model units.
    intensities : numpy.ndarray
        Of the brains' voxels, all brains together, shape `(voxels,)`.
    mask : numpy.ndarray
        Where brains are; bool, shape `(X, Y, Z)`.
    deviation : numpy.ndarray
        Voxelwise standard deviation over brains, shape `(X, Y, Z)`.
    means, maxima : mapping of str to numpy.ndarray
        For each layer the units' spatial means and maxima on real images, float32, shape `(n, units)`.

    Returns
    -------
    Prior
        See `models.prior`. Layers whose output has no spatial axes have one statistic only.
    """
    total = np.zeros((*mask.shape[:2], mask.shape[2] // 2 + 1))
    count = 0
    for count, brain in enumerate(brains, start=1):  # noqa: B007 (counted)
        total += np.abs(np.fft.rfftn(brain.astype(np.float32), norm="ortho"))
    flat = {name for name in means if np.array_equal(means[name], maxima[name])}
    return Prior.pack(
        magnitude=torch.from_numpy(total / count),
        deviation=torch.from_numpy(deviation.astype(np.float32)),
        mask=torch.from_numpy(mask),
        intensity_quantiles=_quantiles(intensities[:, None])[0],
        quantile_levels=LEVELS,
        activations={name: _quantiles(values) for name, values in means.items()},
        maxima={name: _quantiles(values) for name, values in maxima.items() if name not in flat},
    )


def assumed_deviation(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Guess how brains differ at each voxel where only one image is known: equally all over the brain.

    Parameters
    ----------
    image : numpy.ndarray
        A mean image, or one of a person, model units.
    mask : numpy.ndarray
        Where the brain is; bool, same shape.

    Returns
    -------
    numpy.ndarray
        float32, same shape.
    """
    return np.asarray(mask * np.float32(_DEVIATION_PER_CONTRAST * image[mask].std()), np.float32)


def foreground(images: Iterable[np.ndarray]) -> np.ndarray:
    """Tell voxels that at least half of the images show something in.

    That is a voxel other than 0 or, in images with hardly a voxel of 0, brighter than a tenth of the bright.

    Parameters
    ----------
    images : iterable of numpy.ndarray
        Equal shapes, the scanner's units.

    Returns
    -------
    numpy.ndarray
        bool, same shape.
    """
    total, count = 0.0, 0
    for image in images:
        shown = image != 0
        if shown.mean() > 1 - _LEAST_BACKGROUND:
            shown = image > _DARK * np.quantile(image, 0.99)
        total, count = total + shown, count + 1
    return np.asarray(total >= count / 2)


def _quantiles(values: np.ndarray) -> torch.Tensor:
    """Quantiles of each column, float32, shape `(columns, len(LEVELS))`."""
    return torch.from_numpy(np.quantile(values, LEVELS, axis=0).T.astype(np.float32))
