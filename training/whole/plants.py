"""Images of the growth task: a region of a brain has grown, or only its surroundings were stirred."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from models.manifest import Interval
from training.cohort import INTENSITY_RANGE, Cohort, CohortError, Split, normalize
from training.fit import balanced
from training.intervals import accuracy_interval
from training.whole.growth import Region, plant
from training.whole.volumes import Augmentation, halve, halved_affine

CLASSES = ("unchanged", "grown")


@dataclass(frozen=True)
class Planting:
    """How images of both classes are made.

    In every image the region is nudged, and in class "grown" it grows as well; nothing else tells the classes
    apart. In every image, of both classes alike, decoys near the region and near its mirror image grow or
    shrink as much: growth as such tells nothing, nor does a difference between left and right that is not
    the region's own.

    Attributes
    ----------
    region : Region
        What grows.
    growth : tuple of float
        Range of the relative change of its volume.
    nudge : float
        Largest shift along each axis, mm.
    decoys : int
        How many other places grow or shrink.
    decoy_size : tuple of float
        Range of their size relative to the region's.
    decoy_distance : tuple of float
        Least distance in mm of a decoy's centre from the region's, and largest one from the region's or its
        mirror image's.
    """

    region: Region = field(default_factory=Region)
    growth: tuple[float, float] = (0.08, 0.15)
    nudge: float = 1.0
    decoys: int = 2
    decoy_size: tuple[float, float] = (0.5, 1.0)
    decoy_distance: tuple[float, float] = (36.0, 50.0)

    def facts(self) -> dict[str, JsonValue]:
        """Describe the planting in plain values, for the manifest."""
        region = asdict(self.region)
        return {
            "region": {**region, "center": list(self.region.center)},
            "growth": list(self.growth),
            "nudge_mm": self.nudge,
            "decoys": self.decoys,
            "decoy_size": list(self.decoy_size),
            "decoy_distance_mm": list(self.decoy_distance),
        }

    def image(
        self, brain: np.ndarray, affine: np.ndarray, label: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Make one image.

        Parameters
        ----------
        brain : numpy.ndarray
            Shape `(X, Y, Z)`, model units.
        affine : numpy.ndarray
            Voxel to world in mm.
        label : int
            Index into `CLASSES`.
        rng : numpy.random.Generator
            Source of all draws; it is used alike for both classes.

        Returns
        -------
        numpy.ndarray
            float32, shape `(X, Y, Z)`.
        """
        for _ in range(self.decoys):
            change = rng.uniform(*self.growth)
            if rng.random() < 0.5:
                change = 1 / (1 + change) - 1
            brain = plant(brain, affine, self._decoy(brain, affine, rng), change, self._nudge(rng))
        growth = rng.uniform(*self.growth)
        return plant(brain, affine, self.region, growth if label else 0.0, self._nudge(rng))

    def _nudge(self, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(-self.nudge, self.nudge, 3)

    def _decoy(self, brain: np.ndarray, affine: np.ndarray, rng: np.random.Generator) -> Region:
        here = np.array(self.region.center)
        least, most = self.decoy_distance
        inverse = np.linalg.inv(affine)
        for _ in range(1000):
            side = here * [rng.choice((-1, 1)), 1, 1]
            center = side + rng.uniform(-most, most, 3)
            voxel = np.rint(inverse[:3, :3] @ center + inverse[:3, 3]).astype(int)
            inside = (voxel >= 0).all() and (voxel < brain.shape).all() and brain[tuple(voxel)] > 0
            if inside and np.linalg.norm(center - side) <= most and np.linalg.norm(center - here) >= least:
                size = rng.uniform(*self.decoy_size)
                x, y, z = (float(value) for value in center)
                return Region((x, y, z), self.region.radius * size, self.region.reach * size)
        raise CohortError(
            f"the brain has no voxel from {least:g} to {most:g} mm from the region at {self.region.center} "
            "or its mirror image; choose another region, or give whole brains"
        )


@dataclass(frozen=True)
class Window:
    """The part of the grid that the network reads: the region, its mirror image, and what lies between.

    Attributes
    ----------
    slices : tuple of slice
        Along the three axes of the full grid, of even length.
    """

    slices: tuple[slice, slice, slice]

    @classmethod
    def around(cls, region: Region, cohort: Cohort, margin: float = 4.0) -> Window:
        """Find the window of a region, as far as the grid goes.

        Parameters
        ----------
        region : Region
            In the axes of the world.
        cohort : Cohort
            At full resolution.
        margin : float
            Beyond the region's reach, mm.

        Raises
        ------
        CohortError
            If the region's centre lies outside the grid or a side has fewer than 24 voxels.
        """
        half = region.reach + margin
        low, high = np.array(region.center) - half, np.array(region.center) + half
        low[0], high[0] = -abs(region.center[0]) - half, abs(region.center[0]) + half
        inverse = np.linalg.inv(cohort.affine)
        ends = np.sort(np.stack([inverse[:3, :3] @ end + inverse[:3, 3] for end in (low, high)]), axis=0)
        shape = np.array(cohort.brains.shape[1:])
        start = np.clip(np.floor(ends[0]), 0, shape).astype(int)
        length = (np.clip(np.ceil(ends[1]) + 1, 0, shape).astype(int) - start) // 2 * 2
        center = inverse[:3, :3] @ np.array(region.center) + inverse[:3, 3]
        if (center < 0).any() or (center > shape - 1).any() or length.min() < 24:
            raise CohortError(
                f"--center: around {region.center} mm the scans hold {tuple(length.tolist())} voxels, at "
                "least 24 a side are needed; choose a centre inside the brain, in the template's millimetres"
            )
        x, y, z = (slice(int(a), int(a + n)) for a, n in zip(start, length, strict=True))
        return cls((x, y, z))

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """Take the window out of a volume at half the resolution, normalized anew; float32."""
        return normalize(halve(volume[self.slices]))

    def affine(self, affine: np.ndarray) -> np.ndarray:
        """Voxel to world of what `cut` returns."""
        moved = affine.copy()
        moved[:3, 3] += affine[:3, :3] @ np.array([part.start for part in self.slices])
        return halved_affine(moved)

    def cohort(self, cohort: Cohort) -> Cohort:
        """Cut all brains, as they are."""
        brains = np.stack([self.cut(brain).astype(np.float16) for brain in cohort.brains])
        return replace(cohort, brains=brains, affine=self.affine(cohort.affine))


class PlantSampler:
    """Draws batches in which any brain may belong to either class.

    Parameters
    ----------
    brains : numpy.ndarray
        Training subjects only, at full resolution, shape `(n, X, Y, Z)`, model units.
    affine : numpy.ndarray
        Voxel to world in mm.
    planting : Planting
        How images are made.
    window : Window
        What the network reads of them.
    seed : int
        Batch `step` is a function of the brains, `seed` and `step` alone.
    augmentation : Augmentation
        Applied to the images. Its flip happens before the planting: the region is on one side.
    shuffled : bool
        Control: labels are drawn without regard to the image.
    """

    def __init__(
        self,
        brains: np.ndarray,
        affine: np.ndarray,
        planting: Planting,
        window: Window,
        seed: int,
        augmentation: Augmentation,
        shuffled: bool = False,
    ) -> None:
        self.brains, self.affine, self.planting, self.window = brains, affine, planting, window
        self.seed, self.shuffled, self.flip = seed, shuffled, augmentation.flip
        self.middle = -2 * affine[0, 3] / affine[0, 0]  # sum of the indices of a voxel and its mirror image
        shape = window.cut(np.ones(brains.shape[1:], np.float32)).shape
        self.transform = replace(augmentation, flip=0.0).transform(shape)

    def batch(self, step: int, size: int, edge: int = 0) -> tuple[Tensor, Tensor]:
        """Draw one batch; see `VolumeSampler.batch`."""
        rng = np.random.default_rng((self.seed, step))
        labels = balanced(rng, size, len(CLASSES))
        volumes = torch.stack([self._image(int(label), rng) for label in labels])
        told = rng.permutation(labels) if self.shuffled else labels
        return volumes, torch.from_numpy(told)

    def _image(self, label: int, rng: np.random.Generator) -> Tensor:
        brain = self.brains[rng.integers(len(self.brains))].astype(np.float32)
        if rng.random() < self.flip:
            brain = mirrored(brain, self.middle)
        image = self.window.cut(self.planting.image(brain, self.affine, label, rng))
        self.transform.set_random_state(seed=int(rng.integers(2**31)))
        looked = self.transform(torch.from_numpy(image[None]))
        return torch.as_tensor(looked, dtype=torch.float32).clamp(*INTENSITY_RANGE)


def mirrored(volume: np.ndarray, index_sum: float) -> np.ndarray:
    """Mirror left and right about the world's x = 0, whatever part of the head the grid holds.

    Parameters
    ----------
    volume : numpy.ndarray
        Shape `(X, Y, Z)`, first axis along the world's x.
    index_sum : float
        Sum of the first indices of a voxel and its mirror image.

    Returns
    -------
    numpy.ndarray
        Of the same shape; where the mirror image lies outside the grid, the volume itself.
    """
    there = round(index_sum) - np.arange(len(volume))
    inside = (there >= 0) & (there < len(volume))
    return volume[np.where(inside, there, np.arange(len(volume)))]


def planted_images(
    cohort: Cohort, subjects: tuple[str, ...], planting: Planting, window: Window, draws: int, seed: int
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Make both classes of each brain.

    Parameters
    ----------
    cohort : Cohort
        At full resolution.
    subjects : tuple of str
        Whose brains.
    planting, window
        As in `PlantSampler`.
    draws : int
        Images of each class and brain.
    seed : int
        The same seed makes the same images.

    Yields
    ------
    row : int
        Which subject.
    label : int
        Index into `CLASSES`.
    volume : numpy.ndarray
        float32, on the window's grid.
    """
    for row, brain in enumerate(cohort.volumes(subjects)):
        rng = np.random.default_rng((seed, row))
        for _ in range(draws):
            for label in range(len(CLASSES)):
                yield row, label, window.cut(planting.image(brain, cohort.affine, label, rng))


def total_intensity(
    cohort: Cohort, split: Split, planting: Planting, window: Window, draws: int, seed: int
) -> Interval:
    """Guess the class from the sum of all voxels, by the class whose mean in training brains is nearer.

    Parameters
    ----------
    cohort, planting, window, draws, seed
        As in `planted_images`.
    split : Split
        Whose sums give the means, and whose are guessed.

    Returns
    -------
    Interval
        Accuracy on the held-out subjects.
    """

    def sums(subjects: tuple[str, ...], count: int, start: int) -> np.ndarray:
        images = planted_images(cohort, subjects, planting, window, count, start)
        return np.array([(row, label, volume.sum()) for row, label, volume in images])

    known, asked = sums(split.train, 1, seed), sums(split.test, draws, seed + 1)
    means = np.array([known[known[:, 1] == code, 2].mean() for code in range(len(CLASSES))])
    guesses = np.abs(asked[:, 2:] - means).argmin(axis=1)
    return accuracy_interval(guesses == asked[:, 1], asked[:, 0].astype(int))
