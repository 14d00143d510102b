from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from models.architectures import build
from training.cohort import Cohort
from training.evaluate import Trials
from training.intervals import accuracy_interval
from training.lesions.baselines import FEATURES, baselines, guess, with_lesion
from training.lesions.brains import paintable
from training.lesions.images import draw_images, evaluate
from training.lesions.shapes import CLASSES, draw_lesion, paint
from training.lesions.task import LESIONS


def test_an_interval_knows_that_images_of_a_subject_are_alike() -> None:
    rng = np.random.default_rng(0)
    subjects = np.repeat(np.arange(18), 30)
    alike = np.repeat(rng.random(18) < 0.7, 30)
    apart = rng.random(540) < 0.7
    wide, narrow = accuracy_interval(alike, subjects), accuracy_interval(apart, subjects)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    assert narrow.low <= narrow.estimate <= narrow.high
    assert narrow.n == 540
    assert narrow == accuracy_interval(apart, subjects)


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(1)
    subjects = np.repeat(np.arange(18), 12)
    covered = []
    for seed in range(60):
        drawn = rng.random(216) < np.repeat(np.clip(rng.normal(0.8, 0.05, 18), 0, 1), 12)
        interval = accuracy_interval(drawn, subjects, seed)
        covered.append(interval.low <= 0.8 <= interval.high)
    assert np.mean(covered) >= 0.85


def test_images_are_seeded_and_complete(block: Cohort) -> None:
    brains = paintable(block, block.subjects[:2])
    first = list(draw_images(brains, draws=2, seed=3))
    assert [(row, label) for row, label, _ in first] == [
        (row, label) for row in range(2) for _ in range(2) for label in range(len(CLASSES))
    ]
    again = list(draw_images(brains, draws=2, seed=3))
    assert all(np.array_equal(a, b) for (_, _, a), (_, _, b) in zip(first, again, strict=True))


def test_evaluation_watches_layers_and_leaves_no_hooks(block: Cohort) -> None:
    torch.manual_seed(0)
    network = build(LESIONS.architecture, **LESIONS.hyperparameters)
    trials = evaluate(network, paintable(block, block.subjects[:2]), draws=1, seed=0)
    widths = LESIONS.hyperparameters["widths"]
    assert isinstance(widths, list)
    assert list(trials.means) == [*(f"blocks.{i}.conv" for i in range(len(widths))), "classifier"]
    assert trials.means["blocks.0.conv"].shape == (12, widths[0])
    assert (trials.maxima["blocks.1.conv"] >= trials.means["blocks.1.conv"]).all()
    np.testing.assert_array_equal(trials.means["classifier"], trials.logits)
    assert not any(module._forward_hooks for module in network.modules())
    volume = next(draw_images(paintable(block, block.subjects[:1]), 1, 0))[2]
    with torch.no_grad():
        np.testing.assert_array_equal(network(torch.from_numpy(volume)[None, None])[0], trials.logits[0])


def test_figures_follow_from_the_answers() -> None:
    labels = np.tile(np.arange(6), 6)
    logits = np.eye(6, dtype=np.float32)[labels] * 4
    logits[:3] = np.roll(logits[:3], 1, axis=1)
    trials = Trials(np.repeat(np.arange(6), 6), labels, logits, {}, {}, CLASSES)
    assert trials.accuracy().estimate == pytest.approx(33 / 36)
    assert trials.per_class()["sphere"].estimate == pytest.approx(5 / 6)
    assert trials.per_class()["none"].estimate == 1
    assert trials.confusion().trace() == 33
    assert trials.confusion()[0, 1] == 1
    assert trials.logit_quantiles()["torus"] == {"0.05": 4.0, "0.5": 4.0, "0.95": 4.0}


def test_features_after_painting_are_those_of_the_whole_volume(block: Cohort) -> None:
    brains = paintable(block, block.subjects[:1])
    brain = brains.volumes[0].astype(np.float32)
    rng = np.random.default_rng(4)
    for label in CLASSES * 2:
        lesion = draw_lesion(label, brains.sites[0], rng)
        for feature in FEATURES.values():
            expected = feature(paint(brain, lesion))
            assert with_lesion(feature, feature(brain), brain, lesion) == pytest.approx(expected, rel=1e-6)


def test_the_guess_finds_what_a_number_tells() -> None:
    """The baselines' classifier must be able to fail the design: here a number gives the class away."""
    rng = np.random.default_rng(5)
    labels = rng.integers(6, size=3000)
    telling = np.abs(labels - 2.5) + 0.1 * rng.random(3000)  # not monotone
    answers = guess(telling[:2000], labels[:2000], telling[2000:])
    assert np.mean(answers == labels[2000:]) > 0.45
    silent = rng.random(3000)
    assert np.mean(guess(silent[:2000], labels[:2000], silent[2000:]) == labels[2000:]) < 0.22


def test_baselines_sit_at_chance(block: Cohort) -> None:
    found = baselines(
        paintable(block, block.subjects[:5]), paintable(block, block.subjects[5:]), draws=20, seed=0
    )
    assert set(found) == {"total intensity", "bright-voxel count"}
    for interval in found.values():
        assert interval.low <= 1 / len(CLASSES) <= interval.high


def test_hooks_are_removed_when_a_network_fails(block: Cohort) -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(1, 2, 3)

        def forward(self, volume: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("broken")

    network = Failing()
    with pytest.raises(RuntimeError, match="broken"):
        evaluate(network, paintable(block, block.subjects[:1]), draws=1, seed=0)
    assert not network.conv._forward_hooks
