"""The classes of a task of artificial lesions, and how a lesion of each is drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from training.cohort import CohortError
from training.lesions.masks import MaskShapes, class_name, read_masks
from training.lesions.shapes import CLASSES, NONE, SHAPES, Lesion, draw_lesion, place


@dataclass(frozen=True)
class Catalog:
    """The built-in classes, and beside them those of folders with real masks.

    Attributes
    ----------
    folders : tuple of MaskShapes
        One further class each, with names of their own.
    """

    folders: tuple[MaskShapes, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the logits: built-in shapes, folders, "none"."""
        return (*SHAPES, *(folder.name for folder in self.folders), NONE)

    def draw(self, label: str, sites: np.ndarray, rng: np.random.Generator) -> Lesion | None:
        """Draw the lesion of one image of class `label`.

        Parameters
        ----------
        label : str
            One of `classes`.
        sites : numpy.ndarray
            Admissible centres, shape `(n, 3)`, as `training.lesions.shapes.centers` returns them.
        rng : numpy.random.Generator
            Source of randomness.

        Returns
        -------
        Lesion or None
            None for the untouched images of class "none".

        Raises
        ------
        ValueError
            If the class is unknown.
        """
        for folder in self.folders:
            if folder.name == label:
                return place(folder.draw_mask(rng), sites, rng)
        return draw_lesion(label, sites, rng)

    def facts(self) -> dict[str, JsonValue]:
        """Describe the classes of folders in plain values, for the manifest; paths are left out."""
        return {
            folder.name: {"used": folder.used, "found": folder.found, "license": folder.license}
            for folder in self.folders
        }

    def digest(self) -> str:
        """SHA-256 of what the folders add: names, order and masks."""
        found = hashlib.sha256()
        for folder in self.folders:
            found.update(f"{folder.name} {folder.depths.shape}".encode())
            found.update(np.ascontiguousarray(folder.depths).tobytes())
        return found.hexdigest()


CONTROLS = ("robust", "shuffled", "untrained")
"""What no folder may be called: its bundle would pass for one that was trained in this way."""
BUILT_IN = Catalog()
"""The classes of the networks that are shipped."""


def read_catalog(folders: Iterable[Path], show: bool = False) -> Catalog:
    """Read folders of real masks as further classes.

    Parameters
    ----------
    folders : iterable of Path
        One class each.
    show : bool
        Show progress bars.

    Returns
    -------
    Catalog
        Without folders, the built-in classes.

    Raises
    ------
    CohortError
        If a name is that of another class, or if a folder's masks cannot be used.
    """
    chosen = tuple(folders)
    taken = dict.fromkeys(CLASSES, "a built-in class") | dict.fromkeys(CONTROLS, "a way of training")
    for folder in chosen:
        name = class_name(folder)
        if name in taken:
            raise CohortError(
                f"--shapes: the class of {folder} would be {name!r}, the name of {taken[name]}; "
                "rename the folder"
            )
        taken[name] = f"another folder's class ({folder})"
    return Catalog(tuple(read_masks(folder, show) for folder in chosen))
