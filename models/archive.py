"""A TorchServe archive, unpacked: a bundle's files, the handler that TorchServe starts, all their digests.

What is written by `training.torchserve_archive` is verified here, so that the two cannot drift apart.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.bundle import MANIFEST as BUNDLE_MANIFEST
from models.bundle import MAX_MANIFEST_BYTES, Bundle, verify
from models.errors import BundleCorrupt, BundleInvalid, bundle_label
from models.files import read_plain
from models.manifest import Digest, Name

HANDLER = "neurofv_handler.py"
TORCHSERVE_FOLDER = "MAR-INF"
DIGESTS = f"{TORCHSERVE_FOLDER}/neurofv.json"
# Python keeps what it has compiled beside the handler.
_BESIDE = frozenset({HANDLER, TORCHSERVE_FOLDER, "__pycache__"})

ArchiveFile = Annotated[str, Field(pattern=rf"^({TORCHSERVE_FOLDER}/)?[A-Za-z0-9][A-Za-z0-9._-]{{0,127}}$")]


class Digests(BaseModel):
    """``MAR-INF/neurofv.json``: which model an archive holds, and what its files must be.

    Attributes
    ----------
    schema_version : int
        Of this file.
    model : str
        The bundle's name.
    version : int
        The bundle's version.
    bundle_sha256 : str
        The bundle's digest, which the service's answers name too.
    files : dict of str to str
        SHA-256 of every file of the archive but this one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    model: Name
    version: int = Field(ge=1)
    bundle_sha256: Digest
    files: dict[ArchiveFile, Digest]


def read_archive(folder: Path) -> Bundle:
    """Verify an unpacked archive.

    Parameters
    ----------
    folder : Path
        Where its files lie.

    Returns
    -------
    Bundle
        Verified as `models.read_bundle` does.

    Raises
    ------
    BundleCorrupt
        A file is missing, superfluous, altered or not a plain file.
    BundleInvalid
        A manifest does not follow its schema, or the two name different models.
    """
    label = bundle_label(folder)
    try:
        known = Digests.model_validate_json(read_plain(folder, DIGESTS, label, limit=MAX_MANIFEST_BYTES))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or DIGESTS
        raise BundleInvalid(label, field, f"{first['msg']}; export the archive again") from None
    label = f"{known.model}/{known.version}"
    for file in sorted({HANDLER, BUNDLE_MANIFEST} - set(known.files)):
        raise BundleInvalid(label, "files", f"must list {file}; export the archive again")
    for file, digest in sorted(known.files.items()):
        if hashlib.sha256(read_plain(folder, file, label)).hexdigest() != digest:
            raise BundleCorrupt(label, file, f"is not what {DIGESTS} says; export the archive again")
    bundle = verify(folder, label, _BESIDE)
    if (bundle.label, bundle.digest) != (label, known.bundle_sha256):
        reason = f"names {label} ({known.bundle_sha256[:12]}…), but the bundle is {bundle.label} "
        raise BundleInvalid(label, DIGESTS, f"{reason}({bundle.digest[:12]}…); export the archive again")
    return bundle
