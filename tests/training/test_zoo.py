"""The shipped bundle: what it claims, and that it holds on brains."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from models import ZOO, Bundle, Repository
from tests.brains import write_tables
from training.card import write_card
from training.cohort import Cohort, read_cohort, read_participants
from training.lesions.brains import paintable
from training.lesions.images import evaluate
from training.lesions.recipe import lesion_recipe
from training.lesions.shapes import CLASSES
from training.lesions.task import LESIONS
from training.whole.plants import Planting


@pytest.fixture(scope="module", params=["lesion-shapes", "lesion-shapes-robust"])
def shipped(request: pytest.FixtureRequest) -> Bundle:
    return Repository(ZOO).get(request.param)


def test_it_is_small(shipped: Bundle) -> None:
    assert sum(path.stat().st_size for path in shipped.path.iterdir()) < 3_000_000
    assert (shipped.path / "prior.safetensors").stat().st_size < 600_000


def test_it_is_what_the_code_makes(shipped: Bundle) -> None:
    manifest = shipped.manifest
    assert manifest.classes == CLASSES
    assert manifest.architecture.name == LESIONS.architecture
    assert manifest.architecture.hyperparameters == LESIONS.hyperparameters
    recipe = lesion_recipe(robust=manifest.name.endswith("robust"))
    assert {**recipe.facts(), "threads": 0} == {**manifest.training.recipe, "threads": 0}
    assert manifest.input.shape == (91, 109, 91)
    assert manifest.input.orientation == "LAS"


def test_card_and_manifest_are_what_the_code_writes(shipped: Bundle) -> None:
    # By words, whatever their order: JSON sorts the keys that the card lists.
    written, kept = (
        re.sub(r"[,()]", " ", card).split()
        for card in (write_card(shipped.manifest, LESIONS.wording), shipped.card())
    )
    assert sorted(written) == sorted(kept)
    assert shipped.manifest.to_json() == (shipped.path / "bundle.json").read_bytes()


def test_it_recognizes_shapes_on_people_it_never_saw(shipped: Bundle) -> None:
    facts = shipped.manifest.evaluation
    assert len(shipped.manifest.training.subjects_test) >= 18
    assert facts.accuracy.estimate >= 0.95
    assert min(interval.estimate for interval in facts.per_class.values()) >= 0.85


def test_nothing_but_shape_informs(shipped: Bundle) -> None:
    facts = shipped.manifest.evaluation
    assert facts.chance == pytest.approx(1 / len(CLASSES))
    assert set(facts.baselines) == {"total intensity", "bright-voxel count"}
    for interval in facts.baselines.values():
        assert interval.low <= facts.chance <= interval.high


def test_logit_quantiles_ascend(shipped: Bundle) -> None:
    for name, levels in shipped.manifest.evaluation.logit_quantiles.items():
        assert levels["0.05"] < levels["0.5"] < levels["0.95"], name


def test_the_card_is_honest(shipped: Bundle) -> None:
    card = shipped.card()
    for words in ("ds002748", "CC0", "72 subjects", "Depression", "Not for:", "no diagnosis", "none is real"):
        assert words in card


@pytest.fixture(scope="module")
def unseen(
    shipped: Bundle, cohort_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Cohort, bool]:
    """Four brains that did not train the network, and whether they are its own held-out subjects."""
    present, held_out = read_participants(cohort_dir), shipped.manifest.training.subjects_test
    description = cohort_dir / "dataset_description.json"
    real = set(held_out) <= set(present) and "ds002748" in description.read_text()
    names = list(held_out if real else present)[:4]
    root = tmp_path_factory.mktemp("unseen")
    for name in names:
        (root / name).symlink_to(cohort_dir / name)
    write_tables(root, names)
    shutil.copy(description, root)
    return read_cohort(root), real


def test_its_accuracy_can_be_reproduced(shipped: Bundle, unseen: tuple[Cohort, bool]) -> None:
    cohort, real = unseen
    trials = evaluate(shipped.network(), paintable(cohort, cohort.subjects), draws=1, seed=99)
    # Invented brains are not what the network was trained on, so the bound is lower there.
    assert trials.accuracy().estimate >= (0.9 if real else 0.75)


def test_the_zoo_is_small() -> None:
    assert sum(path.stat().st_size for path in ZOO.rglob("*") if path.is_file()) < 12_000_000


@pytest.fixture(scope="module", params=["sex-rigid", "sex-affine"])
def sexed(request: pytest.FixtureRequest) -> Bundle:
    return Repository(ZOO).get(request.param)


def test_sex_is_told_with_intervals_beside_brain_volume(sexed: Bundle) -> None:
    facts = sexed.manifest.evaluation
    assert set(facts.figures) == {
        f"{figure} of {who}" for figure in ("AUC", "balanced accuracy") for who in ("network", "brain volume")
    }
    for interval in facts.figures.values():
        assert interval.n == 72  # everybody was held out once
        assert interval.high - interval.low > 0.05
    assert set(facts.baselines) == {"brain volume"}
    assert facts.chance == pytest.approx(53 / 72)
    card = sexed.card()
    for words in (
        "Brain volume alone is the baseline",
        "must not sort, select or describe people",
        "last fold's",
    ):
        assert words in card


def test_weights_of_sex_are_those_of_the_last_fold(sexed: Bundle) -> None:
    training = sexed.manifest.training
    assert len(training.subjects_train) + len(training.subjects_test) == 72
    assert training.recipe["folds"] == 5
    assert sexed.manifest.input.voxel_size_mm == (4.0, 4.0, 4.0)


def test_growth_says_what_was_planted() -> None:
    bundle = Repository(ZOO).get("growth")
    planting = bundle.manifest.training.recipe["planting"]
    assert planting == Planting().facts()
    assert bundle.manifest.classes == ("unchanged", "grown")
    facts = bundle.manifest.evaluation
    assert facts.accuracy.low > 0.6
    intensity = facts.baselines["total intensity"]
    assert intensity.low <= 0.5 <= intensity.high
    assert "head size stays" in bundle.card()
