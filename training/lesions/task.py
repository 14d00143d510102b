"""What lesion-shapes and its siblings with real masks are for, and what their cards say."""

from __future__ import annotations

from dataclasses import replace

from training.lesions.catalog import BUILT_IN, Catalog
from training.task import Task, Wording

_PAINTED = "lesions are painted by a program: none is real."
_NEVER_SEEN = "It has never seen a real lesion, and its answer on one means nothing."
# What must be said instead where the shape, and it alone, is that of real lesions.
_PAINTED_SHAPE = (
    "lesions are painted by a program. Those of {names} have the shape of real lesion masks, brought to the "
    "size and the mask values of all others and painted artificially; those of the other classes are "
    "invented."
)
_SHAPE_SEEN = (
    "Of real lesions it has seen the shape of masks alone ({names}), at one size, never the damaged tissue, "
    "and its answer on a patient's scan means nothing."
)
_SHARED_MASKS = (
    "Training and evaluation draw from the same masks of {names}: the figures say nothing about masks that "
    "the network never saw."
)

LESIONS = Task(
    name="lesion-shapes",
    classes=BUILT_IN.classes,
    architecture="lesion-net",
    hyperparameters={
        "classes": len(BUILT_IN.classes),
        "widths": [16, 32, 64, 64],
        "pooled_blocks": 2,
        # Averages spare input gradients the checkerboard of maxima, at no cost in accuracy.
        "pooling": "average",
    },
    intended_use=(
        "Testing, demonstrating and auditing feature visualization: what a unit should show is known here, "
        "because only the shape of the painted lesion tells the classes apart."
    ),
    not_for=(
        f"Any statement about a person: no diagnosis, screening, triage or research on disease. {_NEVER_SEEN}"
    ),
    wording=Wording(
        purpose="tells artificial lesions in skull-stripped T1-weighted brains apart",
        division=(
            "{train} subjects trained the network and {test} were held out; they were divided (seed {seed}) "
            "before any lesion was drawn, and nobody is in both parts. The lists are in `bundle.json`. The "
            f"{_PAINTED}"
        ),
        evaluation=(
            "Whole volumes of held-out subjects. Accuracy with its {level} interval ({method}); chance is "
            "{chance}. A baseline guesses the class from one number of the image and should stay at chance: "
            "it shows that nothing but shape informs."
        ),
        limits=(
            "The held-out subjects come from the same data set as the others. Nothing is known about other "
            "scanners, ages or pathologies, or about lesions of other sizes, intensities or orientations."
        ),
    ),
)


def lesion_task(catalog: Catalog) -> Task:
    """Return the task of a catalog: `LESIONS`, or its sibling whose further classes are real masks.

    Parameters
    ----------
    catalog : Catalog
        The classes.

    Returns
    -------
    Task
        Named after `LESIONS` and the folders. Its wording claims of real masks no more than their shape.
    """
    if not catalog.folders:
        return LESIONS
    names = ", ".join(folder.name for folder in catalog.folders)
    wording = LESIONS.wording
    return replace(
        LESIONS,
        name="-".join([LESIONS.name, *(folder.name for folder in catalog.folders)]),
        classes=catalog.classes,
        hyperparameters={**LESIONS.hyperparameters, "classes": len(catalog.classes)},
        not_for=LESIONS.not_for.replace(_NEVER_SEEN, _SHAPE_SEEN.format(names=names)),
        wording=replace(
            wording,
            division=wording.division.replace(_PAINTED, _PAINTED_SHAPE.format(names=names)),
            limits=f"{wording.limits} {_SHARED_MASKS.format(names=names)}",
        ),
    )
