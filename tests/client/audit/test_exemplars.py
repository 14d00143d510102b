"""Real images as the page shows them."""

from __future__ import annotations

import io
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from neurofv.audit.exemplars import Exemplar, draw_exemplars
from neurofv.audit.images import RealImage

# Of a scan with thick slices, whose first axis runs left: mm 100 x 120 x 80.
SHAPE, SIZES = (100, 120, 16), (1.0, 1.0, 5.0)
RIGHT = (10, 60, 8)


def drawn(folder: Path, position: tuple[float, float, float] | None) -> np.ndarray:
    data = np.full(SHAPE, 0.3, np.float32)
    # Something darker, so that grey is not black; and not empty, which would be cut away.
    data[-10:] = 0.05
    i, j, k = RIGHT
    data[i - 8 : i + 9, j - 8 : j + 9, k - 2 : k + 3] = 1.0
    affine = np.diag([-SIZES[0], SIZES[1], SIZES[2], 1.0])
    affine[:3, 3] = (50, -60, -40)
    path = folder / "sub-01_T1w.nii.gz"
    nibabel.save(nibabel.Nifti1Image(data[..., None], affine), path)
    image = RealImage(path.name, path, "", "")
    (told,) = draw_exemplars(folder, {"u": [Exemplar(image, 1.0, position)]})["u"]
    return np.asarray(Image.open(io.BytesIO((folder / told["picture"]).read_bytes())).convert("L"), int)


def test_voxels_keep_their_shape_and_the_left_is_on_the_left(tmp_path: Path) -> None:
    pixels = drawn(tmp_path, (40.0, 0.0, 0.0))
    height, width = pixels.shape
    scale = width / (120 + 100 + 100)
    assert width >= 480
    # The axial view is the highest, and the others are as high as the scan is, in mm.
    assert height == pytest.approx(120 * scale, abs=1)
    middle = pixels[:, : round(120 * scale)]
    grey = np.flatnonzero((middle > 40).mean(axis=1) > 0.5)
    assert len(grey) == pytest.approx(80 * scale, abs=2)
    # What is right of the middle is in the right half of coronal and axial view.
    for start in (120, 220):
        view = pixels[:, round(start * scale) : round((start + 100) * scale)]
        bright = np.flatnonzero((view[round(0.3 * height) :] > 240).sum(axis=0) >= 5)
        assert np.median(bright) == pytest.approx(90 * scale, abs=3 * scale)


def test_without_a_place_there_are_no_lines_yet_the_sides_are_named(tmp_path: Path) -> None:
    with_place = drawn(tmp_path, (40.0, 0.0, 0.0))
    without = drawn(tmp_path, None)
    height, width = without.shape
    # Far from the bright box and the letters nothing breaks the grey.
    sagittal = without[height // 2 - 30 : height // 2 + 30, 20:200]
    assert np.ptp(sagittal) <= 2
    assert np.ptp(with_place[height // 2 - 30 : height // 2 + 30, 20:200]) > 20
    letters = without[: height // 8, round(width * 220 / 320) :]
    assert np.ptp(letters) > 60


def test_of_a_person_who_was_taken_out_nothing_stays(tmp_path: Path) -> None:
    exemplars = tmp_path / "exemplars"
    exemplars.mkdir()
    for name in ("u-2.png", "other-1.png", "Notes.png", "u-1.txt"):
        (exemplars / name).touch()
    drawn(tmp_path, None)
    assert {path.name for path in exemplars.iterdir()} == {"u-1.png", "Notes.png", "u-1.txt"}
    draw_exemplars(tmp_path, {"u": []})
    assert {path.name for path in exemplars.iterdir()} == {"Notes.png", "u-1.txt"}
