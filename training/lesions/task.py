"""What lesion-shapes is for, and what its card says."""

from __future__ import annotations

from training.lesions.shapes import CLASSES
from training.task import Task, Wording

LESIONS = Task(
    name="lesion-shapes",
    classes=CLASSES,
    architecture="lesion-net",
    hyperparameters={
        "classes": len(CLASSES),
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
        "Any statement about a person: no diagnosis, screening, triage or research on disease. It has never "
        "seen a real lesion, and its answer on one means nothing."
    ),
    wording=Wording(
        purpose="tells artificial lesions in skull-stripped T1-weighted brains apart",
        division=(
            "{train} subjects trained the network and {test} were held out; they were divided (seed {seed}) "
            "before any lesion was drawn, and nobody is in both parts. The lists are in `bundle.json`. The "
            "lesions are painted by a program: none is real."
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
