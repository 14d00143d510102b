"""Images of people on their way to the server."""

import gzip
from os import PathLike
from pathlib import Path

import nibabel
from nibabel.spatialimages import SpatialImage

from neurofv.errors import InvalidRequest

# What stands for an image: a file's path, its content, or nibabel's object.
Image = str | PathLike[str] | bytes | SpatialImage


def nifti_bytes(image: object, path: str) -> bytes:
    """Return an image as the content of a file that the server reads: NIfTI, or FreeSurfer's `.mgz`.

    Parameters
    ----------
    image : str, PathLike, bytes or SpatialImage
        A file's path, its content, or nibabel's object of any format that fits into NIfTI-1.
    path : str
        What the image is called in an error.

    Returns
    -------
    bytes
        A file is sent as it is, an object gzip-compressed.

    Raises
    ------
    InvalidRequest
        It is none of these, or a file that holds no image by itself: DICOM, or one of a `.hdr`/`.img` pair.
    OSError
        The file cannot be read.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | PathLike):
        return _read(Path(image), path)
    if isinstance(image, SpatialImage):
        # Without a time stamp the same image has the same digest.
        return gzip.compress(nibabel.Nifti1Image.from_image(image).to_bytes(), compresslevel=1, mtime=0)
    remedy = "give the path of a NIfTI or .mgz file, its bytes, or an image of nibabel"
    raise InvalidRequest(path, type(image).__name__, remedy)


def _read(file: Path, path: str) -> bytes:
    """Read a file; what only becomes an image together with others is refused."""
    if file.is_dir():
        remedy = "it is a folder; give one file. A DICOM series becomes one with dcm2niix"
        raise InvalidRequest(path, str(file), remedy)
    data = file.read_bytes()
    if data[128:132] == b"DICM":
        raise InvalidRequest(path, str(file), "it is DICOM; convert the series to NIfTI with dcm2niix")
    if file.suffix in (".hdr", ".img"):
        remedy = "it is half of a .hdr/.img pair; save the image as one file, .nii or .nii.gz"
        raise InvalidRequest(path, str(file), remedy)
    return data
