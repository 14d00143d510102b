"""A person's NIfTI image, brought onto the model's grid or refused with the reason.

World coordinates are trusted: the image must already lie in the model's
anatomical space, for nothing is registered here. The header's free text, which
may name a person, is never repeated.
"""

import io
import threading
import zlib
from collections.abc import Iterator
from typing import NoReturn

import nibabel
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from scipy.ndimage import affine_transform, center_of_mass, gaussian_filter

from models.manifest import Manifest
from service.errors import SubjectUnusable

_GZIP = b"\x1f\x8b"
_SIGMA_PER_FWHM = 1 / np.sqrt(8 * np.log(2))
_SMALLEST_MM, _LARGEST_MM = 0.2, 10.0
_LONGEST_EDGE = 1024
_LEAST_IN_VIEW, _LEAST_FILLED = 0.8, 0.6
# Brains in the model's space have their middle within 3 mm of its mask's; in their scanner's, 30 mm and more.
_FARTHEST_MM = 15.0
# Small, for what zlib leaves of a piece is copied at each member's end; block gzip has members of 64 KiB.
_PIECE = 1 << 12
_MOST_MEMBERS = 1 << 16
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
        A NIfTI-1 or NIfTI-2 file, plain or gzip-compressed.
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
        Model units.

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
    volume, affine = _turned(*_parse(_inflated(data, max_bytes, field), max_bytes, field), grid)
    if volume.shape != space.shape or not np.allclose(affine, grid, atol=1e-3):
        _check_view(volume.shape, affine, grid, mask, field)
        volume = _resampled(volume, affine, space.shape, grid)
    _check_place(volume, manifest, mask, field)
    low, high = space.intensity_range
    scaled: np.ndarray = np.clip(space.normalization.apply(volume), low, high)
    return scaled


def _refuse(field: str, rule: str) -> NoReturn:
    # What nibabel says may repeat the header, so it is no part of the traceback.
    raise SubjectUnusable(field, rule) from None


def _inflated(data: bytes, max_bytes: int, field: str) -> bytes:
    """Return the plain file, inflated block by block, so that a bomb is noticed before it goes off."""
    if not data.startswith(_GZIP):
        if len(data) > max_bytes:
            _refuse(field, f"has {len(data)} bytes, but the server's limit is {max_bytes}")
        return data
    try:
        return b"".join(_members(data, max_bytes))
    except OverflowError:
        _refuse(field, f"inflates to more than {max_bytes} bytes, the server's limit")
    except EOFError:
        _refuse(field, "is cut off: its gzip stream does not end; send the whole file")
    except zlib.error:
        _refuse(field, "is damaged: its gzip stream cannot be read; send the file again")


def _members(data: bytes, max_bytes: int) -> Iterator[bytes]:
    """Yield what a gzip file's members hold. zlib reads their headers: names in them cost no time."""
    at, left, members = 0, max_bytes, 0
    while data.startswith(_GZIP, at):
        members += 1
        if members > _MOST_MEMBERS:
            raise zlib.error("members")
        stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        while not stream.eof:
            if at >= len(data):
                raise EOFError
            piece = data[at : at + _PIECE]
            part = stream.decompress(piece, left + 1)
            # More than there is room for is never made.
            if len(part) > left:
                raise OverflowError
            left -= len(part)
            at += len(piece) - len(stream.unused_data)
            yield part
    # Zeros may fill a file up to its block's size.
    if data[at:].strip(b"\0"):
        raise zlib.error("more")


def _parse(data: bytes, max_bytes: int, field: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a volume of three axes and its affine, or refuse."""
    header, stop = _header(data, field)
    shape = _shape(header, max_bytes, field)
    if header.get_data_dtype().kind not in "iuf":
        _refuse(field, "holds no plain numbers (complex or color values); send a gray-scale volume")
    if len(data) < stop:
        _refuse(field, f"is cut off: it has {len(data)} bytes, its header says {stop}")
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        _refuse(field, "has no orientation (sform and qform codes are 0); set one, so that left is known")
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
        # A number beyond float32 becomes infinite, which is refused below.
        with np.errstate(over="ignore", invalid="ignore"):
            volume = header.data_from_fileobj(io.BytesIO(data)).astype(np.float32).reshape(shape)
    except Exception:
        _refuse(field, "cannot be read; write it again with a current tool")
    _check(volume, affine, field)
    return volume, affine


def _shape(header: nibabel.Nifti1Header, max_bytes: int, field: str) -> tuple[int, int, int]:
    """Return how many voxels there are along three axes."""
    shape = header.get_data_shape()
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or not all(2 <= size <= _LONGEST_EDGE for size in shape):
        _refuse(
            field, f"has shape {tuple(shape)}; send one volume of three axes of 2 to {_LONGEST_EDGE} voxels"
        )
    first, second, third = (int(size) for size in shape)
    # Voxels of one byte in the file have four in memory, some ten times over.
    if 4 * first * second * third > max_bytes:
        _refuse(
            field,
            f"has shape {tuple(shape)}, but at most {max_bytes // 4} voxels are read; resample it to 1 mm",
        )
    return first, second, third


def _header(data: bytes, field: str) -> tuple[nibabel.Nifti1Header, int]:
    """Return the header, and where the voxels that it speaks of stop.

    Extensions are passed over: they hold nothing that is needed, and may name a person.
    """
    kinds = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
    orders = [int.from_bytes(data[:4], order) for order in ("little", "big")]
    size = next((size for size in orders if size in kinds), 0)
    if not size:
        _refuse(field, "is no NIfTI file (.nii or .nii.gz); convert it, for instance with dcm2niix")
    if len(data) < size:
        _refuse(field, f"is cut off: it has {len(data)} bytes, its header alone has {size}")
    try:
        # nibabel's own check writes what it finds, free text among it, to the log.
        header = kinds[size](data[:size], check=False)
        if header["magic"].item() not in (header.single_magic, header.pair_magic):
            raise ValueError("magic")
        # 0 stands for the smallest, but nibabel would read the header's own bytes as voxels.
        header["vox_offset"] = start = max(int(header["vox_offset"]), header.single_vox_offset)
        voxels = int(np.prod(header.get_data_shape(), dtype=object))
        return header, start + voxels * header.get_data_dtype().itemsize
    except Exception:  # nibabel raises many kinds for a damaged header
        _refuse(field, "has a header that cannot be read; write it again with a current tool")


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
        _refuse(
            field,
            f"covers {inside:.1%} of the model's brain mask, but at least {_LEAST_IN_VIEW:.0%} are needed; "
            "register it to the model's space first",
        )


def _check_place(volume: np.ndarray, manifest: Manifest, mask: np.ndarray, field: str) -> None:
    """Refuse a volume on the grid whose tissue lies elsewhere than the model's brain."""
    space, shown = manifest.input, volume != 0
    filled = shown[mask].mean()
    if filled < _LEAST_FILLED:
        _refuse(
            field,
            f"shows tissue in {filled:.1%} of the model's brain mask, but at least {_LEAST_FILLED:.0%} "
            f"are needed; register it to {space.space} first",
        )
    between = np.subtract(center_of_mass(shown), center_of_mass(mask)) @ np.asarray(space.affine)[:3, :3].T
    away = float(np.linalg.norm(between))
    if away > _FARTHEST_MM:
        _refuse(
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
    smooth = gaussian_filter(volume, fwhm * _SIGMA_PER_FWHM / edges)
    there = np.linalg.inv(affine) @ grid
    # Not "constant": it drops a voxel on the very edge whose place is 1e-15 outside.
    moved: np.ndarray = affine_transform(
        smooth, there[:3, :3], there[:3, 3], shape, order=1, mode="grid-constant"
    )
    return moved
