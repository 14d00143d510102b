"""The real images that a plan names."""

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel

from neurofv.audit.folder import REFERENCE, RUN
from neurofv.audit.grid import affine_of, on_grid
from neurofv.audit.plan import Plan
from neurofv.errors import InvalidRequest
from neurofv.images import nifti_bytes
from neurofv.v1 import model_service_pb2 as pb

_ENDINGS = (".nii", ".nii.gz", ".mgz")
# Beside an image in derivatives, and none itself.
_NO_IMAGES = ("_mask", "_dseg", "_probseg", "_fv")
_TABLE = "participants.tsv"
# Of people without a label; the first as BIDS writes it.
_UNKNOWN = {"n/a", ""}
# Enough to tell classes apart.
_OF_A_CLASS = 4
# The service reads at most so many with a request, and compares with two of a class at least.
_MOST, _LEAST = 64, 2


@dataclass(frozen=True)
class RealImage:
    """A real image.

    Attributes
    ----------
    name : str
        Of the file, with its folders below that of the images.
    path : Path
        Where it lies.
    class_name : str
        What it shows; empty if that is not known.
    sha256 : str
        Digest of the file.
    """

    name: str
    path: Path
    class_name: str
    sha256: str

    def read(self) -> bytes:
        """Return the file."""
        return self.path.read_bytes()


def find_images(plan: Plan, model: pb.Model) -> list[RealImage]:
    """Return the images of a plan in order of their names.

    The class of an image is that of its participant in the column `labels` of
    `participants.tsv` or, without such a choice, the name of its folder, if the
    model has such a class.

    Parameters
    ----------
    plan : Plan
        Names the folder.
    model : Model
        Has the classes.

    Raises
    ------
    InvalidRequest
        There are no images, or not the classes that the plan needs.
    OSError
        One cannot be read.
    """
    folder = plan.images
    if folder is None:
        return []
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.name.endswith(_ENDINGS)
        and not path.name.startswith(".")
        and not path.name.partition(".")[0].endswith(_NO_IMAGES)
        # An audit's own brain, where its folder lies among the images.
        and not (path.name == REFERENCE and (path.parent / RUN).is_file())
    )
    if not files:
        raise InvalidRequest(
            "images", plan.content["images"], f"name a folder that holds {', '.join(_ENDINGS)}"
        )
    labels = _labels(plan, folder)
    found = [
        RealImage(
            path.relative_to(folder).as_posix(), path, _class(path, folder, labels, model), _digest(path)
        )
        for path in files
    ]
    if labels is not None:
        _check_labels(plan, found, labels, model)
    if plan.paths:
        _check_classes(plan, found, model)
    return found


def digest_of(images: Sequence[RealImage]) -> str:
    """Return one digest for all images, their names and classes; empty without any."""
    if not images:
        return ""
    lines = "".join(f"{image.name}\t{image.class_name}\t{image.sha256}\n" for image in images)
    return hashlib.sha256(lines.encode()).hexdigest()


def examples(images: Sequence[RealImage], model: pb.Model) -> dict[str, list[bytes]]:
    """Return the first few images of each class, as files on the model's grid: many fit into one request."""
    found: dict[str, list[RealImage]] = {}
    for image in images:
        if image.class_name:
            found.setdefault(image.class_name, []).append(image)
    most = max(_LEAST, min(_OF_A_CLASS, _MOST // max(len(found), 1)))
    return {name: [_sent(image, model) for image in members[:most]] for name, members in found.items()}


def _sent(image: RealImage, model: pb.Model) -> bytes:
    volume = nibabel.Nifti1Image(on_grid(image.path, model.input), affine_of(model.input))
    return nifti_bytes(volume, image.name)


def _labels(plan: Plan, folder: Path) -> dict[str, str] | None:
    column = plan.content.get("labels")
    if column is None:
        return None
    try:
        with (folder / _TABLE).open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except UnicodeDecodeError as error:
        remedy = f"{folder / _TABLE} is no UTF-8 (byte {error.start}); save it as UTF-8"
        raise InvalidRequest("labels", column, remedy) from None
    except OSError:
        remedy = f"there is no {folder / _TABLE} to read it from; put one there, or sort images into folders"
        raise InvalidRequest("labels", column, remedy) from None
    columns = list(rows[0]) if rows else []
    if column not in columns or "participant_id" not in columns:
        remedy = f"{_TABLE} needs it and participant_id; it has: {', '.join(columns)}"
        raise InvalidRequest("labels", column, remedy)
    return {row["participant_id"]: row[column] or "" for row in rows}


def _class(path: Path, folder: Path, labels: dict[str, str] | None, model: pb.Model) -> str:
    if labels is None:
        return path.parent.name if path.parent != folder and path.parent.name in model.classes else ""
    parts = path.relative_to(folder).parts
    # A folder of BIDS, or the first part of the file's name.
    ids = (*parts[:-1], parts[-1].partition("_")[0], parts[-1].partition(".")[0])
    label = next((labels[part] for part in ids if part in labels), "")
    return label if label in model.classes else ""


def _check_labels(plan: Plan, images: Sequence[RealImage], labels: dict[str, str], model: pb.Model) -> None:
    """Make sure that labels hold a class of the model, and images have one; others may have other labels."""
    column, given = plan.content["labels"], set(labels.values()) - _UNKNOWN
    if model.classes and not given & set(model.classes):
        remedy = f"it holds {_listed(given)}, but the model's classes are {_listed(model.classes)}; "
        raise InvalidRequest("labels", column, remedy + f"write them so in {_TABLE}, or n/a for others")
    if model.classes and not any(image.class_name for image in images):
        remedy = f"no image's name or folder is a participant_id of {_TABLE}, which has {_listed(labels)}"
        raise InvalidRequest("labels", column, remedy + f"; {images[0].name} is an image")


def _listed(names: Iterable[str], most: int = 8) -> str:
    found = sorted(names)
    return (", ".join(found[:most]) or "nothing") + (" and more" if len(found) > most else "")


def _check_classes(plan: Plan, images: Sequence[RealImage], model: pb.Model) -> None:
    """Make sure that each class that is driven has its real images, and others to be held against."""
    counts = {name: sum(image.class_name == name for image in images) for name in model.classes}
    groups = [group.classes for group in plan.groups if group.classes is not None]
    driven = {name for named in groups for name in named or model.classes}
    if any(counts.get(name, _LEAST) < _LEAST for name in driven) or sum(map(bool, counts.values())) < 2:
        have = ", ".join(f"{count} of {name}" for name, count in counts.items())
        remedy = f"paths need two images of each class in `units` and one of another, but there are {have}; "
        remedy += f"sort them into folders named by class, or name a column of {_TABLE} in `labels`"
        raise InvalidRequest("controls.real_images", True, remedy)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
