"""Files on their way to the disk."""

import os
from pathlib import Path


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
