"""The pictures of a page: stills, exemplars and volumes, each checked against the report."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import UnidentifiedImageError

from neurofv.audit import drawing
from neurofv.audit.drawing import Grid, Voxel
from neurofv.audit.figures import picture_name
from neurofv.errors import InvalidRequest

REFERENCE = "reference.nii.gz"
# Enough for a median, and little enough for the memory; of fewer units it would be theirs.
_FOR_MEDIAN, _LEAST_UNITS = 25, 3
# Pixels for each millimetre; where a report has very many pictures, the small ones shrink.
_LARGE, _SMALL, _MANY = 1.5, 1.0, 500


@dataclass(frozen=True)
class Still:
    """A picture in the page.

    Attributes
    ----------
    source : str
        The image itself, as a `data:` address.
    width, height : int
        Pixels.
    alt : str
        What it shows, for those who do not see it.
    caption : str
        What stands below it.
    """

    source: str
    width: int
    height: int
    alt: str
    caption: str


class Album:
    """Draws what the page shows of an audit's volumes.

    Parameters
    ----------
    folder : Path
        The audit's.
    report : mapping
        Its `report.json`.

    Attributes
    ----------
    volumes : dict of str to str
        Base64 of the volumes that the viewer is to show, by the ids that `volume` has returned.
    """

    def __init__(self, folder: Path, report: Mapping[str, Any]) -> None:
        self._folder = folder
        self._units = report["units"]
        self._reference_sha256 = report.get("reference_sha256")
        self._small = (
            _SMALL * min(1.0, _MANY / max(1, sum(len(unit["pictures"]) for unit in self._units))) ** 0.5
        )
        self._last: tuple[str, Grid] | None = None
        self.volumes: dict[str, str] = {}

    @cached_property
    def _common(self) -> Grid | None:
        """What pictures have in common across units, seeds and controls: it says nothing of one unit."""
        if sum(bool(unit["pictures"]) for unit in self._units) < _LEAST_UNITS:
            return None
        pictures = [picture for unit in self._units for picture in unit["pictures"]]
        chosen = np.unique(np.linspace(0, len(pictures) - 1, _FOR_MEDIAN).astype(int))
        return drawing.median([self._grid(pictures[index]) for index in chosen])

    @cached_property
    def ground(self) -> Grid | None:
        """The brain from which the pictures began; None if nothing tells it."""
        path, known = self._folder / REFERENCE, self._reference_sha256
        if not path.exists():
            return self._common
        if known and hashlib.sha256(path.read_bytes()).hexdigest() != known:
            raise self._spoiled(REFERENCE, "its SHA-256 is not the one in the report")
        return drawing.read_grid(path)

    def _strongest(self, grid: Grid) -> Voxel:
        grounds = [ground for ground in (self.ground, self._common) if ground is not None]
        return drawing.strongest_voxel(grid, grounds)

    def still(self, unit: Mapping[str, Any], picture: Mapping[str, Any], large: bool = False) -> Still:
        """Return three views of a picture through where it differs most.

        Raises
        ------
        InvalidRequest
            Its volume is missing, or is not the one that the report names.
        """
        grid = self._grid(picture)
        voxel = self._strongest(grid)
        box = drawing.shown_box(grid, self.ground)
        image, width, height = drawing.three_views(grid, voxel, box, _LARGE if large else self._small)
        place = _place(grid, voxel)
        name = picture_name(picture)
        alt = f"Sagittal, coronal and axial view of what drives {unit['name']} ({name}), at {place}"
        return Still(_address(image), width, height, alt, f"{name}; at {place}")

    def volume(self, unit: Mapping[str, Any], picture: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a picture for the viewer, as its change from the ground if that is known.

        Returns
        -------
        dict
            `id` in `volumes`; `limit`, the largest change, or None; `point`, where to look first, mm.
        """
        grid = self._grid(picture)
        voxel = self._strongest(grid)
        limit = None
        if self.ground is not None:
            self.volumes.setdefault("ground", _text(drawing.grey_volume(self.ground)))
            data, largest = drawing.change_volume(grid, self.ground, drawing.shown_box(grid, self.ground))
            limit = f"{largest:.6g}"
        else:
            data = drawing.grey_volume(grid)
        name = f"volume-{unit['id']}"
        self.volumes[name] = _text(data)
        return {"id": name, "limit": limit, "point": " ".join(f"{value:g}" for value in grid.place(voxel))}

    def exemplar(self, unit: Mapping[str, Any], exemplar: Mapping[str, Any]) -> Still:
        """Return a real image that drives a unit.

        Raises
        ------
        InvalidRequest
            Its picture is missing or is no picture.
        """
        path = self._path(exemplar["picture"])
        try:
            image, width, height = drawing.thumbnail(path)
        except (OSError, UnidentifiedImageError) as error:
            raise self._spoiled(exemplar["picture"], f"it cannot be read as a picture ({error})") from None
        words = f"activation {exemplar['activation']:.2f}"
        if position := exemplar.get("position_mm"):
            words += f" at {', '.join(f'{value:.0f}' for value in position)} mm"
        alt = f"Real image {exemplar['image']}, {words}, for {unit['name']}"
        return Still(_address(image), width, height, alt, f"{exemplar['image']}: {words}")

    def _grid(self, picture: Mapping[str, Any]) -> Grid:
        # The first picture of a unit is wanted twice: as a still and for the viewer.
        if self._last is None or self._last[0] != picture["volume"]:
            self._last = picture["volume"], self._read(picture)
        return self._last[1]

    def _read(self, picture: Mapping[str, Any]) -> Grid:
        path = self._path(picture["volume"])
        try:
            data = path.read_bytes()
        except OSError as error:
            raise self._spoiled(picture["volume"], f"it cannot be read ({error.strerror})") from None
        if hashlib.sha256(data).hexdigest() != picture["sha256"]:
            raise self._spoiled(picture["volume"], "its SHA-256 is not the one in the report")
        return drawing.read_grid(data)

    def _path(self, name: str) -> Path:
        path = (self._folder / name).resolve()
        if not path.is_relative_to(self._folder.resolve()):
            raise self._spoiled(name, "it lies outside the folder")
        return path

    def _spoiled(self, name: str, fault: str) -> InvalidRequest:
        remedy = f"{fault}; run the audit again in this folder, which makes what is missing"
        return InvalidRequest("folder", f"{self._folder}: {name}", remedy)


def _place(grid: Grid, voxel: Voxel) -> str:
    return "({:.0f}, {:.0f}, {:.0f}) mm".format(*grid.place(voxel))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _address(image: bytes) -> str:
    return f"data:image/webp;base64,{_text(image)}"
