"""The reference image as bytes: 8-bit NIfTI with a scale, gzipped so that equal images give equal bytes."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Sequence

import nibabel
import numpy as np

MNI = 4
"""NIfTI's code for the MNI152 space."""
_HEADER_BYTES = 1024


def encode(image: nibabel.Nifti1Image) -> bytes:
    """Write an image compactly.

    Parameters
    ----------
    image : nibabel.Nifti1Image
        Three axes, model units, finite.

    Returns
    -------
    bytes
        A gzipped NIfTI-1 file: uint8 with slope and intercept (an error of at most 1/510 of the range; zero
        stays zero where nothing is negative), qform and sform of code 4 (MNI), millimetres.

    Raises
    ------
    ValueError
        If the image is not finite or has not three axes.
    """
    values = np.asarray(image.dataobj, dtype=np.float64)
    if values.ndim != 3 or not np.isfinite(values).all():
        raise ValueError(f"must be finite and have three axes, got shape {values.shape}")
    low, high = min(0.0, float(values.min())), float(values.max())
    # NIfTI stores the scale in float32, so the codes are computed with that very number.
    slope = float(np.float32((high - low) / 255)) or 1.0
    low = float(np.float32(low))
    codes = np.clip(np.rint((values - low) / slope), 0, 255).astype(np.uint8)
    stored = nibabel.Nifti1Image(codes, image.affine)
    stored.header.set_slope_inter(slope, low)
    _place(stored, np.asarray(image.affine))
    return gzip.compress(stored.to_bytes(), 9, mtime=0)


def decode(data: bytes, shape: Sequence[int], affine: Sequence[Sequence[float]]) -> nibabel.Nifti1Image:
    """Read what `encode` wrote.

    Parameters
    ----------
    data : bytes
        A gzipped NIfTI-1 file.
    shape : sequence of int
        What its shape must be.
    affine : sequence of rows
        What its affine must be, to within NIfTI's float32.

    Returns
    -------
    nibabel.Nifti1Image
        float32, scaled, with exactly the given affine.

    Raises
    ------
    ValueError
        If the file is something else.
    """
    limit = _HEADER_BYTES + 8 * math.prod(shape)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            plain = stream.read(limit + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"is not gzipped: {error}") from error
    if len(plain) > limit:
        raise ValueError(f"holds more than {limit} bytes, too many for shape {tuple(shape)}")
    try:
        stored = nibabel.Nifti1Image.from_bytes(plain)
        # The shape comes first: a header may claim one that no memory holds.
        same_shape = stored.shape == tuple(shape)
        values = np.asarray(stored.dataobj, dtype=np.float32) if same_shape else None
    except Exception as error:  # nibabel's errors about damaged files have no common base
        raise ValueError(f"is no readable NIfTI file: {error}") from error
    if values is None:
        raise ValueError(f"has shape {stored.shape}, the input {tuple(shape)}")
    if not np.allclose(stored.affine, affine, atol=1e-3):
        raise ValueError(f"has affine {stored.affine.tolist()}, the input {np.asarray(affine).tolist()}")
    if not np.isfinite(values).all():
        raise ValueError("holds NaN or infinity")
    exact = np.asarray(affine, dtype=np.float64)
    image = nibabel.Nifti1Image(values, exact)
    _place(image, exact)
    return image


def _place(image: nibabel.Nifti1Image, affine: np.ndarray) -> None:
    image.set_sform(affine, MNI)
    image.set_qform(affine, MNI)
    image.header.set_xyzt_units("mm")
