"""An audit's folder as `neurofv audit run` leaves it, of invented pictures."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image

AFFINE = np.array([[-4.0, 0, 0, 78], [0, 4, 0, -110], [0, 0, 4, -70], [0, 0, 0, 1]])
SHAPE = (40, 48, 40)
EXEMPLAR_SIZE = (600, 228)
CARD = """\
# a-model, version 1

Tells *shapes* apart. <script>alert(1)</script>

![logo](https://example.org/a.png)
"""


def make_folder(
    folder: Path,
    units: int = 3,
    shape: tuple[int, int, int] = SHAPE,
    affine: np.ndarray = AFFINE,
    exemplars: int = 2,
    strategies: tuple[str, ...] = ("default",),
    **changes: Any,
) -> Path:
    """Write `report.json`, volumes and exemplars; `changes` replace parts of the report."""
    brain = a_brain(shape)
    made = [_unit(folder, index, brain, affine, exemplars, strategies) for index in range(units)]
    report = {**_report(made, shape, affine), **changes}
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def a_brain(shape: tuple[int, int, int]) -> np.ndarray:
    """An ellipsoid with a bright rim."""
    places = np.stack(np.meshgrid(*(np.linspace(-1.25, 1.25, size) for size in shape), indexing="ij"))
    radius = np.sqrt((places**2).sum(axis=0))
    return np.where(radius < 1, 0.35 + 0.4 * radius**2, 0).astype(np.float32)


def change_at(shape: tuple[int, int, int], index: int) -> tuple[int, int, int]:
    """Where the pictures of a unit differ: right of the middle, unit by unit further to the front."""
    return shape[0] // 3, shape[1] // 3 + 8 * (index % 3), shape[2] // 2


def write_volume(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> str:
    """Write a volume and return its SHA-256."""
    image = nibabel.Nifti1Image(data.astype(np.float32), affine)
    image.header["cal_min"], image.header["cal_max"] = 0.0, 1.0
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(image.to_bytes(), 1, mtime=0))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _unit(
    folder: Path,
    index: int,
    brain: np.ndarray,
    affine: np.ndarray,
    exemplars: int,
    strategies: tuple[str, ...],
) -> dict[str, Any]:
    channel = index % 2 == 1
    name = f"blocks.1.conv:{index}" if channel else f"class-{index}"
    made = [
        _picture(folder, index, brain, affine, strategy, seed, control)
        for strategy in strategies
        for control in ("none", "random_weights")
        for seed in (0, 1)
    ]
    return {
        "id": f"unit-{index}",
        "name": name,
        "kind": "channel" if channel else "class",
        "layer": "blocks.1.conv" if channel else "classifier",
        "channel": index,
        "class_name": None if channel else name,
        "pictures": made,
        "seed_agreement": {strategy: {"median": 0.61, "pairs": 1} for strategy in strategies},
        "control": {strategy: {"seed_agreement": 0.2, "own_vs_random": 0.05} for strategy in strategies},
        "exemplars": [_exemplar(folder, index, number) for number in range(exemplars)],
        "verdicts": [
            {"id": "percentile", "level": "good", "words": "Fires harder than on every real image."},
            {"id": "seed_agreement", "level": "warning", "words": f"Seeds of {name} agree at 0.61 only."},
        ],
    }


def _picture(
    folder: Path, index: int, brain: np.ndarray, affine: np.ndarray, strategy: str, seed: int, control: str
) -> dict[str, Any]:
    rng = np.random.default_rng((index, seed, len(strategy), len(control)))
    i, j, k = change_at(brain.shape, index)
    data = brain.copy()
    # As an optimizer does: texture all around, and one thing that stands out.
    box = tuple(slice(size // 4, 3 * size // 4) for size in brain.shape)
    data[box] += 0.06 * rng.standard_normal(data[box].shape)
    data[i - 2 : i + 3, j - 2 : j + 3, k - 2 : k + 3] = 1.0 if seed == 0 else 0.0
    volume = f"derivatives/{strategy}_{control}_unit-{index}_seed-{seed}_fv.nii.gz"
    sha256 = write_volume(folder / volume, np.clip(data, 0, 1), affine)
    evaluation = {
        "percentile": 1.0,
        "activation": 12.5 - seed,
        "real_p95": 7.0,
        "ratio_to_best": 1.25,
        "selectivity_rank": 1,
        "layer_units": 16,
        "held_out_mean": 9.0,
        "held_out_p5": 4.0,
        "spectrum_distance": 0.5,
        "saturated_share": None,
        "total_variation": 0.01,
    }
    facts = {"strategy": strategy, "seed": seed, "control": control, "volume": volume, "sha256": sha256}
    return {**facts, "sidecar": volume.replace(".nii.gz", ".json"), "evaluation": evaluation}


def _exemplar(folder: Path, index: int, number: int) -> dict[str, Any]:
    name = f"exemplars/{index}-{number}.png"
    (folder / "exemplars").mkdir(exist_ok=True)
    # As large and as rough as what an audit draws of a brain: about 6 kB in the page.
    noise = np.random.default_rng((index, number)).integers(0, 255, (15, 40), np.uint8)
    Image.fromarray(noise).resize(EXEMPLAR_SIZE, Image.Resampling.BICUBIC).save(folder / name)
    place = [10.0, -20.0, 5.0]
    return {"image": f"sub-0{number}", "activation": 6.5 - number, "position_mm": place, "picture": name}


def _report(units: list[dict[str, Any]], shape: tuple[int, int, int], affine: np.ndarray) -> dict[str, Any]:
    size = [abs(float(affine[axis, axis])) for axis in range(3)]
    layer = {"name": "blocks.1.conv", "type": "Conv3d", "channels": 16, "output_shape": [20, 24, 20]}
    last = {"name": "classifier", "type": "Linear", "channels": 3, "output_shape": []}
    return {
        "report": 1,
        "neurofv": "0.1.0",
        "plan": {
            "audit": 1,
            "model": "a-model",
            "units": [{"classes": "all"}],
            "strategies": {"default": {}, "contrast": {"contrast": True}},
            "seeds": [0, 1],
            "controls": {"random_weights": True, "real_images": True},
        },
        "plan_sha256": "ab" * 32,
        "model": {
            "name": "a-model",
            "version": 1,
            "digest": "cd" * 32,
            "classes": ["class-0", "class-2"],
            "classifier_layer": "classifier",
            "input": {
                "shape": list(shape),
                "voxel_size_mm": size,
                "affine": affine.ravel().tolist(),
                "orientation": "LAS",
                "space": "MNI152NLin6Asym",
            },
            "license": "CC0-1.0",
            "card": CARD,
            "layers": [
                {**layer, "receptive_field_mm": [12.0, 12.0, 12.0], "whole_input": False},
                {**last, "receptive_field_mm": [], "whole_input": True},
            ],
        },
        "units": units,
        "shortcuts": {
            "tested": ["corner marker", "ringing"],
            "found": [
                {
                    "kind": "corner marker",
                    "words": "A bright corner moves class-0 by 4.1.",
                    "effect": 4.1,
                    "control": 0.3,
                    "evidence": {"images": 12},
                }
            ],
        },
        "thresholds": [
            {"id": "seed_agreement", "limit": 0.5, "value": 0.61, "passed": True},
            {"id": "shortcuts", "limit": 0, "value": 1, "passed": False},
        ],
        "failed": [
            {
                "unit": "unit-1",
                "strategy": "default",
                "seed": 1,
                "control": "random_weights",
                "reason": "DEAD_UNIT",
                "words": "The unit had no gradient.",
            }
        ],
        "summary": ["Three units were visualized.", "One kind of shortcut was found."],
        "passed": False,
    }
