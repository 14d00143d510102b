from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from models import Bundle, read_bundle
from tests.commands import train
from training.cohort import Cohort, Split
from training.participants import Labels
from training.whole.crossvalidation import volume_answers


@pytest.fixture(scope="module")
def labelled(block_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The block's brains with a column of two classes."""
    root = tmp_path_factory.mktemp("labelled") / "cohort"
    shutil.copytree(block_dir, root)
    rows = "".join(f"sub-{n:02d}\t{'FM'[n % 2]}\t{'F' if n < 8 else 'M'}\n" for n in range(1, 9))
    (root / "participants.tsv").write_text(f"participant_id\tsex\tlonely\n{rows}")
    names = sorted(path.name for path in root.glob("sub-*"))
    assert names == [f"sub-{n:02d}" for n in range(1, 9)]
    return root


def _sex(cohort: Path, out: Path, *more: str) -> Result:
    given = ("--description", "affinebrain", "--folds", "2", "--steps", "2", *more)
    return train("sex", "--cohort", cohort, "--out", out, *given)


@pytest.fixture(scope="module")
def bundle(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("repository")
    result = _sex(labelled, out)
    assert result.exit_code == 0, result.output
    for words in ("AUC of network", "AUC of brain volume", "balanced accuracy of network", "sex-affine"):
        assert words in result.output
    return read_bundle(out / "sex-affine" / "1")


def test_the_bundle_says_what_was_measured_on_whom(bundle: Bundle) -> None:
    manifest = bundle.manifest
    facts = manifest.evaluation
    assert manifest.classes == ("F", "M")
    assert len(manifest.training.subjects_train) == len(manifest.training.subjects_test) == 4
    assert facts.accuracy.n == 8  # all folds
    assert facts.chance == 0.5
    assert set(facts.baselines) == {"brain volume"}
    assert facts.figures["AUC of network"].n == 8
    assert manifest.input.voxel_size_mm == (4.0, 4.0, 4.0)
    assert manifest.training.recipe["folds"] == 2
    assert "monai" in manifest.training.software
    assert tuple(bundle.reference().shape) == manifest.input.shape


def test_the_card_states_the_figures_and_the_limits(bundle: Bundle) -> None:
    card, facts = bundle.card(), bundle.manifest.evaluation
    auc = facts.figures["AUC of network"]
    assert f"{auc.estimate:.3f} [{auc.low:.3f}, {auc.high:.3f}]" in card
    for words in (
        "Not for:** Any statement about a person",
        "4 F and 4 M",
        "last fold's",
        "Brain volume alone",
    ):
        assert words in card


@pytest.mark.parametrize("control", ["--shuffled", "--untrained"])
def test_controls_say_that_they_are(labelled: Path, tmp_path: Path, control: str) -> None:
    result = _sex(labelled, tmp_path, control)
    assert result.exit_code == 0, result.output
    made = read_bundle(tmp_path / f"sex-affine{control[1:]}" / "1")
    assert "control" in made.manifest.training.recipe
    assert "is a control with" in made.card()
    if control == "--untrained":
        assert made.manifest.training.recipe["phases"] == []


def test_other_architectures_can_be_chosen(labelled: Path, tmp_path: Path) -> None:
    result = _sex(labelled, tmp_path, "--architecture", "resnet", "--steps", "1")
    assert result.exit_code == 0, result.output
    made = read_bundle(tmp_path / "sex-affine-resnet" / "1").manifest
    assert made.architecture.name == "resnet"
    assert made.classes == ("F", "M")
    refused = _sex(labelled, tmp_path, "--architecture", "transformer")
    assert refused.exit_code == 2
    assert "ukb-a" in refused.output
    small = _sex(labelled, tmp_path, "--architecture", "ukb-b")
    assert small.exit_code == 2
    assert "shape" in small.output


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--column", "gender"), "no column 'gender'; choose one of those there: sex, lonely"),
        (("--column", "lonely"), "class with one member only"),
        (("--folds", "5"), "has 4 members, too few for 5 folds"),
    ],
)
def test_wrong_labels_stop_before_training(
    labelled: Path, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    result = _sex(labelled, tmp_path / "out", *more)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_an_existing_bundle_is_kept(labelled: Path, bundle: Bundle) -> None:
    result = _sex(labelled, bundle.path.parents[1])
    assert result.exit_code == 2
    assert "is not empty" in result.output
    assert read_bundle(bundle.path).digest == bundle.digest


def test_brain_volume_tells_sizes_apart(block: Cohort) -> None:
    """The baseline must be able to win: here the classes differ in size alone, the smaller one second."""
    brains = (block.brains > 0).astype(np.float16)
    brains[::2, :20] = 0
    shrunk = Cohort(block.subjects, brains, block.affine, block.space, block.source)
    labels = Labels("size", ("large", "small"), np.tile([1, 0], 4))
    names = block.subjects
    splits = [Split(names[:4], names[4:]), Split(names[4:], names[:4])]
    answers = volume_answers(shrunk, labels, splits)
    assert answers.accuracy().estimate == 1
    assert answers.figures("x")["AUC of x"].estimate == 1


def test_growth_writes_a_bundle_with_a_baseline(labelled: Path, tmp_path: Path) -> None:
    place = ("--center", "-8", "-18", "20", "--radius", "14", "--reach", "26")
    result = train(
        "growth",
        "--cohort",
        labelled,
        "--out",
        tmp_path,
        *place,
        "--steps",
        "2",
        "--draws",
        "1",
        "--shuffled",
    )
    assert result.exit_code == 0, result.output
    made = read_bundle(tmp_path / "growth-shuffled" / "1")
    facts = made.manifest.evaluation
    assert made.manifest.classes == ("unchanged", "grown")
    assert facts.accuracy.n == 2 * len(made.manifest.training.subjects_test)
    assert set(facts.baselines) == {"total intensity"}
    assert "control with shuffled labels" in made.card()
    region = made.manifest.training.recipe["planting"]["region"]  # type: ignore[index,call-overload]
    assert region["center"] == [-8.0, -18.0, 20.0]  # type: ignore[index,call-overload]


def test_a_region_that_cannot_be_is_refused(labelled: Path, tmp_path: Path) -> None:
    result = train("growth", "--cohort", labelled, "--out", tmp_path, "--radius", "40")
    assert result.exit_code == 2
    assert "below reach" in result.output
