"""Cross-validation of a label of whole volumes, beside what brain volume alone tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from nibabel.affines import voxel_sizes
from torch import nn

from models.manifest import Interval
from training.checkpoint import Checkpoint
from training.cohort import Cohort, Split
from training.evaluate import Trials, evaluate
from training.fit import Phase, Report
from training.intervals import accuracy_interval
from training.participants import Labels
from training.recipe import Recipe
from training.task import Task
from training.whole.scores import auc_interval, balanced_accuracy_interval, fold_ranks
from training.whole.volumes import VolumeSampler

RANKED = "ranks within each fold, pooled"


@dataclass(frozen=True)
class Labelled:
    """Brains on the model's grid, and the classes of their subjects."""

    cohort: Cohort
    labels: Labels


@dataclass(frozen=True)
class Fold:
    """One fold's network and its answers on the fold's held-out subjects."""

    split: Split
    network: nn.Module
    trials: Trials


@dataclass(frozen=True)
class Answers:
    """A score and a guess for every subject, made by somebody who had not seen the subject.

    Attributes
    ----------
    scores : numpy.ndarray
        The larger, the more like class 1; comparable within a fold; shape `(n,)`.
    guesses, labels, folds : numpy.ndarray
        Integer, shape `(n,)`.
    """

    scores: np.ndarray
    guesses: np.ndarray
    labels: np.ndarray
    folds: np.ndarray

    def accuracy(self) -> Interval:
        """Share of right guesses."""
        return accuracy_interval(self.guesses == self.labels, np.arange(len(self.labels)))

    def per_class(self, classes: tuple[str, ...]) -> dict[str, Interval]:
        """Share of right guesses among the members of each class."""
        found = {}
        for code, name in enumerate(classes):
            right = self.guesses[self.labels == code] == code
            found[name] = accuracy_interval(right, np.arange(len(right)))
        return found

    def figures(self, who: str) -> dict[str, Interval]:
        """AUC and balanced accuracy, with `who` in their names."""
        ranks = fold_ranks(self.scores, self.folds)
        return {
            f"AUC of {who}": auc_interval(ranks, self.labels, RANKED),
            f"balanced accuracy of {who}": balanced_accuracy_interval(self.guesses, self.labels),
        }


def train_fold(
    task: Task,
    labelled: Labelled,
    split: Split,
    recipe: Recipe,
    announce: Callable[[Phase], Report],
    checkpoint: Checkpoint | None = None,
) -> Fold:
    """Fit a network to a fold's training subjects and try it on the others.

    Parameters
    ----------
    task : Task
        Says which architecture.
    labelled : Labelled
        The brains.
    split : Split
        Who trains and who is held out.
    recipe, announce, checkpoint
        As in `Recipe.train`.

    Returns
    -------
    Fold
        With one image per held-out subject.
    """
    cohort, labels = labelled.cohort, labelled.labels
    places = {subject: row for row, subject in enumerate(cohort.subjects)}
    train = [places[subject] for subject in split.train]
    test = [places[subject] for subject in split.test]
    sampler = VolumeSampler(cohort.brains[train], labels.codes[train], recipe.seed)
    network = recipe.train(task, sampler, announce, checkpoint)
    images = ((row, int(labels.codes[row]), cohort.brains[row].astype(np.float32)) for row in test)
    return Fold(split, network, evaluate(network, images, labels.classes, len(test)))


def network_answers(folds: list[Fold]) -> Answers:
    """Collect what the folds' networks said of their held-out subjects."""
    logits = np.concatenate([fold.trials.logits for fold in folds])
    return Answers(
        scores=logits[:, 1] - logits[:, 0],
        guesses=logits.argmax(axis=1),
        labels=np.concatenate([fold.trials.labels for fold in folds]),
        folds=np.repeat(np.arange(len(folds)), [len(fold.trials.labels) for fold in folds]),
    )


def brain_volumes(cohort: Cohort) -> np.ndarray:
    """Measure the volume of each skull-stripped brain in ml, float64, shape `(subjects,)`."""
    voxel = float(np.prod(voxel_sizes(cohort.affine))) / 1000
    return np.array([np.count_nonzero(brain) * voxel for brain in cohort.brains])


def volume_answers(cohort: Cohort, labels: Labels, splits: list[Split]) -> Answers:
    """Guess the label from brain volume alone, by the class whose mean is nearer.

    Parameters
    ----------
    cohort : Cohort
        At full resolution.
    labels : Labels
        Of its subjects.
    splits : list of Split
        The means, and which class has the larger brains, are taken from each fold's training subjects.

    Returns
    -------
    Answers
        Scores are millilitres above the midpoint of the means, signed so that class 1 has the larger ones.
    """
    volumes = brain_volumes(cohort)
    places = {subject: row for row, subject in enumerate(cohort.subjects)}
    scores, rows, folds = [], [], []
    for number, split in enumerate(splits):
        train = np.array([places[subject] for subject in split.train])
        test = [places[subject] for subject in split.test]
        low, high = (volumes[train][labels.codes[train] == code].mean() for code in (0, 1))
        scores.append((volumes[test] - (low + high) / 2) * (1 if high >= low else -1))
        rows += test
        folds += [number] * len(test)
    joined = np.concatenate(scores)
    return Answers(joined, (joined > 0).astype(np.int64), labels.codes[rows], np.array(folds))
