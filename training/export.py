"""From a trained network to a bundle."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from nibabel.affines import voxel_sizes
from torch import nn

from models import Bundle, write_bundle
from models.manifest import (
    Architecture,
    Evaluation,
    InputSpace,
    Interval,
    Manifest,
    Training,
)
from training.card import write_card
from training.cohort import INTENSITY_RANGE, NORMALIZATION, Cohort, Split
from training.evaluate import Trials
from training.recipe import Recipe
from training.statistics import cohort_prior, mean_brain
from training.task import Task


@dataclass(frozen=True)
class Outcome:
    """What training and evaluation produced.

    Attributes
    ----------
    network : torch.nn.Module
        Trained.
    trials : Trials
        Its answers on held-out brains.
    baselines : dict of Interval
        Accuracy of guesses from one number of the image.
    accuracy : Interval or None
        Accuracy, if it was measured otherwise than on `trials`, e.g. by cross-validation.
    per_class : dict of Interval
        Accuracy by class, measured as `accuracy` was.
    figures : dict of Interval
        Further figures by name.
    chance : float or None
        Accuracy of guessing, if it is not that of equally frequent classes.
    """

    network: nn.Module
    trials: Trials
    baselines: dict[str, Interval]
    accuracy: Interval | None = None
    per_class: dict[str, Interval] = field(default_factory=dict)
    figures: dict[str, Interval] = field(default_factory=dict)
    chance: float | None = None


def bundle_path(root: Path, task: Task) -> Path:
    """Folder of the bundle in a repository."""
    return root / task.name / str(task.version)


def describe(task: Task, cohort: Cohort, split: Split, recipe: Recipe, outcome: Outcome) -> Manifest:
    """Collect the facts of a model.

    Parameters
    ----------
    task : Task
        What it is for.
    cohort : Cohort
        The brains.
    split : Split
        Who trained and who was held out.
    recipe : Recipe
        How the network was fitted.
    outcome : Outcome
        What came out.

    Returns
    -------
    Manifest
        Complete but for `files`.
    """
    trials = outcome.trials
    return Manifest(
        name=task.name,
        version=task.version,
        architecture=Architecture(name=task.architecture, hyperparameters=task.hyperparameters),
        input=_input_space(cohort),
        classes=task.classes,
        classifier_layer="classifier",
        training=Training(
            data=_data(cohort),
            license=cohort.source.license or "not stated by the data set",
            subjects_train=split.train,
            subjects_test=split.test,
            seed=recipe.seed,
            software=_software(task.packages),
            recipe=recipe.facts(),
        ),
        evaluation=Evaluation(
            accuracy=outcome.accuracy or trials.accuracy(),
            baselines=outcome.baselines,
            chance=1 / len(task.classes) if outcome.chance is None else outcome.chance,
            per_class=outcome.per_class or trials.per_class(),
            logit_quantiles=trials.logit_quantiles(),
            figures=outcome.figures,
        ),
        license=task.license,
        intended_use=task.intended_use,
        not_for=task.not_for,
    )


def export(root: Path, task: Task, cohort: Cohort, split: Split, recipe: Recipe, outcome: Outcome) -> Bundle:
    """Write the bundle into a model repository.

    Parameters
    ----------
    root : Path
        Root of the repository; the bundle goes to `<root>/<name>/<version>`.
    task, cohort, split, recipe, outcome
        As in `describe`.

    Returns
    -------
    Bundle
        Read back and verified.

    Raises
    ------
    models.BundleInvalid
        If the bundle exists already.
    models.ExportFailed
        If the ONNX model disagrees with torch.
    """
    manifest = describe(task, cohort, split, recipe, outcome)
    brains = cohort.volumes(split.train)
    return write_bundle(
        bundle_path(root, task),
        manifest,
        outcome.network,
        mean_brain(brains, cohort.affine),
        cohort_prior(brains, outcome.trials),
        write_card(manifest, task.wording),
    )


def _input_space(cohort: Cohort) -> InputSpace:
    sizes: Any = tuple(round(float(size), 6) for size in voxel_sizes(cohort.affine))
    rows: Any = tuple(tuple(float(value) for value in row) for row in cohort.affine)
    return InputSpace(
        shape=cohort.brains.shape[1:],
        voxel_size_mm=sizes,
        affine=rows,
        orientation="".join(nibabel.aff2axcodes(cohort.affine)),
        space=cohort.space,
        normalization=NORMALIZATION,
        intensity_range=INTENSITY_RANGE,
    )


def _data(cohort: Cohort) -> str:
    source = cohort.source
    name = source.name or "A BIDS derivative without a name"
    parts = [f"{name}{f' ({source.doi})' if source.doi else ''}; {len(cohort.subjects)} subjects."]
    if source.acknowledgement:
        parts.append(f"Reference: {source.acknowledgement}")
    return " ".join(parts)


def _software(packages: tuple[str, ...]) -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "nibabel": nibabel.__version__,
        **{name: version(name) for name in packages},
    }
