from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from training.whole.scores import auc_interval, balanced_accuracy_interval, fold_ranks


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    return auc_interval(scores, labels, "plain").estimate


def test_auc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = rng.permutation(np.repeat([0, 1], [11, 6]))
        scores = rng.integers(0, 6, 17).astype(float)  # with ties
        assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_ranks_forget_the_scale_of_each_fold() -> None:
    rng = np.random.default_rng(1)
    labels = np.tile(np.repeat([0, 1], [8, 4]), 4)
    folds = np.repeat(np.arange(4), 12)
    scores = labels + 0.1 * rng.standard_normal(48)
    apart = scores * np.array([1, 50, 0.1, 3])[folds] + np.array([0, -90, 40, 7])[folds]
    assert auc(apart, labels) < 0.9
    ranks = fold_ranks(apart, folds)
    assert auc(ranks, labels) == 1
    np.testing.assert_array_equal(ranks, fold_ranks(scores, folds))
    assert fold_ranks(np.zeros(4), np.zeros(4, int)).tolist() == [0.5] * 4


def test_intervals_of_an_auc_cover_the_truth() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], [53, 19])
    truth, covered = 0.7603, 0  # of two normal distributions one deviation apart
    for seed in range(100):
        found = auc_interval(rng.standard_normal(72) + labels, labels, "test", seed)
        covered += found.low <= truth <= found.high
    assert 88 <= covered <= 100
    assert found.low < found.estimate < found.high
    assert found.n == 72


def test_balanced_accuracy_is_that_of_scikit_learn_and_covers_the_truth() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], [53, 19])
    covered = 0
    for seed in range(100):
        answers = np.where(rng.random(72) < np.where(labels, 0.6, 0.9), labels, 1 - labels)
        found = balanced_accuracy_interval(answers, labels, seed)
        assert found.estimate == pytest.approx(balanced_accuracy_score(labels, answers))
        covered += found.low <= 0.75 <= found.high
    assert 86 <= covered <= 100
