from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.brains import AFFINE, write_scan, write_tables
from training.cohort import (
    INTENSITY_RANGE,
    NORMALIZATION,
    Cohort,
    CohortError,
    Source,
    normalize,
    read_cohort,
    read_participants,
    split_subjects,
)

NAMES = ["sub-01", "sub-02", "sub-03"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three small brains that read well, for tests to spoil."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        write_scan(tmp_path, name, _brain(rng))
    write_tables(tmp_path, NAMES)
    return tmp_path


def _brain(rng: np.random.Generator) -> np.ndarray:
    data = rng.integers(1, 255, (10, 12, 10)).astype(np.uint8)
    data[:2] = 0
    return data


def test_a_cohort_reads_in_model_units(root: Path) -> None:
    cohort = read_cohort(root)
    assert cohort.subjects == tuple(NAMES)
    assert cohort.brains.shape == (3, 10, 12, 10)
    assert cohort.brains.dtype == np.float16
    assert cohort.brains.min() == 0
    assert cohort.brains.max() <= INTENSITY_RANGE[1]
    assert cohort.space == "MNI152NLin6Asym"
    assert cohort.source.name == "Varied MNI152 templates"
    np.testing.assert_array_equal(cohort.affine, AFFINE)


def test_the_real_or_invented_cohort_reads(block: Cohort) -> None:
    brains = block.brains.astype(np.float32)
    assert len(block.subjects) == 8
    assert 0.4 < np.median(brains[brains > 0]) < 0.8


def test_normalization_has_an_inverse() -> None:
    image = np.random.default_rng(1).uniform(1, 900, (8, 8, 8)).astype(np.float32)
    image[0] = 0
    model = normalize(image)
    assert model.dtype == np.float32
    inside = image / NORMALIZATION.scale(image) < INTENSITY_RANGE[1]
    np.testing.assert_allclose((model * NORMALIZATION.scale(image))[inside], image[inside], rtol=1e-5)


def test_missing_participants(root: Path) -> None:
    (root / "participants.tsv").unlink()
    with pytest.raises(CohortError, match=r"holds no participants\.tsv; point --cohort at the root"):
        read_cohort(root)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("subject\nsub-01\n", "no column 'participant_id'"),
        ("participant_id\n", "lists no participant"),
        ("participant_id\nsub-01\nsub-01\n", "sub-01 listed more than once"),
    ],
)
def test_unusable_participants(root: Path, table: str, message: str) -> None:
    (root / "participants.tsv").write_text(table)
    with pytest.raises(CohortError, match=message):
        read_participants(root)


def test_a_subject_without_a_scan(root: Path) -> None:
    next((root / "sub-02" / "anat").iterdir()).unlink()
    with pytest.raises(CohortError, match=r"sub-02: no scan .* or remove the subject from participants\.tsv"):
        read_cohort(root)


def test_a_subject_with_two_scans(root: Path) -> None:
    scan = next((root / "sub-02" / "anat").iterdir())
    scan.with_name(scan.name.replace("res-2", "res-02")).write_bytes(scan.read_bytes())
    with pytest.raises(CohortError, match="sub-02: 2 scans match"):
        read_cohort(root)


def test_another_description_is_another_scan(root: Path) -> None:
    with pytest.raises(CohortError, match=r"sub-01: no scan .*desc-rigidbrain"):
        read_cohort(root, "rigidbrain")


def test_shapes_that_differ(root: Path) -> None:
    write_scan(root, "sub-03", np.ones((10, 12, 11), np.uint8))
    with pytest.raises(
        CohortError, match=r"sub-03: shape \(10, 12, 11\) differs from \(10, 12, 10\) of sub-01"
    ):
        read_cohort(root)


def test_affines_that_differ(root: Path) -> None:
    shifted = AFFINE.copy()
    shifted[0, 3] += 1
    write_scan(root, "sub-03", _brain(np.random.default_rng(2)), shifted)
    with pytest.raises(CohortError, match="sub-03: affine differs from that of sub-01; resample"):
        read_cohort(root)


def test_spaces_that_differ(root: Path) -> None:
    scan = next((root / "sub-03" / "anat").iterdir())
    scan.rename(scan.with_name(scan.name.replace("MNI152NLin6Asym", "MNI152NLin2009cAsym")))
    with pytest.raises(CohortError, match="different spaces: MNI152NLin2009cAsym, MNI152NLin6Asym"):
        read_cohort(root)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((10, 12, 10), np.uint8), "is empty"),
        (np.full((10, 12, 10), np.nan, np.float32), "NaN or infinite"),
        (np.full((10, 12, 10), -1, np.int16), "is empty"),
        (np.linspace(-1, 1, 1200, dtype=np.float32).reshape(10, 12, 10), "negative voxels"),
        (np.ones((10, 12, 10, 2), np.uint8), "4 axes"),
    ],
)
def test_scans_that_hold_no_brain(root: Path, data: np.ndarray, message: str) -> None:
    write_scan(root, "sub-02", data)
    with pytest.raises(CohortError, match=f"sub-02: .*{message}"):
        read_cohort(root)


def test_a_truncated_scan(root: Path) -> None:
    scan = next((root / "sub-02" / "anat").iterdir())
    scan.write_bytes(scan.read_bytes()[:200])
    with pytest.raises(CohortError, match="sub-02: cannot read"):
        read_cohort(root)


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("[]", "holds no JSON object")])
def test_a_damaged_description(root: Path, text: str, message: str) -> None:
    (root / "dataset_description.json").write_text(text)
    with pytest.raises(CohortError, match=rf"dataset_description\.json: {message}"):
        read_cohort(root)


def test_a_dataset_may_say_nothing_of_itself(root: Path) -> None:
    (root / "dataset_description.json").unlink()
    assert read_cohort(root).source == Source()


def test_a_split_is_disjoint_whole_and_seeded() -> None:
    subjects = tuple(f"sub-{number:02d}" for number in range(1, 73))
    split = split_subjects(subjects, seed=0)
    assert (len(split.train), len(split.test)) == (54, 18)
    assert not set(split.train) & set(split.test)
    assert tuple(sorted(split.train + split.test)) == subjects
    assert split == split_subjects(subjects, seed=0)
    assert split != split_subjects(subjects, seed=1)


def test_too_few_subjects_to_split() -> None:
    with pytest.raises(CohortError, match=r"5 subjects are too few to hold out 25%.*6 in all"):
        split_subjects(tuple("abcde"), seed=0)


@pytest.mark.parametrize("ending", [".nii", ".mgz"])
def test_scans_of_another_kind_give_the_same_bits(root: Path, ending: str) -> None:
    before = read_cohort(root)
    for path in sorted(root.glob("sub-*/anat/*_T1w.nii.gz"))[1:]:
        image = nibabel.load(path)
        kind = nibabel.MGHImage if ending == ".mgz" else nibabel.Nifti1Image
        other = kind(image.get_fdata(dtype=np.float32), image.affine)
        other.to_filename(path.with_name(path.name.replace(".nii.gz", ending)))
        path.unlink()
    after = read_cohort(root)
    np.testing.assert_array_equal(after.brains, before.brains)
    np.testing.assert_array_equal(after.affine, before.affine)
    assert after.space == before.space
