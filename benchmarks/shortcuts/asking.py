"""What each method says of one network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.shortcuts.cohorts import Case, coarse, images_of, trained
from benchmarks.shortcuts.maps import grad_cam, pictures, smooth_grad
from benchmarks.shortcuts.reading import map_figures
from models import Bundle
from neurofv.audit.shortcuts import head_mask, measure_effects
from training.cohort import Cohort, normalize, read_cohort

SUBJECTS = 7
"""Held-out brains that an audit sees, each as an image of either class: `neurofv audit run` takes as many."""
MAPPED = 3
"""Of these, brains that attribution maps are averaged over."""
Row = dict[str, Any]


def answers(bundle: Bundle) -> Callable[[np.ndarray], np.ndarray]:
    """Return a bundle's network as an audit asks it: an image in, logits out, normalized as there."""
    network = bundle.network()

    @torch.no_grad()
    def logits(image: np.ndarray) -> np.ndarray:
        volume = torch.from_numpy(normalize(image.astype(np.float32)))
        return np.asarray(network(volume[None, None])[0])

    return logits


def kept(file: Path, make: Callable[[], Row]) -> Row:
    """Return what a file holds; it is made where there is none."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_suffix(".tmp")
        scratch.write_text(json.dumps(make(), indent=1))
        scratch.rename(file)
    found: Row = json.loads(file.read_text())
    return found


def probed(case: Case, cohort: Cohort, folder: Path) -> Row:
    """Train a case's network if need be, and measure how nuisances move its answers."""
    bundle = trained(case, cohort, folder / "models")

    def make() -> Row:
        images, labels = images_of(case, cohort, SUBJECTS)
        logits = answers(bundle)
        right = [int(logits(image).argmax()) == label for image, label in zip(images, labels, strict=True)]
        effects = measure_effects(logits, images, cohort.affine, head_mask(images))
        return {
            "kind": case.kind,
            "seed": case.seed,
            "accuracy": bundle.manifest.evaluation.accuracy.estimate,
            "accuracy_on_the_audits_images": float(np.mean(right)),
            "effects": [asdict(each) for each in effects],
        }

    return kept(folder / "probes" / f"{case.name}.json", make)


def mapped(case: Case, cohort: Cohort, folder: Path) -> Row:
    """Measure a case's pictures and attribution maps in the way that all maps are read."""
    bundle = trained(case, cohort, folder / "models")

    def make() -> Row:
        images, _ = images_of(case, cohort, MAPPED)
        network, mask = bundle.network(), bundle.prior().mask().numpy()
        volumes = [torch.from_numpy(normalize(image))[None, None] for image in images]
        found = {
            "pictures": pictures(bundle),
            "SmoothGrad": smooth_grad(network, volumes),
            "Grad-CAM": grad_cam(network, volumes),
        }
        return {
            "kind": case.kind,
            "seed": case.seed,
            "figures": {name: map_figures(maps, cohort.affine, mask) for name, maps in found.items()},
        }

    return kept(folder / "maps" / f"{case.name}.json", make)


@cache
def _coarse(root: Path) -> Cohort:
    return coarse(read_cohort(root))


def asked(root: Path, folder: Path, case: Case) -> tuple[Row, Row]:
    """Return what nuisances and maps say of a case's network, which is trained if need be."""
    cohort = _coarse(root)
    return probed(case, cohort, folder), mapped(case, cohort, folder)
