"""Training examples: crops of training brains, most of them with a lesion in sight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.fit import balanced
from training.lesions.brains import Brains
from training.lesions.catalog import BUILT_IN, Catalog
from training.lesions.shapes import GRID, Lesion


@dataclass(frozen=True)
class Augmentation:
    """What varies between two looks at one brain.

    Attributes
    ----------
    flip : bool
        Mirror left and right in half of the crops.
    gain : float
        Intensities are multiplied by 1 +- `gain`, uniformly.
    noise : tuple of float
        Range of the standard deviation of Gaussian noise, model units; drawn anew for every crop.
    """

    flip: bool = True
    gain: float = 0.1
    noise: tuple[float, float] = (0.0, 0.02)


class CropSampler:
    """Draws batches of crops from a set of brains.

    Parameters
    ----------
    brains : Brains
        Training subjects only; kept, not copied.
    seed : int
        Batch `step` is a function of the brains, `seed` and `step` alone, whatever was drawn before.
    augmentation : Augmentation
        Applied to every crop.
    shuffled : bool
        Whether labels are dealt out at random within each batch.
    catalog : Catalog
        The classes.
    """

    def __init__(
        self,
        brains: Brains,
        seed: int,
        augmentation: Augmentation | None = None,
        shuffled: bool = False,
        catalog: Catalog = BUILT_IN,
    ) -> None:
        self.brains = brains
        self.shuffled = shuffled
        self.catalog = catalog
        self.seed = seed
        self.augmentation = augmentation or Augmentation()

    def batch(self, step: int, size: int, edge: int) -> tuple[Tensor, Tensor]:
        """Draw one batch, classes as balanced as its size allows.

        Parameters
        ----------
        step : int
            Number of the batch.
        size : int
            Number of crops.
        edge : int
            Edge length of a crop in voxels; cut down to the volume where that is smaller.

        Returns
        -------
        crops : torch.Tensor
            float32, shape `(size, 1, edge, edge, edge)`.
        labels : torch.Tensor
            int64 indices into the catalog's classes, shape `(size,)`.
        """
        rng = np.random.default_rng((self.seed, step))
        labels = balanced(rng, size, len(self.catalog.classes))
        crops = np.stack([self._crop(int(label), edge, rng) for label in labels])
        if self.shuffled:
            labels = rng.permutation(labels)
        return torch.from_numpy(crops[:, None]), torch.from_numpy(labels)

    def _crop(self, label: int, edge: int, rng: np.random.Generator) -> np.ndarray:
        index = int(rng.integers(len(self.brains.volumes)))
        sites = self.brains.sites[index]
        lesion = self.catalog.draw(self.catalog.classes[label], sites, rng)
        # An untouched brain is looked at in the places where a lesion could have been.
        corner = lesion.corner if lesion else tuple(sites[rng.integers(len(sites))] - GRID // 2)
        starts = [
            self._start(int(at), edge, length, rng) for at, length in zip(corner, self.shape, strict=True)
        ]
        window = tuple(slice(start, start + edge) for start in starts)
        crop = self.brains.volumes[index][window].astype(np.float32)
        if lesion is not None:
            _paint_crop(crop, lesion, starts)
        return self._augment(crop, rng)

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape of the brains in voxels."""
        return self.brains.volumes.shape[1:]

    @staticmethod
    def _start(corner: int, edge: int, length: int, rng: np.random.Generator) -> int:
        """Where a crop begins so that it holds the whole lesion grid and stays inside the volume."""
        if edge >= length:
            return 0
        wanted = corner - int(rng.integers(edge - GRID + 1))
        return min(max(wanted, 0), length - edge)

    def _augment(self, crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        setting = self.augmentation
        if setting.flip and rng.random() < 0.5:
            crop = crop[::-1]
        crop = crop * np.float32(rng.uniform(1 - setting.gain, 1 + setting.gain))
        return crop + np.float32(rng.uniform(*setting.noise)) * rng.standard_normal(crop.shape, np.float32)


def _paint_crop(crop: np.ndarray, lesion: Lesion, starts: list[int]) -> None:
    window = tuple(
        slice(at - start, at - start + GRID) for at, start in zip(lesion.corner, starts, strict=True)
    )
    crop[window] += lesion.mask * (np.float32(lesion.target) - crop[window])
