"""The 3D viewer of a report: NiiVue, as npm has it, at one version that is checked.

It is no part of this project's files. `make viewer`, or the first report, asks
npm for the package and keeps it in the user's cache; without npm a report has
its still views alone. `python -m neurofv.audit.viewer` does the same by hand.
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
from pathlib import Path

from neurofv.errors import InvalidRequest
from neurofv.files import write_atomically

PACKAGE, VERSION = "@niivue/niivue", "0.69.0"
# As `npm view @niivue/niivue@0.69.0 dist.integrity` says.
INTEGRITY = "sha512-YMjQvJgD1W2b7DuoxkwlC4VxbrgIePRJ5qyQzXKxi2v2MBVg285P/CIQyg46oDDGDIcaNlbd+MhtO/edMbXJkA=="
# Names the script, or npm's package of it, or is `none` for reports without a viewer.
SETTING = "NEUROFV_VIEWER"
_SCRIPT = "package/dist/niivue.umd.js"
_SECONDS = 120

_log = logging.getLogger(__name__)


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
    if chosen.lower() == "none":
        return None
    if chosen:
        return _named(Path(chosen))
    try:
        return _unpacked(_package())
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, tarfile.TarError) as error:
        _log.warning("reports have no 3D viewer: %s; name its file in %s", error, SETTING)
        return None


def _named(path: Path) -> str:
    """Read a file that a user has chosen, whose digest is the user's matter."""
    try:
        data = path.read_bytes()
        return _unpacked(data) if path.name.endswith(".tgz") else data.decode()
    except (OSError, ValueError, KeyError, tarfile.TarError) as error:
        remedy = f"name NiiVue's niivue.umd.js, npm's package (.tgz) of it, or `none` ({error})"
        raise InvalidRequest(SETTING, str(path), remedy) from None


def _package() -> bytes:
    """Return npm's package, from the cache if it is there and whole."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neurofv"
    path = cache / f"niivue-{VERSION}.tgz"
    if path.exists() and _intact(data := path.read_bytes()):
        return data
    data = _fetched()
    if not _intact(data):
        raise ValueError(
            f"what npm gave for {PACKAGE}@{VERSION} is not what was tested (its SHA-512 differs)"
        )
    write_atomically(path, data)
    return data


def _fetched() -> bytes:
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
