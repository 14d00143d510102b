"""Concept recovery: whether the picture of a class shows the shape that makes the class."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy import stats

import engine
from benchmarks.study import matcher
from benchmarks.study.matcher import Match, match
from benchmarks.study.networks import KEPT, Network
from benchmarks.study.parallel import mapped
from benchmarks.study.strategies import LADDER, Made
from engine import evaluation
from training.lesions.shapes import MASS, SHAPES

Row = dict[str, Any]
Task = tuple[str, str, str, int]
"""Network, strategy, shape and seed of a picture."""
CHANCE = 1 / len(SHAPES)


def tasks(networks: Iterable[str], strategies: Iterable[str], seeds: Sequence[int]) -> list[Task]:
    """Return every picture of some networks, strategies and seeds."""
    strategies = list(strategies)
    return [(n, s, shape, seed) for n in networks for s in strategies for seed in seeds for shape in SHAPES]


def recover(wanted: Sequence[Task]) -> list[Row]:
    """Draw pictures and judge them, on all cores; what was judged before, by the same bundle, is kept.

    Parameters
    ----------
    wanted : sequence of Task
        Which pictures; a task that is named twice is done once.

    Returns
    -------
    list of dict
        One for each task, in their order: see `judge`.
    """
    KEPT.mkdir(exist_ok=True)
    unique = list(dict.fromkeys(wanted))
    rows = {task: row for task in unique if (row := _kept(task)) is not None}
    missing = [task for task in unique if task not in rows]
    rows |= dict(zip(missing, mapped(judge, missing, "pictures"), strict=True))
    return [rows[task] for task in unique]


def judge(task: Task) -> Row:
    """Draw one picture and name the shape in it.

    Parameters
    ----------
    task : Task
        Which picture.

    Returns
    -------
    dict
        The task's parts, and of the final picture: `named`; `ncc` with the template of the true shape, and
        `ncc_unsmoothed` without the matcher's smoothing; `contrast`, `size_error_mm`, `activation`, and
        `times_real`, the activation as a multiple of the 95th percentile of real images of the class. Under
        `equal` the same of the first look at the forming picture that reaches that percentile, or None.
    """
    name, strategy, shape, seed = task
    network = _network(name)
    made = LADDER[strategy].make(network, shape, seed)
    if seed == 0:
        torch.save(made.final, KEPT / f"{picture_name(name, strategy, shape)}.pt")
    row: Row = {"network": name, "strategy": strategy, "shape": shape, "seed": seed}
    row |= {**_figures(network, shape, made, made.final), "equal": _equal(network, shape, made)}
    _row_file(task).write_text(json.dumps(row))
    return row


def picture_name(network: str, strategy: str, shape: str) -> str:
    """Return the name of a kept picture's file, without its ending."""
    words = f"{network} {strategy} {shape}"
    return "".join(letter if letter.isalnum() else "-" for letter in words)


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Return accuracy with its interval and the medians of the other figures.

    The interval is Wilson's (1927), 95 %; each picture counts as one trial.
    """
    right = sum(row["named"] == row["shape"] for row in rows)
    interval = stats.binomtest(right, len(rows)).proportion_ci(method="wilson")
    return {
        "pictures": len(rows),
        "right": right,
        "accuracy": right / len(rows),
        "interval": [float(interval.low), float(interval.high)],
        "ncc": median(row["ncc"] for row in rows),
        "ncc_unsmoothed": median(row["ncc_unsmoothed"] for row in rows),
        "size_error_mm": median(abs(row["size_error_mm"]) for row in rows),
        "bright": float(np.mean([row["contrast"] == 1 for row in rows])),
        "times_real": median(row["times_real"] for row in rows),
    }


def _row_file(task: Task) -> Path:
    """Where a row is kept: other weights, another strategy or another matcher have files of their own."""
    name, strategy, shape, seed = task
    decides = f"{_network(name).bundle.digest} {LADDER[strategy]} {inspect.getsource(matcher)}"
    key = hashlib.sha256(decides.encode()).hexdigest()[:12]
    return KEPT / f"{picture_name(name, strategy, shape)}-{seed}-{key}.json"


def _kept(task: Task) -> Row | None:
    path = _row_file(task)
    return json.loads(path.read_text()) if path.exists() else None


@cache
def _network(name: str) -> Network:
    return Network(name)


def _equal(network: Network, shape: str, made: Made) -> Row | None:
    level = network.real_logit(shape)
    for image in made.forming:
        if _activation(network, shape, image) >= level:
            return _figures(network, shape, made, image)
    return None


def _figures(network: Network, shape: str, made: Made, image: torch.Tensor) -> Row:
    start = made.start.numpy() if isinstance(made.start, torch.Tensor) else made.start
    found: Match = match(image.numpy(), start)
    sharp = match(image.numpy(), start, fwhm=0.0)
    activation = _activation(network, shape, image)
    # A template's size is that of a ball of the same volume.
    diameter = (6 * MASS / np.pi) ** (1 / 3) * float(np.mean(network.grid.voxel_size))
    return {
        "named": found.shape,
        "ncc": round(found.by_shape[shape], 4),
        "ncc_unsmoothed": round(sharp.by_shape[shape], 4),
        "contrast": found.contrast,
        "size_error_mm": round((found.size - 1) * diameter, 2),
        "activation": round(activation, 3),
        "times_real": round(activation / network.real_logit(shape), 3),
    }


def _activation(network: Network, shape: str, image: torch.Tensor) -> float:
    objective = engine.Objective((network.logit(shape),))
    return float(evaluation.readings(network.module, objective, image[None, None])[0])
