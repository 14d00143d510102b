"""Who belongs to a cohort, and what `participants.tsv` says of them."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

EMPTY = ("", "n/a")
"""How a BIDS table writes that a value is not known."""


class CohortError(Exception):
    """A cohort cannot be used; the message names the file or subject and the remedy."""


@dataclass(frozen=True)
class Labels:
    """The two classes of a cohort.

    Attributes
    ----------
    column : str
        Column of `participants.tsv` that they come from.
    classes : tuple of str
        Its two values, sorted: the classes in the order of the logits.
    codes : numpy.ndarray
        int64 indices into `classes`, shape `(subjects,)`, in the order of `read_participants`.
    """

    column: str
    classes: tuple[str, ...]
    codes: np.ndarray

    def counts(self) -> dict[str, int]:
        """Count the members of each class."""
        return {name: int((self.codes == index).sum()) for index, name in enumerate(self.classes)}


def read_participants(root: Path) -> tuple[str, ...]:
    """Read the identifiers in a dataset's `participants.tsv`.

    Parameters
    ----------
    root : Path
        Root of the BIDS dataset.

    Returns
    -------
    tuple of str
        Sorted, without repeats.

    Raises
    ------
    CohortError
        If the file is missing, has no column `participant_id`, or lists nobody or somebody twice.
    """
    subjects = [row["participant_id"] for row in _rows(root)]
    if not subjects:
        raise CohortError("participants.tsv: lists no participant; add one line per subject")
    repeated = sorted({subject for subject in subjects if subjects.count(subject) > 1})
    if repeated:
        raise CohortError(
            f"participants.tsv: {', '.join(repeated)} listed more than once; keep one line each"
        )
    return tuple(sorted(subjects))


def read_labels(root: Path, column: str) -> Labels:
    """Read a binary label of every participant.

    Parameters
    ----------
    root : Path
        Root of the BIDS dataset.
    column : str
        Column of `participants.tsv`.

    Returns
    -------
    Labels
        In the order of `read_participants`.

    Raises
    ------
    CohortError
        If the column is missing, a value is empty or ``n/a``, there are fewer or more than two values, or a
        value has one member only, who could not be both trained on and held out.
    """
    subjects = read_participants(root)
    values = {row["participant_id"]: (row.get(column) or "").strip() for row in _rows(root, column)}
    unknown = [subject for subject in subjects if values[subject] in EMPTY]
    if unknown:
        raise CohortError(
            f"participants.tsv: column {column!r} is empty for {', '.join(unknown)}; "
            "fill it in or remove these subjects"
        )
    counts = Counter(values.values())
    listed = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items())[:8])
    if len(counts) != 2:
        raise CohortError(
            f"participants.tsv: column {column!r} holds {len(counts)} different values, not 2: {listed}; "
            "choose a column with two classes, or keep the subjects of two"
        )
    if min(counts.values()) < 2:
        raise CohortError(
            f"participants.tsv: column {column!r} has a class with one member only: {listed}; "
            "nobody of it could be held out, so add subjects of that class"
        )
    classes = tuple(sorted(counts))
    return Labels(column, classes, np.array([classes.index(values[subject]) for subject in subjects]))


def _rows(root: Path, column: str = "participant_id") -> list[dict[str, str]]:
    """Read the lines that name a participant, from a table that has the column."""
    table = root / "participants.tsv"
    if not table.is_file():
        raise CohortError(
            f"cohort: {root} holds no participants.tsv; point --cohort at the root of a BIDS dataset"
        )
    with table.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines, delimiter="\t")
        there = list(reader.fieldnames or ())
        if "participant_id" not in there:
            raise CohortError(
                f"participants.tsv: no column 'participant_id' among {there}; separate the columns with tabs"
            )
        if column not in there:
            raise CohortError(
                f"participants.tsv: no column {column!r}; choose one of those there: {', '.join(there[1:])}"
            )
        return [row for row in reader if row["participant_id"]]
