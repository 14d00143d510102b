from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from models import Bundle, read_bundle
from models.statistics import LEVELS
from tests.commands import train
from training.cohort import Cohort
from training.lesions.brains import paintable
from training.lesions.shapes import CLASSES
from training.statistics import brain_mask


def _run(*arguments: str | Path) -> Result:
    return train("lesions", *arguments)


@pytest.fixture(scope="module")
def trained(block_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A network of six steps: a bundle like any other, but for its accuracy."""
    out = tmp_path_factory.mktemp("repository")
    return _run("--cohort", block_dir, "--out", out, "--steps", "6", "--draws", "1", "--seed", "3"), out


@pytest.fixture(scope="module")
def bundle(trained: tuple[Result, Path]) -> Bundle:
    result, out = trained
    assert result.exit_code == 0, result.output
    return read_bundle(out / "lesion-shapes" / "1")


def test_the_command_prints_accuracy_beside_the_baselines(
    trained: tuple[Result, Path], bundle: Bundle
) -> None:
    printed = trained[0].output
    facts = bundle.manifest.evaluation
    for name, value in {"network": facts.accuracy, **facts.baselines, **facts.per_class}.items():
        row = next(line for line in printed.splitlines() if name in line)
        assert f"{value.estimate:.1%}" in row
        assert f"{value.low:.1%} to {value.high:.1%}" in row
    assert "chance 16.7%" in printed


def test_the_bundle_is_complete_and_says_how_it_came_to_be(bundle: Bundle, block: Cohort) -> None:
    manifest = bundle.manifest
    assert {path.name for path in bundle.path.iterdir()} == {
        "MODEL_CARD.md",
        "bundle.json",
        "model.onnx",
        "prior.safetensors",
        "reference.nii.gz",
        "weights.safetensors",
    }
    assert manifest.classes == CLASSES
    assert manifest.input.shape == block.brains.shape[1:]
    assert manifest.training.seed == 3
    assert manifest.training.recipe["threads"] == 1
    assert sum(phase["steps"] for phase in manifest.training.recipe["phases"]) <= 8  # type: ignore[misc,union-attr,index,call-overload]
    assert sorted(manifest.training.subjects_train + manifest.training.subjects_test) == list(block.subjects)
    assert manifest.evaluation.accuracy.n == len(manifest.training.subjects_test) * len(CLASSES)


def test_reference_and_prior_are_those_of_the_training_subjects(bundle: Bundle, block: Cohort) -> None:
    train = paintable(block, bundle.manifest.training.subjects_train).volumes
    reference = bundle.reference()
    np.testing.assert_allclose(reference.get_fdata(), train.mean(axis=0, dtype=np.float32), atol=0.003)
    np.testing.assert_array_equal(reference.affine, block.affine)
    prior = bundle.prior()
    np.testing.assert_array_equal(prior.mask().numpy(), brain_mask(train))
    inside = train[train > 0].astype(np.float32)
    np.testing.assert_allclose(prior.intensity_quantiles, np.quantile(inside, LEVELS), atol=1e-3)
    assert prior.layers == (*(f"blocks.{i}.conv" for i in range(4)), "classifier")
    means, maxima = (prior.activation_quantiles("blocks.3.conv", s) for s in ("mean", "maximum"))
    assert (maxima >= means).all()
    assert "maxima/classifier" not in prior


def test_the_card_states_the_figures(bundle: Bundle) -> None:
    card, facts = bundle.card(), bundle.manifest.evaluation
    assert f"{facts.accuracy.estimate:.1%} [{facts.accuracy.low:.1%}, {facts.accuracy.high:.1%}]" in card
    for words in (
        "Not for:",
        "no diagnosis",
        "Varied MNI152 templates",
        "held out",
        *facts.baselines,
        *CLASSES,
    ):
        assert words in card


def test_an_existing_bundle_is_kept(trained: tuple[Result, Path], bundle: Bundle, block_dir: Path) -> None:
    result = _run("--cohort", block_dir, "--out", trained[1], "--steps", "6")
    assert result.exit_code == 2
    assert "is not empty" in result.output
    assert read_bundle(bundle.path).digest == bundle.digest


def test_controls_are_named_by_what_they_are(block_dir: Path, tmp_path: Path) -> None:
    result = _run("--cohort", block_dir, "--out", tmp_path, "--untrained", "--draws", "1")
    assert result.exit_code == 0, result.output
    facts = read_bundle(tmp_path / "lesion-shapes-untrained" / "1").manifest
    assert facts.name == "lesion-shapes-untrained"
    assert facts.training.recipe["phases"] == []
    assert facts.evaluation.accuracy.estimate < 0.6


def test_a_finished_run_leaves_no_checkpoint(trained: tuple[Result, Path]) -> None:
    assert [path.name for path in trained[1].iterdir()] == ["lesion-shapes"]


def test_too_few_subjects_stop_before_training(block_dir: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    shutil.copytree(block_dir, few)
    (few / "participants.tsv").write_text("participant_id\nsub-01\nsub-02\n")
    result = _run("--cohort", few, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "2 subjects are too few" in result.output
    assert not (tmp_path / "out").exists()


def test_a_missing_cohort_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    result = _run("--cohort", tmp_path / "nowhere", "--out", tmp_path)
    assert result.exit_code == 2
    assert "participants.tsv" in result.output
    assert "Traceback" not in result.output
