"""Files of jobs: written whole or not at all, and never read unverified."""

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from service.errors import ArtifactCorrupt, StorageBusy
from service.failpoints import failpoint
from service.storage.database import faults

_BLOCK = 1 << 20


class Files:
    """The folders `volumes` and `checkpoints`, each with a folder for every job.

    Parameters
    ----------
    root : Path
        Where the folders lie; made if need be.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        for folder in ("volumes", "checkpoints"):
            (root / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
            # What a process that was killed has not finished.
            drop((root / folder).glob("*/*.part"))

    def volume(self, job: str, sequence: int) -> Path:
        """Return where the volume of an event lies."""
        return self._root / "volumes" / job / f"{sequence}.nii.gz"

    def checkpoint(self, job: str, step: int) -> Path:
        """Return where the checkpoint of a step lies."""
        return self._root / "checkpoints" / job / f"{step}.safetensors"

    def remove(self, job: str, checkpoints_only: bool = False) -> None:
        """Remove what belongs to a job."""
        for folder in ("checkpoints",) if checkpoints_only else ("checkpoints", "volumes"):
            shutil.rmtree(self._root / folder / job, ignore_errors=True)

    def jobs(self) -> set[str]:
        """Return the jobs of which there are files."""
        return {
            entry.name for folder in ("volumes", "checkpoints") for entry in (self._root / folder).iterdir()
        }


def write(path: Path, data: bytes, what: str, durable: bool = True) -> None:
    """Write a file under a temporary name, and rename it when it is complete.

    Parameters
    ----------
    path : Path
        Its place; the folder is made if need be.
    data : bytes
        Its content.
    what : {"volume", "checkpoint"}
        For failpoints.
    durable : bool
        Whether it must outlive a power failure as well as the process.

    Raises
    ------
    StorageFull, StorageBusy
        The disk does not take it; nothing is left behind.
    """
    partial = path.with_name(f"{path.name}.part")
    with faults():
        made = not path.parent.exists()
        path.parent.mkdir(exist_ok=True, mode=0o700)
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            failpoint(f"{what}.before_rename")
            partial.rename(path)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            raise
        if durable:
            _sync_folder(path.parent)
            if made:
                _sync_folder(path.parent.parent)
    failpoint(f"{what}.after_rename")


def read(path: Path, sha256: str, size: int, what: str) -> bytes:
    """Read a file and verify it.

    Raises
    ------
    ArtifactCorrupt
        It is not what was written.
    """
    return b"".join(blocks(path, sha256, size, what))


def blocks(path: Path, sha256: str, size: int, what: str, offset: int = 0) -> Generator[bytes]:
    """Verify a file, then yield it in blocks of at most 1 MiB.

    Parameters
    ----------
    path : Path
        Where it lies.
    sha256, size : str, int
        Its digest, hexadecimal, and its bytes.
    what : str
        Its name for the message.
    offset : int
        The first byte to yield.

    Raises
    ------
    ArtifactCorrupt
        It is not what was written.
    """
    try:
        with path.open("rb") as file:
            if _digest(file.fileno(), size) != sha256:
                raise ArtifactCorrupt(f"the stored {what} is damaged; run its job again", file=what)
            file.seek(offset)
            while block := file.read(_BLOCK):
                yield block
    except FileNotFoundError:
        raise ArtifactCorrupt(f"the stored {what} is gone; run its job again", file=what) from None
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise StorageBusy("the server has too many files open; try again") from None
        raise ArtifactCorrupt(f"the stored {what} cannot be read; run its job again", file=what) from None


async def next_block(found: Iterator[bytes]) -> bytes | None:
    """Return the next of the blocks, read in another thread, or None behind the last.

    Nobody closes `found`: a caller who leaves does so while that thread still reads. The file goes with the
    last reference, which is the thread's.
    """
    return await asyncio.to_thread(next, found, None)


def drop(paths: Iterable[Path]) -> None:
    """Remove files that nothing speaks of any more; what cannot be removed goes with its job."""
    for path in paths:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _digest(descriptor: int, size: int) -> str:
    """Return the digest of a file, or nothing if its size is wrong."""
    if os.fstat(descriptor).st_size != size:
        return ""
    with open(descriptor, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
