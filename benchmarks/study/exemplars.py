"""The best real images of a logit: whether they show the class, and whether they show where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from nibabel.affines import apply_affine

from benchmarks.study.networks import read
from models import layer_table
from training.cohort import Cohort
from training.exemplars import find_exemplars
from training.lesions.brains import Brains, paintable
from training.lesions.images import draw_images
from training.lesions.shapes import CLASSES, SHAPES

Figures = dict[str, Any]
TOP = 5


def study(name: str, cohort: Cohort) -> Figures:
    """Find the held-out images that drive each shape's logit most.

    Parameters
    ----------
    name : str
        The network, a key of `networks.PLACES`.
    cohort : Cohort
        That it was trained on. Every class is painted once into every held-out brain.

    Returns
    -------
    dict
        By shape: of how many of the `top` images it is the `right` class, `distance_mm` from the exemplar's
        centre to that of the painted lesion (median), and the lowest `activation` among them.
    """
    bundle = read(name)
    network, facts = bundle.network(), bundle.manifest
    brains = paintable(cohort, facts.training.subjects_test)
    layers = {
        layer.name: layer for layer in layer_table(network, facts.input.shape, facts.input.voxel_size_mm)
    }
    affine = np.array(facts.input.affine)
    truths: list[tuple[int, np.ndarray]] = []
    found = find_exemplars(
        network,
        layers[facts.classifier_layer],
        range(len(SHAPES)),
        _painted(brains, facts.training.subjects_test, affine, truths),
        affine,
        TOP,
    )
    return {
        shape: _judge(unit.exemplars, index, truths)
        for index, (shape, unit) in enumerate(zip(SHAPES, found, strict=True))
    }


def _painted(
    brains: Brains, subjects: tuple[str, ...], affine: np.ndarray, truths: list[tuple[int, np.ndarray]]
) -> Iterator[tuple[str, np.ndarray]]:
    """Paint; note the class of each image and where its lesion lies, mm."""
    for row, label, volume in draw_images(brains, draws=1, seed=7):
        change = np.abs(volume - brains.volumes[row].astype(np.float32))
        middle = np.argwhere(change > 0).mean(0) if change.any() else np.full(3, np.nan)
        truths.append((label, apply_affine(affine, middle)))
        yield f"{subjects[row]}, {CLASSES[label]}", volume


def _judge(exemplars: Any, label: int, truths: list[tuple[int, np.ndarray]]) -> Figures:
    right = [exemplar for exemplar in exemplars if truths[exemplar.image][0] == label]
    far = [float(np.linalg.norm(np.array(e.center_mm) - truths[e.image][1])) for e in right]
    return {
        "top": len(exemplars),
        "right": len(right),
        "distance_mm": float(np.median(far)) if far else None,
        "activation": min(exemplar.activation for exemplar in exemplars),
    }
