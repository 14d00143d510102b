"""Boxes in mm: inside the grid, stable under resolving twice, pasted where they belong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import ZOO, read_bundle
from neurofv.v1 import method_pb2
from service.errors import InvalidField, VolumeTooLarge
from service.volumes.canvas import Box, resolve, to_point, to_voxel

SPACE = read_bundle(ZOO / "lesion-shapes" / "1").manifest.input
MIDDLE = np.array([45.0, 54.0, 45.0])


def _canvas(
    size: tuple[float, float, float], center: tuple[float, float, float] | None = None
) -> method_pb2.Canvas:
    canvas = method_pb2.Canvas(size_mm=method_pb2.Extent(i=size[0], j=size[1], k=size[2]))
    if center is not None:
        canvas.center_mm.CopyFrom(method_pb2.Point(x=center[0], y=center[1], z=center[2]))
    return canvas


@given(
    size=st.tuples(*[st.floats(0, 180)] * 3),
    center=st.none() | st.tuples(st.floats(-89, 89), st.floats(-125, 89), st.floats(-71, 107)),
)
def test_a_box_lies_in_the_grid_and_resolves_to_itself(size: tuple, center: tuple | None) -> None:
    canvas = _canvas(size, center)
    box = resolve(canvas, SPACE, MIDDLE, 10**9)
    assert all(first >= 0 for first in box.start)
    assert all(first + n <= limit for first, n, limit in zip(box.start, box.shape, SPACE.shape, strict=True))
    assert resolve(canvas, SPACE, np.zeros(3), 10**9) == box


def test_voxels_and_points_are_nibabels() -> None:
    point = to_point(SPACE, np.array([10.0, 20.0, 30.0]))
    assert (point.x, point.y, point.z) == (70, -86, -12)
    np.testing.assert_allclose(to_voxel(SPACE, point), [10, 20, 30])


def test_a_box_sits_around_its_center() -> None:
    box = resolve(_canvas((20, 20, 20), (0, 0, 0)), SPACE, MIDDLE, 10**9)
    middle = np.array(box.start) + (np.array(box.shape) - 1) / 2
    assert np.abs(middle - to_voxel(SPACE, method_pb2.Point())).max() <= 0.5
    assert box.shape == (10, 10, 10)


def test_pasting_touches_the_box_alone() -> None:
    box = Box((1, 2, 3), (2, 2, 2))
    background = np.random.default_rng(0).normal(size=(6, 7, 8))
    whole = box.paste(np.full(box.shape, 9.0), background)
    assert (box.cut(whole) == 9).all()
    assert (whole != background).sum() == 8
    assert box.voxels == 8


def test_a_window_fades_inside_the_grid_alone() -> None:
    box = Box((0, 30, 10), (40, 40, 81))
    window = box.window(SPACE)
    assert window.shape == box.shape
    assert window[0, 20, 40] == 1  # the face lies on the grid's border
    assert window[20, 20, -1] == 1  # so does this one: 10 + 81 = 91
    np.testing.assert_allclose(window[20, :5, 40], [0.125, 0.375, 0.625, 0.875, 1])
    assert window[39, 20, 40] == pytest.approx(0.125)
    assert (Box((0, 0, 0), SPACE.shape).window(SPACE) == 1).all()


@pytest.mark.parametrize("size", [(-1, 20, 20), (20, float("nan"), 20), (20, 20, float("inf"))])
def test_bad_edges(size: tuple) -> None:
    with pytest.raises(InvalidField, match=r"canvas\.size_mm"):
        resolve(_canvas(size), SPACE, MIDDLE, 10**9)


def test_limits_of_grid_and_server() -> None:
    with pytest.raises(VolumeTooLarge, match="184 mm"):
        resolve(_canvas((184, 20, 20)), SPACE, MIDDLE, 10**9)
    with pytest.raises(VolumeTooLarge, match="limit is 500"):
        resolve(_canvas((20, 20, 20)), SPACE, MIDDLE, 500)
