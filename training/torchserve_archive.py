"""From a bundle to an archive (.mar) for TorchServe: the same bytes each time."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from models import Bundle, ModelError
from models.archive import DIGESTS, HANDLER, TORCHSERVE_FOLDER, Digests
from models.bundle import MANIFEST
from models.files import read_plain

# The first day that a zip file can name.
_DAY = (1980, 1, 1, 0, 0, 0)
_PLAIN_FILE = 0o100644 << 16
# Folders of the work: what goes in, what comes out, and the archiver's own.
_FILES, _PACKED, _WORK = "files", "packed", "work"
_HANDLER_SOURCE = '''"""What TorchServe starts; the code is that of the installed package neurofv-service."""

import sys
from pathlib import Path

import ts

# A worker's own folder comes first on its path, and holds a module `service` too.
sys.path[:] = [place for place in sys.path if Path(place) != Path(ts.__file__).parent]

from service.torchserve.handler import Handler  # noqa: E402


class NeurofvHandler(Handler):
    """The only class of this file, by which TorchServe finds it."""
'''


class ArchiveNotWritten(ModelError):
    """The archive could not be made; says what to do about it."""


def write_archive(bundle: Bundle, out: Path) -> Path:
    """Write a bundle as an archive that TorchServe loads.

    It is packed by torch-model-archiver and then once more without what differs from run to run:
    the time, the order and the compression, whose bytes depend on the version of zlib.

    Parameters
    ----------
    bundle : Bundle
        Verified.
    out : Path
        TorchServe's model store, which is made if need be; the archive is `<out>/<name>.mar`, after which
        TorchServe names the model.

    Returns
    -------
    Path
        The archive.

    Raises
    ------
    ArchiveNotWritten
        The archive exists already, or torch-model-archiver is missing or fails.
    BundleCorrupt
        A file of the bundle has changed.
    """
    target = out / f"{bundle.manifest.name}.mar"
    if target.exists():
        raise ArchiveNotWritten(f"{target} exists already; remove it or choose another directory")
    if find_spec("model_archiver") is None:
        raise ArchiveNotWritten("torch-model-archiver is missing; pip install 'neurofv-service[torchserve]'")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as scratch:
        files = _archived(bundle, Path(scratch))
        packed = Path(scratch) / target.name
        _pack(files | {DIGESTS: _digests(bundle, files)}, packed)
        # Another export of the same model may have been faster; it holds the same bytes.
        packed.replace(target)
    return target


def _archived(bundle: Bundle, scratch: Path) -> dict[str, bytes]:
    """Return the files of the archive that torch-model-archiver makes."""
    for folder in (_FILES, _PACKED, _WORK):
        (scratch / folder).mkdir()
    (scratch / HANDLER).write_text(_HANDLER_SOURCE)
    for file, digest in {MANIFEST: bundle.digest, **bundle.manifest.files}.items():
        data = read_plain(bundle.path, file, bundle.label)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ArchiveNotWritten(f"{bundle.label}: {file} has changed since it was verified; try again")
        (scratch / _FILES / file).write_bytes(data)
    _run_archiver(bundle, scratch)
    with zipfile.ZipFile(scratch / _PACKED / f"{bundle.manifest.name}.mar") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    about = f"{TORCHSERVE_FOLDER}/MANIFEST.json"
    manifest = json.loads(files[about])
    # The only thing in it that is new each time.
    manifest["createdOn"] = "01/01/1980 00:00:00"
    files[about] = (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()
    return files


def _run_archiver(bundle: Bundle, scratch: Path) -> None:
    """Run torch-model-archiver, whose work folder is named after the model alone: in a place of its own."""
    # Relative paths: it takes a comma in one for the end of it.
    command = [sys.executable, "-m", "model_archiver.model_packaging"]
    command += ["--model-name", bundle.manifest.name, "--version", str(bundle.manifest.version)]
    command += ["--handler", HANDLER, "--extra-files", _FILES]
    command += ["--archive-format", "zip-store", "--export-path", _PACKED]
    environment = os.environ | {"TMPDIR": str(scratch / _WORK)}
    done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ArchiveNotWritten(f"torch-model-archiver ended with {done.returncode}: {last[:400]}")


def _digests(bundle: Bundle, files: dict[str, bytes]) -> bytes:
    facts = Digests(
        model=bundle.manifest.name,
        version=bundle.manifest.version,
        bundle_sha256=bundle.digest,
        files={name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
    )
    return (facts.model_dump_json(indent=2) + "\n").encode()


def _pack(files: dict[str, bytes], target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _DAY)
            entry.create_system = 3  # Unix, whatever this machine is: its permissions follow
            entry.external_attr = _PLAIN_FILE
            archive.writestr(entry, data)
