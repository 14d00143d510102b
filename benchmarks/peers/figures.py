"""Quality figures of pictures, the same for every method, and real images to hold them against."""

import os
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import engine
from benchmarks.peers.pictures import EDGE, LAYERS, SHAPE, Subject
from engine import evaluation
from training.cohort import read_cohort
from training.lesions.brains import paintable
from training.lesions.crops import Augmentation, CropSampler

Figures = dict[str, float]
COHORT = Path(os.environ.get("NEUROFV_COHORT", "../shared/cohort"))


def judge(subject: Subject, layer: str, images: Tensor, best_real: dict[int, float]) -> list[Figures]:
    """Return the figures of every picture of a layer, in the order of `Subject.runs`.

    Parameters
    ----------
    subject : Subject
        The network.
    layer : str
        Of the pictures' units.
    images : Tensor, (runs, *SHAPE)
        Untransformed volumes, model units.
    best_real : dict of int to float
        The largest activation of each unit on real images.
    """
    magnitude = subject.bundle.prior().magnitude(SHAPE)
    rows = []
    count = len(images) // len(subject.units(layer))
    for run, image in zip(subject.runs(layer, count), images, strict=True):
        objective = subject.objective(layer, run.channel)
        term = objective.terms[0]
        clean = float(evaluation.readings(subject.network, objective, image[None, None])[0])
        moved = evaluation.held_out(subject.network, objective, image, subject.grid, subject.bounds)[0]
        row = {
            "channel": run.channel,
            "seed": run.seed,
            "activation": clean,
            "above_best_real": (clean - best_real[run.channel]) / term.spread,
            "held_out_mean": float(moved.mean()),
            "held_out_p5": float(moved.quantile(0.05)),
            "spectrum_distance": evaluation.spectrum_distance(image, magnitude, subject.grid),
            "total_variation": evaluation.total_variation(image, subject.grid),
            "saturated_share": evaluation.saturated_share(image, subject.bounds),
            "selectivity_rank": _rank(subject, layer, run.channel, image),
        }
        rows.append(row)
    for first in range(0, len(rows), count):
        agreed = [
            evaluation.agreement(images[a] - subject.reference, images[b] - subject.reference)[0]
            for a, b in combinations(range(first, first + count), 2)
        ]
        for row in rows[first : first + count]:
            # Of one seed there is nothing to agree with.
            row |= {"seed_agreement": float(np.mean(agreed))} if agreed else {}
    return rows


def real_images(
    subject: Subject, root: Path = COHORT, crops: int = 600
) -> dict[str, dict[int, dict[str, float]]]:
    """Return C0: what real crops, with and without lesions, of held-out subjects bring each unit to.

    Parameters
    ----------
    subject : Subject
        The network.
    root : Path
        The cohort, a BIDS derivative; of one without the network's held-out subjects all are taken.
    crops : int
        How many are drawn.

    Returns
    -------
    dict
        By layer and channel: `best`, `p99` and `p95` of the activation.
    """
    cohort = read_cohort(root)
    held_out = set(subject.bundle.manifest.training.subjects_test) & set(cohort.subjects)
    brains = paintable(cohort, tuple(sorted(held_out)) or cohort.subjects)
    plain = Augmentation(False, 0.0, (0.0, 0.0))
    images, _ = CropSampler(brains, seed=2026, augmentation=plain).batch(0, crops, EDGE)
    found: dict[str, dict[int, dict[str, float]]] = {}
    for layer in LAYERS.values():
        found[layer] = {}
        for channel in subject.units(layer):
            values = evaluation.readings(subject.network, subject.objective(layer, channel), images)[0]
            p95, p99 = (float(values.quantile(level)) for level in (0.95, 0.99))
            found[layer][channel] = {"best": float(values.max()), "p99": p99, "p95": p95}
    return found


def _rank(subject: Subject, layer: str, channel: int, image: Tensor) -> int:
    unit = subject.objective(layer, channel).terms[0].unit
    assert isinstance(unit, engine.Channel)
    said = evaluation.layer_readings(subject.network, unit, image)
    others = [subject.objective(layer, index).terms[0].real for index in range(len(said))]
    ends = np.array([np.interp([0.05, 0.95], levels, values) for levels, values in filter(None, others)])
    low, high = torch.from_numpy(ends.T).to(said)
    return evaluation.selectivity(said, low, high, channel)
