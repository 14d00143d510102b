"""An abstract concept with ground truth: whether the warp shows which region was planted to grow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.facts import interval
from benchmarks.study.networks import read
from benchmarks.study.warps import RECOMMENDED, WAYS, Maps, flat, keep, ladder, warps
from models import Bundle
from training.cohort import Cohort
from training.model_space import choose_subjects, model_images
from training.whole.growth import Region, planted_log_jacobian

Figures = dict[str, Any]
SIGNS = {"grown": 1, "unchanged": -1}
"""Which way the region should go in the picture of a class."""
TOP = 0.01
"""Share of the voxels of the head that must lie in the region."""
RESAMPLES = 2000
NETWORKS = ("growth", "growth, shuffled", "growth, untrained")


def study(cohort: Cohort) -> Figures:
    """Judge the network and its controls.

    Parameters
    ----------
    cohort : Cohort
        That the network was trained on; the pictures begin with people it has not seen.

    Returns
    -------
    dict
        `ladder` from the reference brain, `people` by network, and the bundles' facts.
    """
    own = read("growth")
    maps = ladder(own)
    keep("growth", {"planted": Truth(own).log_jacobian, **flat(maps)})
    found: Figures = {"ladder": _judged(own, maps), "people": {}, "accuracy": {}, "digests": {}}
    for name in NETWORKS:
        bundle = read(name)
        chosen = choose_subjects(bundle, cohort, "held-out").subjects
        begins = [torch.from_numpy(volume) for _, volume in model_images(bundle, cohort, chosen)]
        found["people"][name] = people(bundle, begins)
        found["accuracy"][name] = bundle.manifest.evaluation.accuracy.model_dump()
        found["digests"][name] = bundle.digest
    return found


def quick() -> Figures:
    """Judge the shipped network from the reference brain, in the recommended way."""
    own = read("growth")
    return {"ladder": _judged(own, ladder(own, {RECOMMENDED: WAYS[RECOMMENDED]}))}


class Truth:
    """What was planted, on the grid of a bundle.

    Parameters
    ----------
    bundle : Bundle
        Its manifest tells the planting.

    Attributes
    ----------
    head : numpy.ndarray of bool, (X, Y, Z)
        Where the training subjects have tissue.
    region : numpy.ndarray of bool, (X, Y, Z)
        Within the planted radius.
    log_jacobian : numpy.ndarray, (X, Y, Z)
        Of the middle of the planted range.
    """

    def __init__(self, bundle: Bundle) -> None:
        facts = bundle.manifest
        planting: Any = facts.training.recipe["planting"]
        place = planting["region"]
        region = Region(tuple(place["center"]), place["radius"], place["reach"])
        affine = np.array(facts.input.affine)
        self.growth = float(np.mean(planting["growth"]))
        self.head = bundle.prior().mask().numpy()
        self.log_jacobian = planted_log_jacobian(region, self.growth, facts.input.shape, affine)
        world = np.einsum("ij,jxyz->ixyz", affine[:3, :3], np.indices(facts.input.shape))
        world += (affine[:3, 3] - np.array(region.center))[:, None, None, None]
        self.distance = np.linalg.norm(world, axis=0)
        self.region = self.distance <= region.radius

    def judge(self, warp: np.ndarray, class_name: str) -> Figures:
        """Compare the log-Jacobian of a picture with the planted one.

        Parameters
        ----------
        warp : numpy.ndarray, (X, Y, Z)
            The picture's.
        class_name : str
            Whose picture.

        Returns
        -------
        dict
            `correlation` inside the head, with the sign that the class should have; `share` of the head's
            top 1 % voxels in that direction that lie in the region; `growth` of the region in per cent;
            `right_way`; `far_mm`, the distance of the strongest voxel from the region's centre.
        """
        sign = SIGNS[class_name]
        values = sign * warp[self.head]
        strongest = np.argsort(-values)[: max(1, round(TOP * values.size))]
        inside = float(warp[self.region & self.head].mean())
        return {
            "correlation": float(np.corrcoef(values, self.log_jacobian[self.head])[0, 1]),
            "share": float(self.region[self.head][strongest].mean()),
            "growth_percent": 100 * float(np.expm1(inside)),
            "right_way": bool(sign * inside > 0),
            "far_mm": float(self.distance[self.head][strongest[0]]),
        }


def _judged(bundle: Bundle, maps: Maps) -> Figures:
    truth = Truth(bundle)
    return {
        name: {label: truth.judge(warp, label) for label, warp in classes.items()}
        for name, classes in maps.items()
    }


def people(bundle: Bundle, begins: Sequence[Tensor]) -> Figures:
    """Judge the recommended way from some people's brains: each picture by itself, and their mean.

    Parameters
    ----------
    bundle : Bundle
        The network.
    begins : sequence of Tensor, (X, Y, Z)
        Held-out brains, model units.

    Returns
    -------
    dict
        By class: the figures of the `mean` warp, and of the single ones the mean with its 95 % interval (a
        percentile bootstrap over people).
    """
    truth = Truth(bundle)
    found: Figures = {}
    for label in SIGNS:
        each = warps(bundle, label, begins)
        single = [truth.judge(warp, label) for warp in each]
        found[label] = {
            "mean": truth.judge(each.mean(0), label),
            **{name: _over_people([one[name] for one in single]) for name in ("correlation", "share")},
            "right_way": sum(one["right_way"] for one in single),
            "people": len(single),
        }
    return found


def _over_people(values: Sequence[float]) -> Figures:
    rng = np.random.default_rng(0)
    drawn = np.mean(rng.choice(values, (RESAMPLES, len(values))), axis=1)
    return dict(interval(float(np.mean(values)), drawn))
