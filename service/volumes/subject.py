"""A person's NIfTI image, brought onto the model's grid or refused with the reason.

World coordinates are trusted: the image must already lie in the model's
anatomical space, for nothing is registered here. The header's free text, which
may name a person, is never repeated.
"""

import io
import zlib
from typing import NoReturn

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.processing import resample_from_to
from scipy.ndimage import gaussian_filter

from models.manifest import Manifest
from service.errors import SubjectUnusable

_GZIP = b"\x1f\x8b"
_SIGMA_PER_FWHM = 1 / np.sqrt(8 * np.log(2))
_SMALLEST_MM, _LARGEST_MM = 0.2, 10.0
_LONGEST_EDGE = 1024
_LEAST_IN_VIEW, _LEAST_FILLED = 0.8, 0.6
_BLOCK = 1 << 20


def read_subject(data: bytes, manifest: Manifest, mask: np.ndarray, field: str, max_bytes: int) -> np.ndarray:
    """Read an image of any orientation and voxel size onto a model's grid.

    Interpolation is linear. Voxels that are finer than the model's are first
    smoothed by a Gaussian of FWHM sqrt(model^2 - image^2) along each axis, so
    that what the grid cannot hold does not fold into it. Outside the image's
    field of view the volume is 0.

    Parameters
    ----------
    data : bytes
        A NIfTI-1 or NIfTI-2 file, plain or gzip-compressed.
    manifest : Manifest
        Of the model: its grid and normalization.
    mask : ndarray, (X, Y, Z), bool
        The model's brain mask, which the image must cover.
    field : str
        Path of the field that held the file, for errors.
    max_bytes : int
        Most bytes of the file, inflated.

    Returns
    -------
    ndarray, (X, Y, Z), float32
        Model units.

    Raises
    ------
    SubjectUnusable
        The file cannot be read, or does not show a brain where the model expects one.
    """
    image = _parse(_inflated(data, max_bytes, field), field)
    space = manifest.input
    affine = np.asarray(space.affine)
    if image.shape == space.shape and np.allclose(image.affine, affine, atol=1e-3):
        volume = np.asarray(image.dataobj, dtype=np.float32)
    else:
        _check_view(image, affine, mask, field)
        volume = _resampled(image, space.shape, affine, space.voxel_size_mm)
    filled = float((volume[mask] != 0).mean())
    if filled < _LEAST_FILLED:
        _refuse(
            field,
            f"shows tissue in {filled:.0%} of the model's brain mask, but at least {_LEAST_FILLED:.0%} "
            f"are needed; register it to {space.space} first",
        )
    low, high = space.intensity_range
    scaled: np.ndarray = np.clip(volume / np.float32(space.normalization.scale(volume)), low, high)
    return scaled


def _refuse(field: str, rule: str) -> NoReturn:
    raise SubjectUnusable(field, rule)


def _inflated(data: bytes, max_bytes: int, field: str) -> bytes:
    """Return the plain file, inflated block by block, so that a bomb is noticed before it goes off."""
    if not data.startswith(_GZIP):
        if len(data) > max_bytes:
            _refuse(field, f"has {len(data)} bytes, but the server's limit is {max_bytes}")
        return data
    inflater = zlib.decompressobj(wbits=31)
    parts, total = [], 0
    try:
        rest = data
        while rest and not inflater.eof:
            part = inflater.decompress(rest, _BLOCK)
            rest = inflater.unconsumed_tail
            total += len(part)
            if total > max_bytes:
                _refuse(field, f"inflates to more than {max_bytes} bytes, the server's limit")
            parts.append(part)
    except zlib.error:
        _refuse(field, "is damaged: its gzip stream cannot be read; send the file again")
    if not inflater.eof:
        _refuse(field, "is cut off: its gzip stream does not end; send the whole file")
    return b"".join(parts)


def _parse(data: bytes, field: str) -> nibabel.Nifti1Image:
    """Return an image of three axes with sound geometry and numbers, or refuse."""
    sizes = {348: nibabel.Nifti1Image, 540: nibabel.Nifti2Image}
    kinds = {order: sizes.get(int.from_bytes(data[:4], order)) for order in ("little", "big")}
    kind = kinds["little"] or kinds["big"]
    if kind is None:
        _refuse(field, "is no NIfTI file (.nii or .nii.gz); convert it, for instance with dcm2niix")
    try:
        header = kind.header_class.from_fileobj(io.BytesIO(data))
        shape = header.get_data_shape()
        expected = (
            int(header["vox_offset"]) + int(np.prod(shape, dtype=object)) * header.get_data_dtype().itemsize
        )
    except Exception:  # nibabel raises many kinds for a damaged header
        _refuse(field, "has a header that cannot be read; write it again with a current tool")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or not all(2 <= size <= _LONGEST_EDGE for size in shape):
        _refuse(
            field, f"has shape {tuple(shape)}; send one volume of three axes of 2 to {_LONGEST_EDGE} voxels"
        )
    if header.get_data_dtype().kind not in "iuf":
        _refuse(field, "holds no plain numbers (complex or color values); send a gray-scale volume")
    if len(data) < expected:
        _refuse(field, f"is cut off: it has {len(data)} bytes, its header says {expected}")
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        _refuse(field, "has no orientation (sform and qform codes are 0); set one, so that left is known")
    try:
        image = kind.from_bytes(data)
        volume = np.asarray(image.dataobj, dtype=np.float32).reshape(shape)
    except Exception:
        _refuse(field, "cannot be read; write it again with a current tool")
    _check(volume, image.affine, field)
    return nibabel.Nifti1Image(volume, image.affine)


def _check(volume: np.ndarray, affine: np.ndarray, field: str) -> None:
    """Check geometry and numbers."""
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        _refuse(field, "has an affine that is not finite or cannot be inverted; set its sform")
    edges = voxel_sizes(affine)
    if not ((edges >= _SMALLEST_MM) & (edges <= _LARGEST_MM)).all():
        shown = " x ".join(f"{edge:g}" for edge in edges)
        _refuse(field, f"has voxels of {shown} mm; between {_SMALLEST_MM:g} and {_LARGEST_MM:g} mm are read")
    if not np.isfinite(volume).all():
        _refuse(field, "holds NaN or infinite voxels; replace them")
    if volume.min() < 0:
        _refuse(field, "holds negative voxels; intensities must start at 0")
    if volume.min() == volume.max():
        _refuse(field, "is constant: it shows nothing")


def _check_view(image: nibabel.Nifti1Image, affine: np.ndarray, mask: np.ndarray, field: str) -> None:
    """Refuse an image whose field of view leaves much of the brain out."""
    places = nibabel.affines.apply_affine(np.linalg.inv(image.affine) @ affine, np.argwhere(mask))
    inside = ((places >= -0.5) & (places <= np.array(image.shape) - 0.5)).all(1).mean()
    if inside < _LEAST_IN_VIEW:
        _refuse(
            field,
            f"covers {inside:.0%} of the model's brain mask, but at least {_LEAST_IN_VIEW:.0%} are needed; "
            "register it to the model's space first",
        )


def _resampled(
    image: nibabel.Nifti1Image, shape: tuple[int, ...], affine: np.ndarray, voxel_size: tuple[float, ...]
) -> np.ndarray:
    edges = voxel_sizes(image.affine)
    # Of the model's axes, the one that runs most along each of the image's.
    along = np.abs(np.linalg.inv(affine[:3, :3] / voxel_size) @ (image.affine[:3, :3] / edges)).argmax(0)
    fwhm = np.sqrt(np.maximum(np.asarray(voxel_size)[along] ** 2 - edges**2, 0))
    smooth = gaussian_filter(np.asarray(image.dataobj, dtype=np.float32), fwhm * _SIGMA_PER_FWHM / edges)
    moved = resample_from_to(
        nibabel.Nifti1Image(smooth, image.affine), (shape, affine), order=1, mode="constant"
    )
    return np.asarray(moved.dataobj, dtype=np.float32)
