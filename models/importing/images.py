"""The reference and the cohort of an imported network, on its grid and in its units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.processing import resample_from_to

from models.errors import ImageUnusable
from models.manifest import InputSpace
from models.normalization import Normalization

_ENDINGS = (".nii", ".nii.gz", ".mgz", ".mgh")
# In a BIDS data set these are the images; a folder without any is taken whole.
_WEIGHTED = "_T1w"
# Quantiles that bound the model units of a cohort, whose single voxels may shine.
_RANGE = (0.0005, 0.9995)


@dataclass(frozen=True)
class Images:
    """Images that a network could read.

    Attributes
    ----------
    reference : nibabel.Nifti1Image
        On the network's grid, the scanner's units.
    files : tuple of Path
        The cohort's; each is brought to the grid when it is read.
    normalization : Normalization
        To model units.
    """

    reference: nibabel.Nifti1Image
    files: tuple[Path, ...]
    normalization: Normalization

    @property
    def known(self) -> int:
        """How many images of persons there are, at least the reference."""
        return len(self.files) or 1

    def raw(self) -> Iterator[np.ndarray]:
        """Yield the cohort on the grid in the scanner's units, or the reference if there is none."""
        if not self.files:
            yield np.asarray(self.reference.dataobj, np.float32)
        for file in self.files:
            yield np.asarray(_on_grid(read_image(file), self.reference).dataobj, np.float32)

    def model_units(self, space: InputSpace | None = None) -> Iterator[np.ndarray]:
        """Yield the same in model units, within a space's range if one is given."""
        for image in self.raw():
            yield self.normalization.apply(image) if space is None else space.normalize(image)

    def intensity_range(self) -> tuple[float, float]:
        """Return the model units between which nearly all voxels lie, one by one image."""
        ends = [np.quantile(image, _RANGE) for image in self.model_units()]
        return float(min(low for low, _ in ends)), float(max(high for _, high in ends))


def read_images(
    reference: Path, cohort: Path | None, normalization: Normalization, shape: Sequence[int] | None
) -> Images:
    """Read the reference and find the cohort's files.

    Parameters
    ----------
    reference : Path
        The mean training image, or any image as the network reads them.
    cohort : Path, optional
        A folder of such images, in folders of any depth; of a BIDS data set its T1w images are taken.
    normalization : Normalization
        To model units.
    shape : sequence of int, optional
        What the reference's shape must be.

    Returns
    -------
    Images
        What was found.

    Raises
    ------
    ImageUnusable
        If the reference cannot be read or has another shape, or the folder holds no image.
    """
    found = read_image(reference)
    if shape is not None and found.shape != tuple(shape):
        raise ImageUnusable(
            reference.name,
            f"has shape {found.shape}, but the network reads {tuple(shape)}; give an image on the network's "
            "grid, or another --input-shape",
        )
    files: list[Path] = []
    if cohort is not None:
        files = sorted(file for file in cohort.rglob("*") if file.name.endswith(_ENDINGS) and file.is_file())
        files = [file for file in files if _WEIGHTED in file.name] or files
        if not files:
            raise ImageUnusable(cohort.name, f"holds no image ({', '.join(_ENDINGS)})")
    try:
        normalization.apply(np.asarray(found.dataobj))
    except ValueError as error:
        raise ImageUnusable(reference.name, str(error)) from None
    return Images(found, tuple(files), normalization)


def read_image(file: Path) -> nibabel.Nifti1Image:
    """Read one volume.

    Parameters
    ----------
    file : Path
        NIfTI or MGH.

    Returns
    -------
    nibabel.Nifti1Image
        float32, three axes.

    Raises
    ------
    ImageUnusable
        If it cannot be read, or is no finite volume of three axes.
    """
    try:
        image = nibabel.load(file)
        values = np.asarray(image.dataobj, np.float32).squeeze()  # type: ignore[attr-defined]
    except Exception as error:  # nibabel raises many kinds for a damaged file
        raise ImageUnusable(file.name, f"cannot be read ({error}); write it again as NIfTI") from None
    if values.ndim != 3 or not np.isfinite(values).all():
        raise ImageUnusable(file.name, f"must be one finite volume of three axes, got shape {values.shape}")
    return nibabel.Nifti1Image(values, image.affine)  # type: ignore[attr-defined]


def _on_grid(image: nibabel.Nifti1Image, grid: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """Interpolate linearly where an image lies on another grid of the same space."""
    if image.shape == grid.shape and np.allclose(image.affine, grid.affine, atol=1e-3):
        return image
    return resample_from_to(image, (grid.shape, grid.affine), order=1)
