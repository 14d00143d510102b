from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.folds import stratified_folds
from training.participants import CohortError, Labels, read_labels


def _table(root: Path, values: list[str], column: str = "sex") -> Path:
    rows = "".join(f"sub-{n:02d}\t30\t{value}\n" for n, value in enumerate(values, 1))
    (root / "participants.tsv").write_text(f"participant_id\tage\t{column}\n{rows}")
    return root


def test_labels_come_sorted_and_in_the_order_of_the_subjects(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tsex\nsub-03\tM\nsub-01\tF\nsub-04\tM\nsub-02\tF\n"
    )
    labels = read_labels(tmp_path, "sex")
    assert labels.classes == ("F", "M")
    assert labels.codes.tolist() == [0, 0, 1, 1]
    assert labels.counts() == {"F": 2, "M": 2}


@pytest.mark.parametrize(
    ("values", "column", "message"),
    [
        (["F", "M"], "gender", r"no column 'gender'; choose one of those there: age, sex"),
        (["F", "", "M", "n/a"], "sex", r"empty for sub-02, sub-04; fill it in or remove"),
        (["F", "M", "D"], "sex", r"3 different values, not 2: D \(1\), F \(1\), M \(1\); choose a column"),
        (["F", "F"], "sex", r"1 different values, not 2: F \(2\)"),
        (["F", "F", "M"], "sex", r"class with one member only: F \(2\), M \(1\); .* add subjects"),
    ],
)
def test_unusable_labels(tmp_path: Path, values: list[str], column: str, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        read_labels(_table(tmp_path, values), column)


def _labels(counts: tuple[int, int]) -> tuple[tuple[str, ...], Labels]:
    codes = np.random.default_rng(0).permutation(np.repeat([0, 1], counts))
    return tuple(f"sub-{n:02d}" for n in range(len(codes))), Labels("sex", ("F", "M"), codes)


def test_folds_keep_subjects_apart_and_classes_balanced() -> None:
    subjects, labels = _labels((53, 19))
    folds = stratified_folds(subjects, labels, 5, seed=0)
    assert sorted(name for fold in folds for name in fold.test) == sorted(subjects)
    for fold in folds:
        assert not set(fold.train) & set(fold.test)
        assert set(fold.train) | set(fold.test) == set(subjects)
        men = sum(labels.codes[subjects.index(name)] for name in fold.test)
        assert men in (3, 4)
    assert folds == stratified_folds(subjects, labels, 5, seed=0)
    assert folds != stratified_folds(subjects, labels, 5, seed=1)


@pytest.mark.parametrize(
    ("folds", "message"), [(1, "use at least 2"), (4, "'M' .* has 3 members.*at most 3")]
)
def test_folds_that_cannot_be(folds: int, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        stratified_folds(*_labels((9, 3)), folds, seed=0)
