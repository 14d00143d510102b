"""The viewer of volumes: NiiVue, as npm has it, at one version that is checked.

It is no part of this project's files. `make viewer`, or an audit's first report,
asks npm for the package and keeps it in the user's cache, where the server's page
finds it too. `python -m neurofv.viewer` does the same by hand.
"""

import base64
import hashlib
import io
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
from importlib import resources
from pathlib import Path

from neurofv.errors import InvalidRequest
from neurofv.files import write_atomically

PACKAGE, VERSION = "@niivue/niivue", "0.69.0"
# As `npm view @niivue/niivue@0.69.0 dist.integrity` says.
INTEGRITY = "sha512-YMjQvJgD1W2b7DuoxkwlC4VxbrgIePRJ5qyQzXKxi2v2MBVg285P/CIQyg46oDDGDIcaNlbd+MhtO/edMbXJkA=="
# Names the script, or npm's package of it, or is `none` for pages without a viewer.
SETTING = "NEUROFV_VIEWER"
_SCRIPT = "package/dist/niivue.umd.js"
_SECONDS = 120

_log = logging.getLogger(__name__)
_FAULTS = (OSError, subprocess.SubprocessError, ValueError, KeyError, tarfile.TarError)


def viewer_script() -> str | None:
    """Return the viewer's script, from the file that the setting names, the cache, or npm.

    Returns
    -------
    str or None
        JavaScript that defines `niivue`; None if none is wanted, or none can be had.

    Raises
    ------
    InvalidRequest
        The setting names a file that cannot be read or does not hold the script.
    """
    chosen = os.environ.get(SETTING, "")
    script = kept_script(chosen)
    if chosen or script is not None:
        return script
    try:
        return _unpacked(_fetched())
    except _FAULTS as error:
        _log.warning("there is no 3D viewer: %s; name its file in %s", error, SETTING)
        return None


def kept_script(chosen: str) -> str | None:
    """Return the viewer's script without asking npm.

    Parameters
    ----------
    chosen : str
        A path to `niivue.umd.js` or to npm's package of it (.tgz), or `none`; empty for the user's cache.

    Returns
    -------
    str or None
        JavaScript that defines `niivue`; None if none is wanted, or the cache has none.

    Raises
    ------
    InvalidRequest
        The file cannot be read or does not hold the script.
    """
    if chosen.lower() == "none":
        return None
    if chosen:
        return _named(Path(chosen).expanduser())
    package = _kept()
    return None if package is None else _unpacked(package)


def viewer_license() -> str:
    """Return the license that goes with every copy of the script."""
    return (resources.files("neurofv") / "niivue-license.txt").read_text(encoding="utf-8")


def _named(path: Path) -> str:
    """Read a file that a user has chosen, whose digest is the user's matter."""
    try:
        data = path.read_bytes()
        return _unpacked(data) if path.name.endswith(".tgz") else data.decode()
    except _FAULTS as error:
        remedy = f"name NiiVue's niivue.umd.js, npm's package (.tgz) of it, or `none` ({error})"
        raise InvalidRequest(SETTING, str(path), remedy) from None


def _place() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "neurofv" / f"niivue-{VERSION}.tgz"


def _kept() -> bytes | None:
    """Return npm's package from the cache, if it is there and whole."""
    try:
        data = _place().read_bytes()
    except (OSError, RuntimeError):  # the latter where nobody knows the user's home
        return None
    return data if _intact(data) else None


def _fetched() -> bytes:
    """Return npm's package from npm, and keep it."""
    package = _asked()
    if not _intact(package):
        raise ValueError(
            f"what npm gave for {PACKAGE}@{VERSION} is not what was tested (its SHA-512 differs)"
        )
    write_atomically(_place(), package)
    return package


def _asked() -> bytes:
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError("npm is not installed")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--pack-destination", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, cwd=folder)
        packages = list(Path(folder).glob("*.tgz"))
        if done.returncode or not packages:
            raise ValueError(f"npm could not fetch {PACKAGE}@{VERSION} (exit code {done.returncode})")
        return packages[0].read_bytes()


def _intact(data: bytes) -> bool:
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode() == INTEGRITY


def _unpacked(data: bytes) -> str:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        script = archive.extractfile(_SCRIPT)
        if script is None:
            raise ValueError(f"the package has no {_SCRIPT}")
        return script.read().decode()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if viewer_script() is None:
        raise SystemExit(1)
    print(f"{PACKAGE} {VERSION} is ready")
