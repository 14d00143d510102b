"""A cohort of brains: a BIDS derivative on one grid, checked before anything is trained."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from rich.progress import track

from models.normalization import Quantile
from training.participants import CohortError, read_participants

NORMALIZATION = Quantile(quantile=0.995)
"""How images become model units: bright tissue lies near 1."""
INTENSITY_RANGE = (0.0, 1.1)
"""Model units that a brain may take; brighter voxels are clipped."""
ENDINGS = (".nii.gz", ".nii", ".mgz", ".mgh")
"""Of the files that are read; BIDS itself knows the first two."""
SPACE = re.compile(r"_space-([A-Za-z0-9]+)_")


@dataclass(frozen=True)
class Source:
    """What `dataset_description.json` says of a data set; empty where it says nothing.

    Attributes
    ----------
    name, license, doi, acknowledgement : str
        Its fields Name, License, DatasetDOI and HowToAcknowledge.
    """

    name: str = ""
    license: str = ""
    doi: str = ""
    acknowledgement: str = ""


@dataclass(frozen=True)
class Cohort:
    """Brains of one cohort in model units.

    Attributes
    ----------
    subjects : tuple of str
        Participant identifiers, sorted.
    brains : numpy.ndarray
        float16, shape `(len(subjects), X, Y, Z)`, in `INTENSITY_RANGE`; nibabel's axis order.
    affine : numpy.ndarray
        Voxel to world in mm, shape `(4, 4)`.
    space : str
        Template space, the BIDS entity `space` of the scans.
    source : Source
        Where the images come from.
    """

    subjects: tuple[str, ...]
    brains: np.ndarray
    affine: np.ndarray
    space: str
    source: Source

    def volumes(self, subjects: tuple[str, ...]) -> np.ndarray:
        """Take the brains of some subjects.

        Parameters
        ----------
        subjects : tuple of str
            Identifiers in `subjects`.

        Returns
        -------
        numpy.ndarray
            float16 copy, shape `(len(subjects), X, Y, Z)`, in the order given.
        """
        return self.brains[[self.subjects.index(subject) for subject in subjects]]


@dataclass(frozen=True)
class Split:
    """Which subjects train the network and which are held out; disjoint, both sorted."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def find_scan(root: Path, subject: str, description: str) -> Path:
    """Find the one T1-weighted scan of a subject.

    Parameters
    ----------
    root : Path
        Root of the BIDS dataset.
    subject : str
        Participant identifier, with its `sub-` prefix.
    description : str
        Value of the BIDS entity `desc`.

    Returns
    -------
    Path
        The scan.

    Raises
    ------
    CohortError
        If there is none, or more than one.
    """
    pattern = f"{subject}_*desc-{description}_T1w"
    folder = root / subject / "anat"
    found = sorted(path for ending in ENDINGS for path in folder.glob(pattern + ending))
    if not found:
        raise CohortError(
            f"{subject}: no scan {subject}/anat/{pattern}.nii.gz (or .nii, .mgz); "
            "add it or remove the subject from participants.tsv"
        )
    if len(found) > 1:
        raise CohortError(
            f"{subject}: {len(found)} scans match {pattern}.*; keep one: {', '.join(p.name for p in found)}"
        )
    return found[0]


def normalize(image: np.ndarray) -> np.ndarray:
    """Scale a brain so that its bright tissue lies near 1.

    Parameters
    ----------
    image : numpy.ndarray
        Skull-stripped volume, 0 outside the brain.

    Returns
    -------
    numpy.ndarray
        float32 `image / q`, clipped to `INTENSITY_RANGE`, with the `q` of `NORMALIZATION`.
    """
    return np.clip(NORMALIZATION.apply(image), *INTENSITY_RANGE)


def _load(path: Path, subject: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        image = nibabel.load(path)
        data = np.asarray(image.get_fdata(dtype=np.float32))  # type: ignore[attr-defined]
    except Exception as error:  # nibabel raises many kinds for a damaged file
        raise CohortError(f"{subject}: cannot read {path.name} ({error}); write it again as NIfTI") from error
    if data.ndim != 3:
        raise CohortError(f"{subject}: {path.name} has {data.ndim} axes, not 3; keep one volume")
    if not np.isfinite(data).all():
        raise CohortError(f"{subject}: {path.name} holds NaN or infinite voxels; replace them")
    if not (data > 0).any():
        raise CohortError(
            f"{subject}: {path.name} is empty (no voxel above 0); register and skull-strip it again"
        )
    if (data < 0).any():
        raise CohortError(f"{subject}: {path.name} holds negative voxels; intensities must start at 0")
    return data, np.asarray(image.affine, np.float64)  # type: ignore[attr-defined]


def read_cohort(root: Path, description: str = "affinebrain", show: bool = False) -> Cohort:
    """Read and check every brain of a BIDS derivative.

    Parameters
    ----------
    root : Path
        Root of the dataset: `participants.tsv` and `sub-*/anat/*_desc-<description>_T1w.nii.gz`
        (or `.nii`, `.mgz`).
    description : str
        Value of the BIDS entity `desc`.
    show : bool
        Show a progress bar.

    Returns
    -------
    Cohort
        All brains, normalized.

    Raises
    ------
    CohortError
        If a subject has no readable, nonempty scan, or if shapes or affines differ.
    """
    subjects = read_participants(root)
    paths = [find_scan(root, subject, description) for subject in subjects]
    brains: list[np.ndarray] = []
    affines: list[np.ndarray] = []
    pairs = zip(subjects, paths, strict=True)
    for subject, path in track(pairs, "reading brains", total=len(paths), disable=not show, transient=True):
        data, affine = _load(path, subject)
        if brains and data.shape != brains[0].shape:
            raise CohortError(
                f"{subject}: shape {data.shape} differs from {brains[0].shape} of {subjects[0]}; "
                "resample to one grid"
            )
        if affines and not np.allclose(affine, affines[0], atol=1e-3):
            raise CohortError(f"{subject}: affine differs from that of {subjects[0]}; resample to one grid")
        brains.append(normalize(data).astype(np.float16))
        affines.append(affine)
    return Cohort(
        subjects=subjects,
        brains=np.stack(brains),
        affine=affines[0],
        space=_space(paths),
        source=read_source(root),
    )


def _space(paths: list[Path]) -> str:
    found = {match[1] if (match := SPACE.search(path.name)) else "" for path in paths}
    if len(found) > 1:
        raise CohortError(
            f"scans lie in different spaces: {', '.join(sorted(found))}; register them to one template"
        )
    return found.pop() or "unknown"


def read_source(root: Path) -> Source:
    """Read what a data set's `dataset_description.json` says of it.

    Parameters
    ----------
    root : Path
        Root of the data set.

    Returns
    -------
    Source
        Empty if there is no such file.

    Raises
    ------
    CohortError
        If the file holds no JSON object.
    """
    path = root / "dataset_description.json"
    if not path.is_file():
        return Source()
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CohortError(
            f"dataset_description.json: not valid JSON ({error}); correct or remove it"
        ) from error
    if not isinstance(facts, dict):
        raise CohortError("dataset_description.json: holds no JSON object; correct or remove it")
    fields = ("Name", "License", "DatasetDOI", "HowToAcknowledge")
    return Source(*(str(facts.get(field, "")) for field in fields))


def split_subjects(subjects: tuple[str, ...], seed: int, held_out: float = 0.25) -> Split:
    """Divide subjects into training and test, before anything is drawn from their brains.

    Parameters
    ----------
    subjects : tuple of str
        Participant identifiers.
    seed : int
        The same seed and subjects give the same split.
    held_out : float
        Share of subjects to hold out.

    Returns
    -------
    Split
        Both parts, sorted.

    Raises
    ------
    CohortError
        If fewer than two subjects would fall to either side.
    """
    count = round(len(subjects) * held_out)
    if count < 2 or len(subjects) - count < 2:
        raise CohortError(
            f"participants.tsv: {len(subjects)} subjects are too few to hold out {held_out:.0%}; "
            "at least 2 are needed on each side, so 6 in all"
        )
    order = np.random.default_rng(seed).permutation(len(subjects))
    test = {subjects[index] for index in order[:count]}
    return Split(
        train=tuple(subject for subject in subjects if subject not in test),
        test=tuple(subject for subject in subjects if subject in test),
    )
