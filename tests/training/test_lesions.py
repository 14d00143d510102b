from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from training.lesions import shapes as lesions
from training.lesions.shapes import CLASSES, GRID, NONE, PROFILE, REACH, SHAPES

MIDDLE = GRID // 2
offsets = st.tuples(*[st.floats(-0.5, 0.5)] * 3).map(np.array)
seeds = st.integers(0, 2**32 - 1)


def _radius() -> np.ndarray:
    axes = np.indices((GRID,) * 3) - MIDDLE
    return np.linalg.norm(axes, axis=0)


def _assert_common(mask: np.ndarray) -> None:
    """What every lesion has, whatever its shape."""
    values = np.sort(mask[mask > 0])[::-1]
    np.testing.assert_array_equal(values, PROFILE[PROFILE > 0])
    border = np.ones_like(mask, bool)
    border[1:-1, 1:-1, 1:-1] = False
    assert not mask[border].any()
    assert mask.dtype == np.float32
    assert mask.shape == (GRID,) * 3


def test_the_profile_is_soft_and_has_the_mass() -> None:
    assert PROFILE.sum() == pytest.approx(lesions.MASS, abs=1e-3)
    assert (np.diff(PROFILE) <= 0).all()
    assert np.abs(np.diff(PROFILE)).max() < 0.01
    assert PROFILE[-1] < 0.001
    assert ((PROFILE > 0.01) & (PROFILE < 0.99)).mean() > 0.75


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=30, deadline=None)
@given(offset=offsets)
def test_every_shape_holds_exactly_the_same_values(shape: str, offset: np.ndarray) -> None:
    _assert_common(lesions.shape_mask(shape, offset))


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_distractors_hold_the_same_values_and_resemble_no_shape(seed: int) -> None:
    mask = lesions.distractor_mask(np.random.default_rng(seed))
    _assert_common(mask)
    assert lesions.resemblance(mask) <= 0.8


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=30, deadline=None)
@given(offset=offsets)
def test_no_lesion_leaves_its_ball(shape: str, offset: np.ndarray) -> None:
    mask = lesions.shape_mask(shape, offset)
    distance = np.linalg.norm(lesions.positions(offset), axis=0)
    assert distance[mask > 0].max() <= REACH


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_distractors_stay_near_their_centre(seed: int) -> None:
    mask = lesions.distractor_mask(np.random.default_rng(seed))
    assert _radius()[mask > 0].max() <= REACH + 3**0.5 / 2


@pytest.mark.parametrize("shape", SHAPES)
def test_edges_are_soft(shape: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = lesions.shape_mask(shape, rng.uniform(-0.5, 0.5, 3))
        steps = np.concatenate([np.abs(np.diff(mask, axis=axis)).ravel() for axis in range(3)])
        edges = steps[steps > 0]
        assert np.mean(edges) < 0.45
        assert np.quantile(edges, 0.9) < 0.95


@pytest.mark.parametrize("shape", SHAPES)
def test_a_centred_shape_is_symmetric(shape: str) -> None:
    mask = lesions.shape_mask(shape)
    for axis in range(3):
        mirrored = np.flip(mask, axis)
        # Voxels at one depth share a stretch of the profile, so mirror images agree up to that stretch.
        assert np.abs(mask - mirrored).max() < 0.2
        assert np.corrcoef(mask.ravel(), mirrored.ravel())[0, 1] > 0.99
    assert np.abs(np.array(ndimage.center_of_mass(mask)) - MIDDLE).max() < 0.15


def test_the_sphere_is_round_and_full() -> None:
    mask = lesions.shape_mask("sphere")
    assert mask[MIDDLE, MIDDLE, MIDDLE] == 1
    assert mask[_radius() > 5.5].max() == 0
    assert mask[_radius() < 2].min() > 0.9


def test_the_cube_reaches_its_corners_and_the_sphere_does_not() -> None:
    cube, sphere = lesions.shape_mask("cube"), lesions.shape_mask("sphere")
    corner = (MIDDLE + 3,) * 3
    assert cube[corner] > 0.5
    assert sphere[corner] == 0
    # Along the axes the sphere reaches further.
    assert sphere[MIDDLE + 4, MIDDLE, MIDDLE] > 0.2
    assert cube[MIDDLE + 4, MIDDLE, MIDDLE] == 0


def test_the_cross_has_three_arms_and_empty_quadrants() -> None:
    mask = lesions.shape_mask("cross")
    for axis in range(3):
        arm = np.moveaxis(mask, axis, 0)[:, MIDDLE, MIDDLE]
        assert arm[MIDDLE - 5] > 0.5
        assert arm[MIDDLE + 5] > 0.5
    assert mask[MIDDLE + 3, MIDDLE + 3, MIDDLE + 3] == 0
    assert mask[MIDDLE + 4, MIDDLE + 4, MIDDLE] == 0


def test_the_shell_is_hollow_and_closed() -> None:
    mask = lesions.shape_mask("shell")
    assert mask[_radius() <= 2.5].max() == 0
    outside, _ = ndimage.label(mask < 0.1)
    assert outside[MIDDLE, MIDDLE, MIDDLE] != outside[0, 0, 0]


def test_the_torus_has_a_hole_that_leads_through() -> None:
    mask = lesions.shape_mask("torus")
    assert mask[MIDDLE, MIDDLE, :].max() == 0
    for angle in np.linspace(0, 2 * np.pi, 8, endpoint=False):
        i, j = (round(MIDDLE + 4.2 * value) for value in (np.cos(angle), np.sin(angle)))
        assert mask[i, j, MIDDLE] > 0.5


def test_an_unknown_shape_names_the_known() -> None:
    with pytest.raises(
        ValueError, match="'pyramid' is unknown; use one of sphere, cube, cross, shell, torus"
    ):
        lesions.shape_mask("pyramid")


def test_centres_leave_room_for_any_lesion() -> None:
    brain = np.zeros((40, 44, 36), bool)
    brain[6:34, 6:38, 4:32] = True
    brain[20, 20, 20] = False  # a dark voxel is no hole in the brain
    sites = lesions.centers(brain)
    assert len(sites)
    brain[20, 20, 20] = True
    rng = np.random.default_rng(1)
    for site in sites[rng.integers(len(sites), size=50)]:
        for label in CLASSES:
            lesion = lesions.draw_lesion(label, site[None], rng)
            if lesion is None:
                continue
            window = tuple(slice(start, start + GRID) for start in lesion.corner)
            assert lesion.mask.shape == brain[window].shape
            assert brain[window][lesion.mask > 0].all()


def test_a_brain_without_room_has_no_centres() -> None:
    assert len(lesions.centers(np.ones((12, 40, 40), bool))) == 0


def test_painting_changes_nothing_outside_the_mask() -> None:
    rng = np.random.default_rng(2)
    brain = rng.uniform(0.2, 0.9, (40, 40, 40)).astype(np.float32)
    before = brain.copy()
    sites = lesions.centers(brain > 0)
    for label in SHAPES:
        lesion = lesions.draw_lesion(label, sites, rng)
        assert lesion is not None
        painted = lesions.paint(brain, lesion)
        mask = np.zeros(brain.shape, np.float32)
        mask[tuple(slice(start, start + GRID) for start in lesion.corner)] = lesion.mask
        np.testing.assert_array_equal(painted[mask == 0], brain[mask == 0])
        np.testing.assert_allclose(painted[mask == 1], lesion.target, rtol=1e-6)
        assert lesions.TARGET[0] <= lesion.target <= lesions.TARGET[1]
    np.testing.assert_array_equal(brain, before)


def test_half_of_none_is_untouched() -> None:
    rng = np.random.default_rng(3)
    sites = np.array([[20, 20, 20]])
    drawn = [lesions.draw_lesion(NONE, sites, rng) is None for _ in range(400)]
    assert 0.4 < np.mean(drawn) < 0.6
