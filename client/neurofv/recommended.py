"""Choices that docs/study.md recommends."""

from typing import Any

# Pictures that show what a class looks like: smooth changes within the intensities of tissue, few of them,
# which set the class apart from the others. A matcher named the planted shape in them more often than in
# those of the defaults, which drive units harder.
PLAUSIBLE: dict[str, Any] = {
    "contrast": True,
    "parameterization": {"fourier": {"decay": 2.5}},
    "regularizers": {
        "total_variation": 1.1,
        "l1": 5.5,
        "intensity_clip": {"low": 0.25, "high": 1.0},
    },
    "transforms": {"rotation_degrees": 0.0, "scale": 0.0},
    "optimizer": {"adam": 0.05},
}
PLAUSIBLE_STEPS = 128
