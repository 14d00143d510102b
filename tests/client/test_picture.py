from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from matplotlib import image as bitmap

from neurofv import Visualization
from neurofv.events import Collector
from neurofv.picture import contact_sheet, picture, strongest_point
from tests.client.streams import AFFINE, SHAPE, a_stream, some_volume

BLOCK_MIDDLE = nibabel.affines.apply_affine(AFFINE, (5.5, 15.5, 6.5))


def a_result(volume: np.ndarray, **extras: np.ndarray) -> Visualization:
    collector = Collector()
    for response in a_stream(volume, extras=extras):
        collector.take(response)
    return collector.result()


def on_brain(result: Visualization) -> Visualization:
    result.request.start.reference_brain.deviation = 0.01
    return result


def test_the_strongest_point_of_a_run_from_noise_is_its_block() -> None:
    point = strongest_point(a_result(some_volume()))
    assert np.linalg.norm(point - BLOCK_MIDDLE) <= 4


def test_the_rim_that_fades_into_the_black_around_a_brain_does_not_count() -> None:
    volume = np.full(SHAPE, 0.0)
    volume[4:16, 6:18, 4:14] = (
        0.55  # the canvas without its rim of two voxels, which is black like what is around
    )
    volume[8:11, 10:13, 7:10] = 0.75  # what the optimizer made, fainter than the rim
    result = a_result(volume)
    canvas = result.request.canvas
    canvas.size_mm.i, canvas.size_mm.j, canvas.size_mm.k = 32, 32, 28
    center = canvas.center_mm
    center.x, center.y, center.z = nibabel.affines.apply_affine(AFFINE, (9.5, 11.5, 8.5))
    made = nibabel.affines.apply_affine(AFFINE, (9, 11, 8))
    assert np.linalg.norm(strongest_point(result) - made) <= 4


def test_the_strongest_point_of_a_run_from_the_brain_is_where_it_differs() -> None:
    brain = np.zeros(SHAPE)
    brain[3:14, 9:20, 3:12] = np.linspace(0.2, 1.0, 11)[:, None, None]
    volume = brain.copy()
    volume[4:8, 14:18, 5:9] = 1.1
    # The reference comes on its own, wider grid.
    background = nibabel.Nifti1Image(np.pad(brain, 2).astype(np.float32), AFFINE @ _shift(-2))
    point = strongest_point(on_brain(a_result(volume)), background)
    assert np.linalg.norm(point - BLOCK_MIDDLE) <= 4


def test_without_the_reference_edges_tell_where_the_point_is() -> None:
    ramp = np.broadcast_to(np.linspace(0.2, 0.8, SHAPE[0])[:, None, None], SHAPE).copy()
    ramp[4:8, 14:18, 5:9] = 1.1
    point = strongest_point(on_brain(a_result(ramp)))
    assert np.linalg.norm(point - BLOCK_MIDDLE) <= 5


def test_what_lies_outside_the_canvas_does_not_count() -> None:
    volume = some_volume()
    volume[16:20, 0:4, 14:18] = 0
    volume[17:20, 20:24, :] = 1.1
    assert np.linalg.norm(strongest_point(a_result(volume)) - BLOCK_MIDDLE) <= 4


@pytest.mark.parametrize("whole_grid", [False, True])
def test_a_picture_shows_the_block_bright_on_black(whole_grid: bool, tmp_path: Path) -> None:
    result = a_result(some_volume())
    if whole_grid:
        size = result.request.canvas.size_mm
        size.i, size.j, size.k = (2 * count for count in SHAPE)
    path = picture(result, tmp_path / "cube.png")
    pixels = bitmap.imread(path)[..., :3]
    assert (pixels[0] == 0).all()
    grey = np.isclose(pixels, 0.5, atol=0.03).all(axis=-1)
    white = (pixels == 1).all(axis=-1)
    assert grey.mean() > 0.05
    # The block fills a fair part of the close-ups.
    assert white.mean() > 0.005


def test_a_contact_sheet_grows_with_its_rows(tmp_path: Path) -> None:
    results = [a_result(some_volume(seed)) for seed in range(3)]
    heights = [bitmap.imread(contact_sheet(results[:n], tmp_path / f"{n}.png")).shape[0] for n in (1, 3)]
    assert heights[1] > 2 * heights[0]
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([], tmp_path / "none.png")


def a_jacobian() -> np.ndarray:
    """Tissue that has grown in one place and, less, shrunk in another."""
    jacobian = np.ones(SHAPE)
    jacobian[4:8, 14:18, 5:9] = 2.5
    jacobian[4:8, 9:13, 5:9] = 0.5
    return jacobian


def test_a_deformation_is_drawn_red_where_it_has_grown_and_blue_where_it_has_shrunk(tmp_path: Path) -> None:
    brain = np.broadcast_to(np.linspace(0.2, 0.8, SHAPE[0])[:, None, None], SHAPE)
    plain = on_brain(a_result(brain))
    warped = on_brain(a_result(brain, jacobian=a_jacobian()))
    assert np.linalg.norm(strongest_point(warped) - BLOCK_MIDDLE) <= 4
    for result, colored in ((plain, False), (warped, True)):
        red, blue = red_and_blue(picture(result, tmp_path / "a.png"))
        assert ((red > 0.01) is colored, (blue > 0.01) is colored) == (True, True)


def red_and_blue(path: Path) -> tuple[float, float]:
    """The shares of a picture that are red and blue, which neither crosshair nor outline are."""
    red, green, blue = np.moveaxis(bitmap.imread(path)[..., :3], -1, 0)
    shares = (red > np.maximum(green, blue) + 0.25, blue > np.maximum(red, green) + 0.1)
    return float(shares[0].mean()), float(shares[1].mean())


def test_a_fold_does_not_spoil_the_picture(tmp_path: Path) -> None:
    jacobian = a_jacobian()
    jacobian[5, 15, 6] = -1
    result = on_brain(a_result(some_volume(), jacobian=jacobian))
    assert red_and_blue(picture(result, tmp_path / "a.png"))[1] > 0


def _shift(voxels: int) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = voxels
    return matrix
