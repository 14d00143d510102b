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
    """Return an image as the content of a NIfTI file.

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
        It is none of these.
    OSError
        The file cannot be read.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | PathLike):
        return Path(image).read_bytes()
    if isinstance(image, SpatialImage):
        # Without a time stamp the same image has the same digest.
        return gzip.compress(nibabel.Nifti1Image.from_image(image).to_bytes(), compresslevel=1, mtime=0)
    remedy = "give a NIfTI file's path, its bytes, or an image of nibabel"
    raise InvalidRequest(path, type(image).__name__, remedy)
