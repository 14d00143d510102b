"""Lesion masks of a folder as one more shape: read, checked, and brought to the size of all others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes
from rich.progress import track
from scipy import ndimage

from training.cohort import CohortError, read_source
from training.lesions.shapes import MASS, REACH, deal, positions, untied

MOST_OUTSIDE = 0.15
"""A mask of which a larger share would leave the ball of radius `REACH` is left out."""
SUFFIXES = (".nii", ".nii.gz", ".mgh", ".mgz")
NOT_STATED = "not stated"

# A mask is rasterized finely, so that distances to its surface are good to an eighth of a voxel; the
# distances themselves are smooth, and every second one will do.
_FINE, _KEEP = 0.25, 2
_HALF_WIDTH = (
    9.0  # voxels from the centre to the end of the field: the ball, its offset, and room to interpolate
)
_STEP = _FINE * _KEEP


@dataclass(frozen=True)
class MaskShapes:
    """One class of lesions: the real masks of a folder.

    Attributes
    ----------
    name : str
        Of the class: lower-case letters, digits and dashes.
    depths : numpy.ndarray
        For each mask its signed distance to the surface, positive inside, in voxels of the lesion's grid;
        float32, shape `(n, m, m, m)`, at every half voxel around the mask's centroid.
    found : int
        How many masks the folder holds, those included that are too long to be used.
    license : str
        What the folder says of its license.
    """

    name: str
    depths: np.ndarray
    found: int
    license: str

    @property
    def used(self) -> int:
        """How many masks become lesions."""
        return len(self.depths)

    def draw_mask(self, rng: np.random.Generator) -> np.ndarray:
        """Draw one of the masks, turned by right angles and mirrored at random, beside the grid's middle.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of randomness.

        Returns
        -------
        numpy.ndarray
            float32 in [0, 1], shape `(GRID, GRID, GRID)`, with the mask values of every other lesion.
        """
        depth = self.depths[rng.integers(self.used)]
        axes, signs = rng.permutation(3), rng.choice((-1.0, 1.0), size=3)
        position = positions(rng.uniform(-0.5, 0.5, 3))
        turned = position[axes] * signs[:, None, None, None]
        middle = (depth.shape[0] - 1) / 2
        field = ndimage.map_coordinates(depth, turned / _STEP + middle, order=1, mode="nearest")
        radius = np.linalg.norm(position, axis=0)
        return deal(np.where(radius <= REACH, untied(field, position), -np.inf))


def class_name(folder: Path) -> str:
    """Name the class of a folder: its name in lower case, with dashes for all but letters and digits.

    Raises
    ------
    CohortError
        If no letter or digit is left.
    """
    name = re.sub("[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    if not name:
        raise CohortError(f"--shapes: {folder} names no class; rename the folder with letters or digits")
    return name


def read_masks(folder: Path, show: bool = False) -> MaskShapes:
    """Read every mask of a folder; voxels above 0 are lesion.

    Parameters
    ----------
    folder : Path
        Holds `*.nii.gz`, `*.nii` or `*.mgz`, one mask each, on any grids; folders inside it are not searched.
    show : bool
        Show a progress bar.

    Returns
    -------
    MaskShapes
        Masks too long for the ball of radius `REACH` are left out (`MOST_OUTSIDE`).

    Raises
    ------
    CohortError
        If the folder is missing or without masks, if a mask is damaged or empty, or if none can be used.
    """
    name = class_name(folder)
    if not folder.is_dir():
        raise CohortError(
            f"--shapes: {folder} is no folder; name one that holds lesion masks (.nii, .nii.gz, .mgz)"
        )
    paths = sorted(
        path for path in folder.iterdir() if path.name.endswith(SUFFIXES) and not path.name.startswith(".")
    )
    if not paths:
        raise CohortError(
            f"--shapes: {folder} holds no .nii, .nii.gz or .mgz; put one file per lesion mask there"
        )
    read = (_depth(*_load(path)) for path in paths)
    bar = track(read, f"reading {name}", total=len(paths), disable=not show, transient=True)
    usable = [depth for depth in bar if depth is not None]
    if not usable:
        raise CohortError(
            f"--shapes: none of the {len(paths)} masks in {folder} can be used, as more than "
            f"{MOST_OUTSIDE:.0%} of each would leave the ball that lesions lie in; use compacter ones"
        )
    return MaskShapes(name, np.stack(usable), len(paths), _license(folder))


def _load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a mask as booleans, and its voxel sizes in mm."""
    try:
        image = nibabel.load(path)
        data = np.asarray(image.get_fdata(dtype=np.float32))  # type: ignore[attr-defined]
    except Exception as error:  # nibabel raises many kinds for a damaged file
        raise CohortError(f"{path}: cannot be read ({error}); write it again as NIfTI") from error
    if data.ndim != 3:
        raise CohortError(f"{path}: has {data.ndim} axes, not 3; keep one mask a file")
    if not np.isfinite(data).all():
        raise CohortError(f"{path}: holds NaN or infinite voxels; replace them by 0")
    if not (data > 0).any():
        raise CohortError(f"{path}: is empty (no voxel above 0); remove it or draw the lesion again")
    sizes = voxel_sizes(image.affine)  # type: ignore[attr-defined]
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise CohortError(f"{path}: has voxel sizes {sizes.tolist()} mm; correct the affine in its header")
    return data > 0, sizes


def _depth(mask: np.ndarray, sizes: np.ndarray) -> np.ndarray | None:
    """Depth field of a mask's largest part at the common volume; None if it would leave the ball."""
    part = _largest_part(mask)
    places = np.argwhere(part) * sizes
    centroid = places.mean(axis=0)
    # Edge length in mm of a voxel that the part would hold MASS of.
    edge = (len(places) * sizes.prod() / MASS) ** (1 / 3)
    if (np.linalg.norm(places - centroid, axis=1) > REACH * edge).mean() > MOST_OUTSIDE:
        return None
    axis = np.arange(-_HALF_WIDTH, _HALF_WIDTH + _FINE / 2, _FINE) * edge
    lattice = np.stack(
        np.meshgrid(
            *((axis + middle) / size for middle, size in zip(centroid, sizes, strict=True)), indexing="ij"
        )
    )
    inside = ndimage.map_coordinates(part.astype(np.float32), lattice, order=1) >= 0.5
    # Distances reach from voxel to voxel, and the surface lies between the two.
    distance = np.where(
        inside,
        ndimage.distance_transform_edt(inside) - 0.5,
        0.5 - ndimage.distance_transform_edt(~inside),
    )
    return np.asarray(distance[::_KEEP, ::_KEEP, ::_KEEP] * _FINE, np.float32)


def _largest_part(mask: np.ndarray) -> np.ndarray:
    """Largest of the parts that hang together by faces, in a box with a margin of one voxel."""
    box = ndimage.find_objects(mask.astype(np.int8))[0]
    parts, _ = ndimage.label(mask[box])
    counts = np.bincount(parts.ravel())
    counts[0] = 0
    part = parts == counts.argmax()
    return np.pad(part[ndimage.find_objects(part.astype(np.int8))[0]], 1)


def _license(folder: Path) -> str:
    """Find what the folder says of its license: in its BIDS description, or atop a license file."""
    stated = read_source(folder).license
    if stated:
        return stated
    for path in sorted(path for path in folder.glob("LICENSE*") if path.is_file()):
        text = path.read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()][:2]
        # A second line belongs to the title only where it tells the version.
        title = lines[: 2 if lines[1:] and lines[1].lower().startswith("version") else 1]
        if title:
            return ", ".join(title)[:100]
    return NOT_STATED
