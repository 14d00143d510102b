"""A directory of bundles, ``<root>/<name>/<version>``."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path

from models.bundle import Bundle
from models.errors import BundleCorrupt, BundleInvalid, ModelError, ModelNotFound
from models.manifest import NAME_PATTERN
from models.verifying import read_bundle

_VERSION_PATTERN = r"^[1-9][0-9]{0,8}$"
_Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Entry:
    """One version of one model.

    Attributes
    ----------
    name : str
        The model's name.
    version : int
        Its version.
    ready : bool
        Whether the bundle was verified.
    reason : str
        Why it is not ready; empty if it is.
    """

    name: str
    version: int
    ready: bool
    reason: str


class Repository:
    """The bundles under one directory, each verified once and again when its files change.

    Folders whose names are not a model's name or a whole number are ignored, so that editors' and systems'
    own files do no harm. Methods may be called from several threads.

    Parameters
    ----------
    root : str or Path
        The directory.

    Raises
    ------
    ModelError
        If there is no such directory.
    """

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root).resolve()
        if not self._root.is_dir():
            raise ModelError(f"the model repository {Path(root).name!r} is not a directory; create it first")
        self._lock = threading.RLock()
        self._verdicts: dict[tuple[str, int], tuple[_Stamp, Bundle | ModelError]] = {}

    def entries(self) -> list[Entry]:
        """Verify every bundle and say which are ready.

        Returns
        -------
        list of Entry
            Sorted by name, then version.
        """
        with self._lock:
            verdicts = [(name, version, self._verdict(name, version)) for name, version in self._listing()]
        return [
            Entry(
                name,
                version,
                isinstance(verdict, Bundle),
                "" if isinstance(verdict, Bundle) else str(verdict),
            )
            for name, version, verdict in verdicts
        ]

    def get(self, name: str, version: int | None = None) -> Bundle:
        """Return a verified bundle.

        Parameters
        ----------
        name : str
            The model's name.
        version : int, optional
            By default the newest version that is ready.

        Returns
        -------
        Bundle
            The same object as long as its files do not change.

        Raises
        ------
        ModelNotFound
            If there is no such name or version; lists what is ready.
        BundleCorrupt, BundleInvalid
            If there is, but it is not ready; names the file or field.
        """
        with self._lock:
            versions = [found for known, found in self._listing() if known == name]
            wanted = (
                sorted(versions, reverse=True) if version is None else [v for v in versions if v == version]
            )
            if not wanted:
                ready = [f"{entry.name}/{entry.version}" for entry in self.entries() if entry.ready]
                raise ModelNotFound(name, version, ready)
            verdicts = [self._verdict(name, candidate) for candidate in wanted]
        for verdict in verdicts:
            if isinstance(verdict, Bundle):
                return verdict
        assert isinstance(verdicts[0], ModelError)
        raise verdicts[0]

    def _listing(self) -> list[tuple[str, int]]:
        found = [
            (model.name, int(folder.name))
            for model in _folders(self._root, NAME_PATTERN)
            for folder in _folders(model, _VERSION_PATTERN)
        ]
        return sorted(found)

    def _verdict(self, name: str, version: int) -> Bundle | ModelError:
        folder = self._root / name / str(version)
        try:
            stamp = self._stamp(folder)
            known = self._verdicts.get((name, version))
            if known is None or known[0] != stamp:
                known = (stamp, _read(folder))
                self._verdicts[name, version] = known
        except ModelError as error:
            return error
        except OSError as error:
            return BundleCorrupt(folder, ".", f"cannot be read ({error.strerror})")
        return known[1]

    def _stamp(self, folder: Path) -> _Stamp:
        """Tell one state of a bundle's files from another without reading them."""
        if not folder.resolve().is_relative_to(self._root):
            raise BundleInvalid(
                folder, "folder", "is a link that leaves the repository; copy the bundle instead"
            )
        stats = sorted((file.name, file.lstat()) for file in folder.iterdir())
        return tuple((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats)


def _folders(parent: Path, pattern: str) -> list[Path]:
    try:
        children = list(parent.iterdir())
    except OSError:  # removed meanwhile or not readable: it offers no model
        return []
    return [child for child in children if re.fullmatch(pattern, child.name) and child.is_dir()]


def _read(folder: Path) -> Bundle | ModelError:
    try:
        return read_bundle(folder)
    except ModelError as error:
        return error
    except OSError:
        raise
    except Exception as error:  # whatever is wrong with one bundle, the others are served
        return BundleInvalid(folder, "bundle", f"cannot be verified ({type(error).__name__})")
