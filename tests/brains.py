"""Brains for tests on machines without the real cohort: nilearn's MNI152 template, varied smoothly."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

SHAPE = (91, 109, 91)
AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])


def _smooth_field(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Unit-variance random field, drawn coarsely because it is smooth anyway."""
    coarse = ndimage.gaussian_filter(rng.standard_normal(tuple(n // 4 + 2 for n in SHAPE)), sigma / 4)
    zoom = [n / m for n, m in zip(SHAPE, coarse.shape, strict=True)]
    field = ndimage.zoom(coarse, zoom, order=1)
    return field / field.std()


def _template() -> tuple[np.ndarray, np.ndarray]:
    # Takes seconds to load, in every process that collects tests.
    from nilearn import datasets, image

    grid = {"target_affine": AFFINE, "target_shape": SHAPE, "force_resample": True, "copy_header": True}
    brain = image.resample_img(datasets.load_mni152_template(resolution=2), **grid)
    mask = image.resample_img(datasets.load_mni152_brain_mask(resolution=2), interpolation="nearest", **grid)
    # An average brain is brighter and flatter than a scan; squared, its quantiles are those of real ones.
    return np.asarray(brain.get_fdata(), np.float32).clip(0) ** 2, np.asarray(mask.get_fdata()) > 0.5


def _vary(brain: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Warp by about 1 voxel, change intensity by about 4 %, add texture; uint8 with 0 outside the brain."""
    places = np.indices(SHAPE, dtype=np.float32) + np.stack([_smooth_field(rng, 12) for _ in range(3)])
    warped = ndimage.map_coordinates(brain, places, order=1)
    inside = ndimage.map_coordinates(mask.astype(np.float32), places, order=1) > 0.5
    texture = ndimage.gaussian_filter(rng.standard_normal(SHAPE, np.float32), 0.7)
    warped *= 1 + 0.04 * _smooth_field(rng, 16) + 0.03 * texture / texture.std()
    scaled = 240 * warped / np.quantile(warped[inside], 0.995)
    return np.where(inside, np.clip(scaled, 1, 255), 0).astype(np.uint8)


def make_cohort(root: Path, subjects: int = 8, seed: int = 0) -> Path:
    """Write a BIDS derivative of invented brains.

    Parameters
    ----------
    root : Path
        An empty directory.
    subjects : int
        How many brains.
    seed : int
        The same seed writes the same brains.

    Returns
    -------
    Path
        `root`.
    """
    brain, mask = _template()
    names = [f"sub-{number:02d}" for number in range(1, subjects + 1)]
    for number, name in enumerate(names):
        data = _vary(brain, mask, np.random.default_rng((seed, number)))
        write_scan(root, name, data)
    write_tables(root, names)
    return root


def write_tables(root: Path, names: list[str]) -> None:
    (root / "participants.tsv").write_text("participant_id\n" + "".join(f"{name}\n" for name in names))
    facts = {"Name": "Varied MNI152 templates", "BIDSVersion": "1.10.0", "DatasetType": "derivative"}
    (root / "dataset_description.json").write_text(json.dumps(facts))


def write_scan(root: Path, name: str, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Write one scan where `training.cohort` looks for it."""
    folder = root / name / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_space-MNI152NLin6Asym_res-2_desc-affinebrain_T1w.nii.gz"
    nibabel.Nifti1Image(data, affine).to_filename(path)
    return path
