"""Real images on a model's grid, as the service brings them there."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import io_orientation, ornt_transform
from nibabel.processing import resample_from_to, smooth_image

from neurofv.v1 import model_service_pb2 as pb


def affine_of(space: pb.InputSpace) -> np.ndarray:
    """Return a grid's affine, voxel to world in mm, shape `(4, 4)`."""
    return np.array(space.affine).reshape(4, 4)


def on_grid(path: Path, space: pb.InputSpace) -> np.ndarray:
    """Read an image onto a model's grid.

    Interpolation is linear, so that no voxel leaves the image's range and empty air stays empty. Voxels that
    are finer than the grid's are first smoothed by a Gaussian of FWHM sqrt(grid^2 - image^2) along each axis.

    Parameters
    ----------
    path : Path
        Any file that nibabel reads, of one volume.
    space : InputSpace
        Has the grid.

    Returns
    -------
    numpy.ndarray
        Shape `(X, Y, Z)`, float32; 0 outside the image's field of view.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    loaded: Any = nibabel.load(path)
    image = nibabel.Nifti1Image(np.squeeze(loaded.get_fdata(dtype=np.float32)), loaded.affine)
    shape, grid = tuple(space.shape), affine_of(space)
    # Axes run along the grid's from here on, and so do voxel sizes.
    turned = image.as_reoriented(ornt_transform(io_orientation(image.affine), io_orientation(grid)))
    if turned.shape != shape or not np.allclose(turned.affine, grid, atol=1e-3):
        fwhm = np.sqrt(np.maximum(voxel_sizes(grid) ** 2 - voxel_sizes(turned.affine) ** 2, 0))
        smooth = smooth_image(turned, fwhm, mode="reflect")
        turned = resample_from_to(smooth, (shape, grid), order=1, mode="grid-constant")
    return np.asarray(turned.get_fdata(dtype=np.float32))
