"""Cohorts in which the label goes with one signal, and small networks trained on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.shortcuts.plants import SIGNALS
from models import Bundle, read_bundle, write_bundle
from training.card import write_card
from training.cohort import INTENSITY_RANGE, Cohort, Split, normalize, split_subjects
from training.evaluate import evaluate
from training.export import Outcome, describe
from training.fit import Phase, balanced
from training.recipe import Recipe
from training.statistics import cohort_prior, mean_brain
from training.task import Task, Wording

CLASSES = ("control", "case")
WIDTHS, POOLED = (6, 12, 16), 2
PHASES = (
    Phase("fit", steps=110, size=8, edge=0, rate=3e-3),
    # So that the norms' statistics are those that images meet later.
    Phase("settle", steps=30, size=8, edge=0, rate=1e-3, frozen_norm=True),
)


def coarse(cohort: Cohort) -> Cohort:
    """Average blocks of 3x3x3 voxels: a network then trains in seconds. The air around the head stays."""
    brains = np.stack([normalize(_thirds(brain)).astype(np.float16) for brain in cohort.brains])
    step = np.diag([3.0, 3.0, 3.0, 1.0])
    step[:3, 3] = 1.0
    return replace(cohort, brains=brains, affine=cohort.affine @ step)


def _thirds(volume: np.ndarray) -> np.ndarray:
    x, y, z = (length // 3 for length in volume.shape)
    blocks = volume[: 3 * x, : 3 * y, : 3 * z].astype(np.float32).reshape(x, 3, y, 3, z, 3)
    return np.asarray(blocks.mean(axis=(1, 3, 5)))


@dataclass(frozen=True)
class Case:
    """One cohort and the network trained on it.

    Attributes
    ----------
    kind : str
        Key of `SIGNALS`.
    seed : int
        Of the plant, the split, the weights and all draws.
    """

    kind: str
    seed: int

    @property
    def name(self) -> str:
        """Of the bundle."""
        return f"{self.kind}-{self.seed}"

    @cached_property
    def changes(self) -> tuple:
        """What happens to images of each class."""
        number = list(SIGNALS).index(self.kind)
        return SIGNALS[self.kind].draw(np.random.default_rng((self.seed, number)))

    def image(self, brain: np.ndarray, label: int, rng: np.random.Generator) -> np.ndarray:
        """Make an image of a class out of a brain, float32, model units."""
        return normalize(self.changes[label](brain.astype(np.float32), rng))


class Sampler:
    """Draws batches in which any brain may belong to either class; see `training.fit.Sampler`."""

    def __init__(self, case: Case, brains: np.ndarray) -> None:
        self.case, self.brains = case, brains

    def batch(self, step: int, size: int, edge: int = 0) -> tuple[Tensor, Tensor]:
        """Return volumes and classes; a function of the case and `step` alone."""
        rng = np.random.default_rng((self.case.seed, 1, step))
        labels = balanced(rng, size, len(CLASSES))
        images = [self._look(int(label), rng) for label in labels]
        return torch.from_numpy(np.stack(images))[:, None], torch.from_numpy(labels)

    def _look(self, label: int, rng: np.random.Generator) -> np.ndarray:
        image = self.case.image(self.brains[rng.integers(len(self.brains))], label, rng)
        # Little augmentation: networks trained so are the more easily moved, which is the harder case for
        # false alarms, and no shortcut is hidden by it.
        image = np.roll(image, rng.integers(-1, 2, 3), axis=(0, 1, 2))
        image = image ** np.float32(rng.uniform(0.97, 1.03))
        return np.clip(image, *INTENSITY_RANGE).astype(np.float32)


def held_out_images(
    case: Case, cohort: Cohort, split: Split, draws: int, stream: int = 2
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Make images of both classes of brains that trained nothing."""
    rng = np.random.default_rng((case.seed, stream))
    for row, brain in enumerate(cohort.volumes(split.test)):
        for _ in range(draws):
            for label in range(len(CLASSES)):
                yield row, label, case.image(brain, label, rng)


def task(case: Case, shape: tuple[int, ...]) -> Task:
    """Say what the bundle is for."""
    words = SIGNALS[case.kind].words
    return Task(
        name=case.name,
        classes=CLASSES,
        architecture="volume-net",
        hyperparameters={
            "classes": len(CLASSES),
            "widths": list(WIDTHS),
            "pooled_blocks": POOLED,
            "positions": [length // 2**POOLED for length in shape],
        },
        intended_use="Proving that an audit sees shortcuts.",
        not_for="Anything else.",
        wording=Wording(
            purpose=f"tells images with {words} from others",
            division="{train} subjects trained the network and {test} were held out (seed {seed}).",
            evaluation="Planted images of held-out subjects; {level} interval ({method}); chance {chance}.",
            limits="The classes are planted by a program.",
        ),
    )


def trained(case: Case, cohort: Cohort, repository: Path) -> Bundle:
    """Return the bundle of a case; it is trained where the repository has none."""
    folder = repository / case.name / "1"
    if folder.is_dir():
        return read_bundle(folder)
    split = split_subjects(cohort.subjects, case.seed)
    recipe = Recipe(PHASES, seed=case.seed, notes={"signal": SIGNALS[case.kind].words})
    chosen = task(case, cohort.brains.shape[1:])
    network = recipe.train(
        chosen, Sampler(case, cohort.volumes(split.train)), lambda phase: lambda step, loss, right: None
    )
    images = held_out_images(case, cohort, split, draws=1)
    outcome = Outcome(network, evaluate(network, images, CLASSES, 2 * len(split.test)), {})
    brains = cohort.volumes(split.train)
    return write_bundle(
        folder,
        manifest := describe(chosen, cohort, split, recipe, outcome),
        network,
        mean_brain(brains, cohort.affine),
        cohort_prior(brains, outcome.trials),
        write_card(manifest, chosen.wording),
        onnx=False,
    )


def images_of(case: Case, cohort: Cohort, subjects: int) -> tuple[list[np.ndarray], list[int]]:
    """Return images as an auditor of the cohort has them, of held-out brains, and their classes."""
    split = split_subjects(cohort.subjects, case.seed)
    split = replace(split, test=split.test[:subjects])
    found = list(held_out_images(case, cohort, split, draws=1, stream=3))
    return [image for _, _, image in found], [label for _, label, _ in found]
