"""Opening a bundle's files without following where they might lead."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from models.errors import BundleCorrupt


def read_plain(folder: Path, file: str, label: str, limit: int | None = None) -> bytes:
    """Read a regular file; links, pipes and devices are refused before they can lead elsewhere or block.

    Parameters
    ----------
    folder : Path
        The bundle's folder.
    file : str
        A name in it.
    label : str
        What errors call the bundle.
    limit : int, optional
        Most bytes that are accepted.

    Returns
    -------
    bytes
        The whole content.

    Raises
    ------
    BundleCorrupt
        If the file is missing, unreadable, not a regular file or larger than `limit`.
    """
    try:
        descriptor = os.open(folder / file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise BundleCorrupt(label, file, "is missing; restore the bundle") from None
    except OSError as error:
        reason = f"cannot be opened as a plain file; links are refused ({error.strerror})"
        raise BundleCorrupt(label, file, reason) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BundleCorrupt(label, file, "is not a plain file")
    with os.fdopen(descriptor, "rb") as stream:
        data = stream.read() if limit is None else stream.read(limit + 1)
    if limit is not None and len(data) > limit:
        raise BundleCorrupt(label, file, f"is larger than {limit} bytes")
    return data
