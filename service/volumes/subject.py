"""A person's image, brought onto the model's grid or refused with the reason.

World coordinates are trusted: the image must already lie in the model's
anatomical space, for nothing is registered here.
"""

import threading

import numpy as np

# Its parts are imported where they are first used: a server starts half a second sooner.
import scipy
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform

from models.manifest import Manifest
from service.volumes.reading import read_image, refuse

_SIGMA_PER_FWHM = 1 / np.sqrt(8 * np.log(2))
_LEAST_IN_VIEW, _LEAST_FILLED = 0.8, 0.6
# Brains in the model's space have their middle within 3 mm of its mask's; in their scanner's, 30 mm and more.
_FARTHEST_MM = 15.0
_READING = threading.Lock()


def read_subject(data: bytes, manifest: Manifest, mask: np.ndarray, field: str, max_bytes: int) -> np.ndarray:
    """Read an image of any orientation and voxel size onto a model's grid.

    Interpolation is linear. Voxels that are finer than the model's are first
    smoothed by a Gaussian of FWHM sqrt(model^2 - image^2) along each axis, so
    that what the grid cannot hold does not fold into it. Outside the image's
    field of view the volume is 0.

    Parameters
    ----------
    data : bytes
        A NIfTI-1, NIfTI-2 or FreeSurfer file (`.mgh`), plain or gzip-compressed.
    manifest : Manifest
        Of the model: its grid and normalization.
    mask : ndarray, (X, Y, Z), bool
        The model's brain mask, which the image must cover.
    field : str
        Path of the field that held the file, for errors.
    max_bytes : int
        Most bytes of the file, inflated, and of its voxels as float32.

    Returns
    -------
    ndarray, (X, Y, Z), float32
        Model units, as the network reads them; they may lie beyond the range of an optimized volume.

    Raises
    ------
    SubjectUnusable
        The file cannot be read, or does not show a brain where the model expects one.
    """
    # One image at a time: what is bounded for one is bounded for all who send some at once.
    with _READING:
        return _read(data, manifest, mask, field, max_bytes)


def _read(data: bytes, manifest: Manifest, mask: np.ndarray, field: str, max_bytes: int) -> np.ndarray:
    """Read an image; see `read_subject`."""
    space = manifest.input
    grid = np.asarray(space.affine)
    volume, affine = _turned(*read_image(data, max_bytes, field), grid)
    if volume.min() < 0 and not space.normalization.takes_negative:
        refuse(field, "holds negative voxels; intensities must start at 0")
    if volume.shape != space.shape or not np.allclose(affine, grid, atol=1e-3):
        _check_view(volume.shape, affine, grid, mask, field)
        volume = _resampled(volume, affine, space.shape, grid)
    _check_place(volume, manifest, mask, field)
    return space.normalize(volume)


def _turned(volume: np.ndarray, affine: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Swap and flip axes so that each runs along the grid's, which moves no voxel in the world."""
    turn = ornt_transform(io_orientation(affine), io_orientation(grid))
    return apply_orientation(volume, turn), affine @ inv_ornt_aff(turn, volume.shape)


def _check_view(
    shape: tuple[int, ...], affine: np.ndarray, grid: np.ndarray, mask: np.ndarray, field: str
) -> None:
    """Refuse an image whose field of view leaves much of the brain out."""
    places = apply_affine(np.linalg.inv(affine) @ grid, np.argwhere(mask))
    inside = ((places >= -0.5) & (places <= np.array(shape) - 0.5)).all(1).mean()
    if inside < _LEAST_IN_VIEW:
        refuse(
            field,
            f"covers {inside:.1%} of the model's brain mask, but at least {_LEAST_IN_VIEW:.0%} are needed; "
            "register it to the model's space first",
        )


def _check_place(volume: np.ndarray, manifest: Manifest, mask: np.ndarray, field: str) -> None:
    """Refuse a volume on the grid whose tissue lies elsewhere than the model's brain."""
    space, shown = manifest.input, volume != 0
    filled = shown[mask].mean()
    if filled < _LEAST_FILLED:
        refuse(
            field,
            f"shows tissue in {filled:.1%} of the model's brain mask, but at least {_LEAST_FILLED:.0%} "
            f"are needed; register it to {space.space} first",
        )
    between = (
        np.subtract(scipy.ndimage.center_of_mass(shown), scipy.ndimage.center_of_mass(mask))
        @ np.asarray(space.affine)[:3, :3].T
    )
    away = float(np.linalg.norm(between))
    if away > _FARTHEST_MM:
        refuse(
            field,
            f"shows tissue whose middle lies {away:.0f} mm from that of the model's brain, but at most "
            f"{_FARTHEST_MM:g} mm are read; register it to {space.space} first",
        )


def _resampled(
    volume: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], grid: np.ndarray
) -> np.ndarray:
    """Interpolate linearly on the grid, whose axes run along the volume's."""
    edges = voxel_sizes(affine)
    fwhm = np.sqrt(np.maximum(voxel_sizes(grid) ** 2 - edges**2, 0))
    smooth = scipy.ndimage.gaussian_filter(volume, fwhm * _SIGMA_PER_FWHM / edges)
    there = np.linalg.inv(affine) @ grid
    # Not "constant": it drops a voxel on the very edge whose place is 1e-15 outside.
    moved: np.ndarray = scipy.ndimage.affine_transform(
        smooth, there[:3, :3], there[:3, 3], shape, order=1, mode="grid-constant"
    )
    return moved
