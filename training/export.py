"""From a trained network to a bundle."""

from __future__ import annotations

import platform
from dataclasses import dataclass
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
from training.lesions.recipe import ARCHITECTURE, HYPERPARAMETERS, Recipe
from training.lesions.shapes import CLASSES
from training.statistics import cohort_prior, mean_brain

NAME, VERSION = "lesion-shapes", 1
LICENSE = "CC0-1.0"
INTENDED_USE = (
    "Testing, demonstrating and auditing feature visualization: what a unit should show is known here, "
    "because only the shape of the painted lesion tells the classes apart."
)
NOT_FOR = (
    "Any statement about a person: no diagnosis, screening, triage or research on disease. It has never seen "
    "a real lesion, and its answer on one means nothing."
)


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
        Accuracy of what must not inform.
    """

    network: nn.Module
    trials: Trials
    baselines: dict[str, Interval]


def bundle_path(root: Path, name: str) -> Path:
    """Folder of a bundle in a repository."""
    return root / name / str(VERSION)


def describe(name: str, cohort: Cohort, split: Split, recipe: Recipe, outcome: Outcome) -> Manifest:
    """Collect the facts of a model.

    Parameters
    ----------
    name : str
        Of the bundle.
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
        name=name,
        version=VERSION,
        architecture=Architecture(name=ARCHITECTURE, hyperparameters=HYPERPARAMETERS),
        input=_input_space(cohort),
        classes=CLASSES,
        classifier_layer="classifier",
        training=Training(
            data=_data(cohort),
            license=cohort.source.license or "not stated by the data set",
            subjects_train=split.train,
            subjects_test=split.test,
            seed=recipe.seed,
            software=_software(),
            recipe=recipe.facts(),
        ),
        evaluation=Evaluation(
            accuracy=trials.accuracy(),
            baselines=outcome.baselines,
            chance=1 / len(CLASSES),
            per_class=trials.per_class(),
            logit_quantiles=trials.logit_quantiles(),
        ),
        license=LICENSE,
        intended_use=INTENDED_USE,
        not_for=NOT_FOR,
    )


def export(root: Path, name: str, cohort: Cohort, split: Split, recipe: Recipe, outcome: Outcome) -> Bundle:
    """Write the bundle into a model repository.

    Parameters
    ----------
    root : Path
        Root of the repository; the bundle goes to `<root>/<name>/1`.
    name, cohort, split, recipe, outcome
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
    manifest = describe(name, cohort, split, recipe, outcome)
    brains = cohort.brains[[cohort.subjects.index(subject) for subject in split.train]]
    return write_bundle(
        bundle_path(root, name),
        manifest,
        outcome.network,
        mean_brain(brains, cohort.affine),
        cohort_prior(brains, outcome.trials),
        write_card(manifest),
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


def _software() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "nibabel": nibabel.__version__,
    }
