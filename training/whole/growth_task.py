"""What a network of planted growth is for, and what its card says."""

from __future__ import annotations

from pydantic import JsonValue

from training.cohort import Cohort
from training.task import Task, Wording
from training.whole.plants import CLASSES, Planting

WIDTHS, POOLED = (16, 32, 32), 2


def growth_task(name: str, planting: Planting, small: Cohort, control: str) -> Task:
    """Say what such a bundle is for, and what not.

    Parameters
    ----------
    name : str
        The bundle's.
    planting : Planting
        What grows.
    small : Cohort
        Brains as the network reads them: the classifier's size follows from their shape.
    control : str
        What makes it a control, e.g. "shuffled labels"; empty if it is none.

    Returns
    -------
    Task
        For `training.export`.
    """
    return Task(
        name=name,
        classes=CLASSES,
        architecture="volume-net",
        hyperparameters=_hyperparameters(small),
        intended_use=(
            "Testing, demonstrating and auditing feature visualization: what the picture of a logit should "
            "show, and where, is known here as a map of log-Jacobians."
            if not control
            else "The control beside the trained network: its pictures should show nothing."
        ),
        not_for=(
            "Any statement about a person: no diagnosis, screening, triage or research on disease. The "
            "growth is planted by a program, and the answer on a brain as scanned means nothing."
        ),
        wording=_wording(planting, control),
        packages=("monai",),
    )


def _wording(planting: Planting, control: str) -> Wording:
    region = planting.region
    place = f"the sphere of {region.radius:g} mm around {region.center} mm"
    low, high = (f"{100 * value:g}" for value in planting.growth)
    return Wording(
        purpose=(
            f"is a control with {control}: it cannot know of the planted growth"
            if control
            else f"tells whether {place} was made {low} to {high} % larger in volume"
        ),
        division=(
            "{train} subjects trained the network and {test} were held out (seed {seed}), before anything "
            "was planted. The lists are in `bundle.json`. Any brain may belong to either class: plants are "
            f"drawn anew for every image. {place[0].upper()}{place[1:]} grows, its surroundings give way "
            f"up to {region.reach:g} mm, and nothing moves beyond, so that head size stays. In every image "
            f"{planting.decoys} other places near the region or near its mirror image grow or shrink as "
            "much, whatever the class."
        ),
        evaluation=(
            "Planted images of held-out subjects. Accuracy with its {level} interval ({method}); chance is "
            "{chance}. The baseline guesses from the sum of all voxels and should stay near "
            "chance."
        ),
        limits=(
            "Real brains differ in this region by about as much as is planted, so that no network can be "
            "right on every one. The held-out subjects come from the same data set as the others; nothing "
            "is known about growth of other regions, amounts or shapes."
        ),
    )


def _hyperparameters(small: Cohort) -> dict[str, JsonValue]:
    """Size the classifier to what the blocks leave of the window."""
    positions: list[JsonValue] = [length // 2**POOLED for length in small.brains.shape[1:]]
    return {
        "classes": len(CLASSES),
        "widths": list(WIDTHS),
        "pooled_blocks": POOLED,
        "positions": positions,
    }
