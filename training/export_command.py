"""`python -m training export`: a bundle in the form that another server reads."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from models import ZOO, Bundle, ModelNotFound, Repository, read_bundle
from training.console import console, errors_told
from training.torchserve_archive import write_archive


def export(
    bundle: Annotated[
        str, typer.Argument(help="A bundle's folder NAME/VERSION, or the name of a model that is shipped.")
    ],
    torchserve: Annotated[
        Path, typer.Option(help="TorchServe's model store: the archive goes to TORCHSERVE/NAME.mar.")
    ],
) -> None:
    """Write a bundle as an archive (.mar) that TorchServe predicts and visualizes with.

    The same bundle gives the same bytes.
    """
    with errors_told():
        found = _find(bundle)
        archive = write_archive(found, torchserve)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    console.print(
        f"{archive}: {found.label}, SHA-256 {digest}", highlight=False, markup=False, soft_wrap=True
    )


def _find(name: str) -> Bundle:
    if Path(name).is_dir():
        return read_bundle(name)
    shipped, _, version = name.partition("/")
    if version and not version.isdecimal():
        raise ModelNotFound(name, None, [entry.name for entry in Repository(ZOO).entries()])
    return Repository(ZOO).get(shipped, int(version) if version else None)
