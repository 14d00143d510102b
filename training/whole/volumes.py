"""Whole volumes on a coarse grid, and balanced batches of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from training.cohort import INTENSITY_RANGE, Cohort, CohortError, normalize
from training.fit import balanced

if TYPE_CHECKING:
    from monai.transforms import Compose


def halve(volume: np.ndarray) -> np.ndarray:
    """Average blocks of 2x2x2 voxels; a last odd plane is left out.

    Parameters
    ----------
    volume : numpy.ndarray
        Shape `(X, Y, Z)`, each at least 2.

    Returns
    -------
    numpy.ndarray
        float32, shape `(X // 2, Y // 2, Z // 2)`.
    """
    x, y, z = (length // 2 for length in volume.shape)
    blocks = volume[: 2 * x, : 2 * y, : 2 * z].astype(np.float32).reshape(x, 2, y, 2, z, 2)
    return np.asarray(blocks.mean(axis=(1, 3, 5)))


def halved_affine(affine: np.ndarray) -> np.ndarray:
    """Voxel to world in mm after `halve`: twice the voxel, centred half a voxel further on."""
    step = np.diag([2.0, 2.0, 2.0, 1.0])
    step[:3, 3] = 0.5
    return np.asarray(affine @ step)


def framed(cohort: Cohort) -> Cohort:
    """Cut off what is empty in every brain, which spares much of the work.

    Parameters
    ----------
    cohort : Cohort
        Brains at full resolution.

    Returns
    -------
    Cohort
        On a smaller grid, with even sides where the grid allows. As much is cut off left as right, so that
        flips keep the midline.
    """
    filled: np.ndarray = np.any(cohort.brains > 0, axis=0)
    parts, shift = [], np.zeros(3)
    for axis, length in enumerate(filled.shape):
        used = np.flatnonzero(filled.swapaxes(0, axis).reshape(length, -1).any(axis=1))
        low, high = int(used[0]), int(used[-1]) + 1
        if axis == 0:
            low = min(low, length - high)
            high = length - low
        low -= (high - low) % 2 if low else 0
        parts.append(slice(low, high))
        shift[axis] = low
    affine = cohort.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ shift
    return replace(cohort, brains=cohort.brains[:, parts[0], parts[1], parts[2]], affine=affine)


def coarse(cohort: Cohort) -> Cohort:
    """Halve the resolution of a cohort and normalize it anew.

    Parameters
    ----------
    cohort : Cohort
        Brains at full resolution.

    Returns
    -------
    Cohort
        The same subjects on a grid with half the voxels along each axis.

    Raises
    ------
    CohortError
        If the coarse grid has fewer than 16 voxels along an axis: too few for a network to pool.
    """
    brains = np.stack([normalize(halve(brain)).astype(np.float16) for brain in cohort.brains])
    if min(brains.shape[1:]) < 16:
        raise CohortError(
            f"cohort: {brains.shape[1:]} voxels are left at half the resolution, at least 16 a side are "
            "needed; give whole brains of 2 mm"
        )
    return replace(cohort, brains=brains, affine=halved_affine(cohort.affine))


@dataclass(frozen=True)
class Augmentation:
    """What varies between two looks at one volume; MONAI's transforms, applied in this order.

    Attributes
    ----------
    flip : float
        Probability of mirroring left and right (`RandFlip`).
    shift : int
        Largest shift along each axis in voxels (`SpatialPad`, `RandSpatialCrop`).
    bias : float
        Largest coefficient of the bias field's polynomial of degree 3 (`RandBiasField`); drawn in half of
        the volumes.
    gamma : tuple of float
        Range of the exponent (`RandAdjustContrast`).
    noise : float
        Largest standard deviation of Gaussian noise, model units (`RandGaussianNoise`).
    """

    flip: float = 0.5
    shift: int = 1
    bias: float = 0.1
    gamma: tuple[float, float] = (0.85, 1.15)
    noise: float = 0.03

    def facts(self) -> dict[str, JsonValue]:
        """Describe the augmentation in plain values, for the manifest."""
        return {**asdict(self), "gamma": list(self.gamma), "library": "MONAI"}

    def transform(self, shape: tuple[int, ...]) -> Compose:
        """Build the transform of volumes of shape `(1, X, Y, Z)`."""
        # MONAI takes seconds to load, and only who draws volumes needs it.
        from monai import transforms

        steps: list[transforms.Transform] = [transforms.RandFlip(prob=self.flip, spatial_axis=0)]
        if self.shift:
            steps.append(transforms.SpatialPad([length + 2 * self.shift for length in shape]))
            steps.append(transforms.RandSpatialCrop(list(shape), random_center=True, random_size=False))
        if self.bias:
            steps.append(transforms.RandBiasField(degree=3, coeff_range=(-self.bias, self.bias), prob=0.5))
        steps.append(transforms.RandAdjustContrast(prob=0.5, gamma=self.gamma))
        if self.noise:
            steps.append(transforms.RandGaussianNoise(prob=1.0, mean=0.0, std=self.noise, sample_std=True))
        return transforms.Compose(steps)


class VolumeSampler:
    """Draws batches of labelled volumes, the classes in equal shares.

    Parameters
    ----------
    volumes : numpy.ndarray
        Training subjects only, model units, shape `(n, X, Y, Z)`; kept, not copied.
    codes : numpy.ndarray
        Class of each, integer, shape `(n,)`.
    seed : int
        Batch `step` is a function of the volumes, `seed` and `step` alone, whatever was drawn before.
    augmentation : Augmentation
        Applied to every volume.
    """

    def __init__(
        self, volumes: np.ndarray, codes: np.ndarray, seed: int, augmentation: Augmentation | None = None
    ) -> None:
        self.volumes, self.seed = volumes, seed
        self.members = [np.flatnonzero(codes == code) for code in range(int(codes.max()) + 1)]
        self.transform = (augmentation or Augmentation()).transform(volumes.shape[1:])

    def batch(self, step: int, size: int, edge: int = 0) -> tuple[Tensor, Tensor]:
        """Draw one batch.

        Parameters
        ----------
        step : int
            Number of the batch.
        size : int
            Number of volumes.
        edge : int
            Not used: volumes are whole.

        Returns
        -------
        volumes : torch.Tensor
            float32, shape `(size, 1, X, Y, Z)`, within `INTENSITY_RANGE`.
        labels : torch.Tensor
            int64, shape `(size,)`; of an odd batch's last volume the class is drawn.
        """
        rng = np.random.default_rng((self.seed, step))
        labels = balanced(rng, size, len(self.members))
        rows = [int(rng.choice(self.members[label])) for label in labels]
        return torch.stack([self._look(row, rng) for row in rows]), torch.from_numpy(labels)

    def _look(self, row: int, rng: np.random.Generator) -> Tensor:
        self.transform.set_random_state(seed=int(rng.integers(2**31)))
        looked = self.transform(torch.from_numpy(self.volumes[row][None].astype(np.float32)))
        return torch.as_tensor(looked, dtype=torch.float32).clamp(*INTENSITY_RANGE)
