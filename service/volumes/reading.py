"""An image file's bytes, read with bounds: NIfTI or FreeSurfer's format, plain or gzip-compressed.

What a file is, its first bytes tell, never a name. The header's free text, which
may name a person, is never repeated.
"""

import io
import zlib
from collections.abc import Iterator
from typing import NoReturn

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.freesurfer.mghformat import MGHHeader

from service.errors import SubjectUnusable

Header = nibabel.Nifti1Header | MGHHeader
_GZIP = b"\x1f\x8b"
_DICOM = slice(128, 132)
# Of the header of an .mgh file what it fills; zeros follow up to the voxels.
_MGH_HEADER = 90
_FLAGS = {
    nibabel.Nifti1Header: "sform and qform codes are 0",
    nibabel.Nifti2Header: "sform and qform codes are 0",
    MGHHeader: "goodRASFlag is 0",
}
_SMALLEST_MM, _LARGEST_MM = 0.2, 10.0
_LONGEST_EDGE = 1024
# Small, for what zlib leaves of a piece is copied at each member's end; block gzip has members of 64 KiB.
_PIECE = 1 << 12
_MOST_MEMBERS = 1 << 16


def read_image(data: bytes, max_bytes: int, field: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a gray-scale volume that lies somewhere in the world.

    Parameters
    ----------
    data : bytes
        The file.
    max_bytes : int
        Most bytes of the file, inflated, and of its voxels as float32.
    field : str
        Path of the field that held the file, for errors.

    Returns
    -------
    volume : ndarray, (X, Y, Z), float32
        As the file has it: finite, none below 0.
    affine : ndarray, (4, 4), float64
        Voxel indices to mm.

    Raises
    ------
    SubjectUnusable
        The file cannot be read, or holds no such volume.
    """
    return _parse(_inflated(data, max_bytes, field), max_bytes, field)


def looks_like_image(data: bytes) -> bool:
    """Tell by its first bytes whether a file is meant as an image, be it one that is refused."""
    return data.startswith(_GZIP) or _kind(data)[0] is not None or data[_DICOM.start : _DICOM.stop] == b"DICM"


def refuse(field: str, rule: str) -> NoReturn:
    """Refuse an image for a reason.

    Raises
    ------
    SubjectUnusable
        Always.
    """
    # What nibabel says may repeat the header, so it is no part of the traceback.
    raise SubjectUnusable(field, rule) from None


def _inflated(data: bytes, max_bytes: int, field: str) -> bytes:
    """Return the plain file, inflated block by block, so that a bomb is noticed before it goes off."""
    if not data.startswith(_GZIP):
        if len(data) > max_bytes:
            refuse(field, f"has {len(data)} bytes, but the server's limit is {max_bytes}")
        return data
    try:
        return b"".join(_members(data, max_bytes))
    except OverflowError:
        refuse(field, f"inflates to more than {max_bytes} bytes, the server's limit")
    except EOFError:
        refuse(field, "is cut off: its gzip stream does not end; send the whole file")
    except zlib.error:
        refuse(field, "is damaged: its gzip stream cannot be read; send the file again")


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
        refuse(field, "holds no plain numbers (complex or color values); send a gray-scale volume")
    if len(data) < stop:
        refuse(field, f"is cut off: it has {len(data)} bytes, its header says {stop}")
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
        # A number beyond float32 becomes infinite, which is refused below.
        with np.errstate(over="ignore", invalid="ignore"):
            volume = header.data_from_fileobj(io.BytesIO(data)).astype(np.float32).reshape(shape)
    except Exception:
        refuse(field, "cannot be read; write it again with a current tool")
    _check(volume, affine, field)
    return volume, affine


def _shape(header: Header, max_bytes: int, field: str) -> tuple[int, int, int]:
    """Return how many voxels there are along three axes."""
    shape = header.get_data_shape()
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or not all(2 <= size <= _LONGEST_EDGE for size in shape):
        refuse(
            field, f"has shape {tuple(shape)}; send one volume of three axes of 2 to {_LONGEST_EDGE} voxels"
        )
    first, second, third = (int(size) for size in shape)
    # Voxels of one byte in the file have four in memory, some ten times over.
    if 4 * first * second * third > max_bytes:
        refuse(
            field,
            f"has shape {tuple(shape)}, but at most {max_bytes // 4} voxels are read; resample it to 1 mm",
        )
    return first, second, third


def _header(data: bytes, field: str) -> tuple[Header, int]:
    """Return the header, and where the voxels that it speaks of stop.

    What stands between them, or behind, is passed over: nothing of it is needed, and it may name a person.
    """
    kind, size = _kind(data)
    if kind is None:
        refuse(field, _stranger(data))
    if len(data) < size:
        refuse(field, f"is cut off: it has {len(data)} bytes, its header alone has {size}")
    if data[344:347] == b"ni1" or (size == 540 and data[4:7] == b"ni2"):
        refuse(field, "is the header of a .hdr/.img pair; save the image as one file, .nii or .nii.gz")
    try:
        # nibabel's own check writes what it finds, free text among it, to the log.
        header = kind(data[:size], check=False)
        if isinstance(header, MGHHeader):
            # Without its flag nibabel puts an orientation of its own there.
            oriented, start = int.from_bytes(data[28:30], "big") != 0, header.get_data_offset()
        else:
            oriented, start = bool(header["sform_code"] or header["qform_code"]), _start(header)
        voxels = int(np.prod(header.get_data_shape(), dtype=object))
        stop = start + voxels * header.get_data_dtype().itemsize
    except Exception:  # nibabel raises many kinds for a damaged header
        refuse(field, "has a header that cannot be read; write it again with a current tool")
    if not oriented:
        refuse(field, f"has no orientation ({_FLAGS[kind]}); set one, so that left is known")
    return header, stop


def _kind(data: bytes) -> tuple[type[Header] | None, int]:
    """Return the kind of header that a file begins with, and its bytes."""
    orders = [int.from_bytes(data[:4], order) for order in ("little", "big")]
    for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header):
        if kind.sizeof_hdr in orders:
            return kind, kind.sizeof_hdr
    # A version, the number 1, is all that an .mgh file begins with.
    return (MGHHeader, _MGH_HEADER) if orders[1] == 1 else (None, 0)


def _start(header: nibabel.Nifti1Header) -> int:
    """Return where the voxels of a NIfTI file start."""
    if header["magic"].item() != header.single_magic:
        raise ValueError("magic")
    # 0 stands for the smallest, but nibabel would read the header's own bytes as voxels.
    header["vox_offset"] = start = max(int(header["vox_offset"]), header.single_vox_offset)
    return int(start)


def _stranger(data: bytes) -> str:
    """Say what to do with a file of no known kind."""
    if data[_DICOM.start : _DICOM.stop] == b"DICM":
        return "is DICOM; convert the series to one NIfTI file with dcm2niix"
    return (
        "is no NIfTI file (.nii, .nii.gz) and no FreeSurfer file (.mgh, .mgz); convert it, "
        "for instance with dcm2niix"
    )


def _check(volume: np.ndarray, affine: np.ndarray, field: str) -> None:
    """Check geometry and numbers."""
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        refuse(field, "has an affine that is not finite or cannot be inverted; set its sform")
    edges = voxel_sizes(affine)
    if not ((edges >= _SMALLEST_MM) & (edges <= _LARGEST_MM)).all():
        shown = " x ".join(f"{edge:g}" for edge in edges)
        refuse(field, f"has voxels of {shown} mm; between {_SMALLEST_MM:g} and {_LARGEST_MM:g} mm are read")
    if not np.isfinite(volume).all():
        refuse(field, "holds NaN or infinite voxels; replace them")
    if volume.min() == volume.max():
        refuse(field, "is constant: it shows nothing")
