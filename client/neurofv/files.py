"""Files on their way to the disk."""

import os
import tempfile
from pathlib import Path

from neurofv.errors import InvalidRequest


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that others see all of it or nothing.

    Parameters
    ----------
    path : Path
        Where; missing directories are made, an older file is replaced.
    data : bytes
        The content.

    Raises
    ------
    OSError
        It cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def check_writable(directory: Path) -> None:
    """Make a directory and try whether files can be written there, before work is spent on one.

    Parameters
    ----------
    directory : Path
        Where files are to lie; it is made if it is missing.

    Raises
    ------
    InvalidRequest
        It is no directory, or nothing can be written there.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        rule = f"nothing can be written there ({error.strerror}); name another place"
        raise InvalidRequest("path", str(directory), rule) from None
