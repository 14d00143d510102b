"""One runner for one folder."""

import os
import socket
import sys
from pathlib import Path
from typing import IO

from neurofv.errors import InvalidRequest

LOCK = "run.lock"


def take(folder: Path) -> IO[str]:
    """Take a folder for this process, until the file that is returned is closed or the process ends.

    Parameters
    ----------
    folder : Path
        The audit's.

    Raises
    ------
    InvalidRequest
        Another runner holds it; the error names its process.
    OSError
        The file cannot be written.
    """
    file = (folder / LOCK).open("a+", encoding="utf-8")
    try:
        _lock(file)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        remedy = f"{holder} fills it at this moment; wait until it has ended, or name another folder"
        raise InvalidRequest("out", str(folder), remedy) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def _lock(file: IO[str]) -> None:
    """Take the lock of the operating system; where there is none, do without.

    Raises
    ------
    BlockingIOError
        Somebody has it.
    """
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError):
            raise
