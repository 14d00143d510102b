from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from training.cohort import Cohort, CohortError
from training.whole.growth import Region, plant, planted_log_jacobian
from training.whole.plants import CLASSES, Planting, PlantSampler, Window, mirrored, planted_images
from training.whole.volumes import Augmentation

AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
SHAPE = (91, 109, 91)
REGION = Region()
INNER = Planting(Region((-8.0, -18.0, 20.0), 14.0, 26.0))
"""Fits into the block that the tests cut from each brain."""


def _distance() -> np.ndarray:
    world = np.einsum("ij,jxyz->ixyz", AFFINE[:3, :3], np.indices(SHAPE)) + AFFINE[:3, 3, None, None, None]
    return np.linalg.norm(world - np.array(REGION.center)[:, None, None, None], axis=0)


@pytest.mark.parametrize("growth", [-0.13, 0.08, 0.15])
def test_the_map_is_invertible_and_its_jacobian_is_its_derivative(growth: float) -> None:
    line = np.linspace(0, REGION.reach + 10, 4001)
    there = REGION.moved(line, growth)
    assert (np.diff(there) > 0).all()
    np.testing.assert_allclose(REGION.origin(there, growth), line, atol=1e-3)
    jacobian = REGION.jacobian(line, growth)
    assert jacobian.min() > 0
    numeric = np.gradient(there, line) * (there / np.maximum(line, 1e-9)) ** 2
    np.testing.assert_allclose(jacobian[5:-5], numeric[5:-5], atol=2e-3)


@pytest.mark.parametrize("growth", [0.08, 0.15])
def test_the_truth_grows_by_as_much_as_asked_and_head_size_stays(growth: float) -> None:
    truth = planted_log_jacobian(REGION, growth, SHAPE, AFFINE)
    distance = _distance()
    change = np.exp(truth) - 1
    assert change[distance <= REGION.radius].mean() == pytest.approx(growth, abs=0.002)
    assert (truth[distance <= REGION.radius] > 0).all()
    assert (truth[distance >= REGION.reach] == 0).all()
    assert truth[(distance > REGION.radius + 4) & (distance < REGION.reach - 4)].mean() < 0
    assert abs(change.sum() * 8) < 0.01 * growth * 4 / 3 * np.pi * REGION.reach**3


def test_a_planted_ball_grows_by_as_much_as_asked() -> None:
    """The images agree with the truth: what fills the region fills a larger one afterwards."""
    ball = np.clip((REGION.radius - _distance()) / 2 + 0.5, 0, 1).astype(np.float32)
    for growth in (0.08, 0.15):
        assert plant(ball, AFFINE, REGION, growth).sum() / ball.sum() - 1 == pytest.approx(growth, abs=0.01)
        nudged = plant(ball, AFFINE, REGION, growth, np.array([1.0, -1.0, 0.5]))
        assert nudged.sum() / ball.sum() - 1 == pytest.approx(growth, abs=0.012)
        moved = ndimage.center_of_mass(nudged)
        shift = (np.array(moved) - ndimage.center_of_mass(ball)) @ AFFINE[:3, :3].T
        np.testing.assert_allclose(shift, [1.0, -1.0, 0.5], atol=0.15)


def test_nothing_moves_beyond_the_reach() -> None:
    noise = np.random.default_rng(0).random(SHAPE, np.float32)
    grown = plant(noise, AFFINE, REGION, 0.15, np.ones(3))
    outside = _distance() >= REGION.reach
    np.testing.assert_allclose(grown[outside], noise[outside], atol=1e-5)
    assert np.abs(grown - noise)[~outside].mean() > 0.05


def test_the_outline_of_a_brain_stays(block: Cohort) -> None:
    brain = block.brains[0].astype(np.float32)
    region = INNER.region
    before, after = brain > 0.2, plant(brain, block.affine, region, 0.15) > 0.2
    hull = [ndimage.binary_fill_holes(mask).sum() for mask in (before, after)]
    assert hull[1] == pytest.approx(hull[0], rel=0.01)


def test_folding_and_rotation_are_refused() -> None:
    with pytest.raises(ValueError, match="folds tissue"):
        Region(radius=20, reach=22).jacobian(np.linspace(0, 30, 50), 0.3)
    with pytest.raises(ValueError, match="below reach"):
        Region(radius=20, reach=20)
    turned = AFFINE.copy()
    turned[0, 1] = 0.5
    with pytest.raises(ValueError, match="rotation"):
        plant(np.ones(SHAPE, np.float32), turned, REGION, 0.1)


def test_only_the_growth_tells_the_classes_apart(block: Cohort) -> None:
    brain = block.brains[0]
    unchanged, grown = (
        INNER.image(brain, block.affine, label, np.random.default_rng(4)) for label in range(2)
    )
    world = np.einsum("ij,jxyz->ixyz", block.affine[:3, :3], np.indices(brain.shape))
    world += block.affine[:3, 3, None, None, None]
    distance = np.linalg.norm(world - np.array(INNER.region.center)[:, None, None, None], axis=0)
    outside = distance >= INNER.region.reach
    np.testing.assert_array_equal(unchanged[outside], grown[outside])
    assert np.abs(unchanged - grown)[~outside].mean() > 1e-3


def test_decoys_lie_beside_the_region_and_its_mirror_image(block: Cohort) -> None:
    rng = np.random.default_rng(0)
    found = [INNER._decoy(block.brains[0], block.affine, rng) for _ in range(60)]
    centers = np.array([region.center for region in found])
    here = np.array(INNER.region.center)
    least, most = INNER.decoy_distance
    away = np.linalg.norm(centers - here, axis=1)
    mirrored_away = np.linalg.norm(centers - here * [-1, 1, 1], axis=1)
    assert away.min() >= least
    assert np.minimum(away, mirrored_away).max() <= most
    assert (mirrored_away < least).any()
    assert all(region.radius <= INNER.region.radius for region in found)
    with pytest.raises(CohortError, match="choose another region"):
        INNER._decoy(np.zeros_like(block.brains[0]), block.affine, rng)


def test_the_window_keeps_places(block: Cohort) -> None:
    window = Window.around(INNER.region, block)
    small = window.cohort(block)
    assert min(small.brains.shape[1:]) >= 12
    part = block.brains[0][window.slices]
    corner = np.array([piece.start for piece in window.slices]) + 0.5
    np.testing.assert_allclose(small.affine[:3, 3], block.affine[:3, :3] @ corner + block.affine[:3, 3])
    assert part.shape == tuple(2 * n for n in small.brains.shape[1:])
    with pytest.raises(CohortError, match=r"--center: .*choose a centre inside the brain"):
        Window.around(replace(INNER.region, center=(300.0, 0.0, 0.0)), block)


def test_mirrored_brains_are_mirrored_about_the_midline() -> None:
    volume = np.random.default_rng(1).random((7, 3, 2)).astype(np.float32)
    np.testing.assert_array_equal(mirrored(volume, 6), volume[::-1])
    shifted = mirrored(volume, 8)
    np.testing.assert_array_equal(shifted[2:], volume[:1:-1])
    np.testing.assert_array_equal(shifted[:2], volume[:2])


def test_batches_are_seeded_balanced_and_shuffled_on_request(block: Cohort) -> None:
    window = Window.around(INNER.region, block)
    setting = (block.brains[:3], block.affine, INNER, window)
    augmentation = Augmentation(shift=0)
    first, labels = PlantSampler(*setting, seed=2, augmentation=augmentation).batch(3, 4)
    again, same = PlantSampler(*setting, seed=2, augmentation=augmentation).batch(3, 4)
    assert torch.equal(first, again)
    assert torch.equal(labels, same)
    assert torch.bincount(labels).tolist() == [2, 2]
    mixed = PlantSampler(*setting, seed=2, augmentation=augmentation, shuffled=True)
    told = torch.cat([mixed.batch(step, 4)[1] for step in range(8)])
    plain = PlantSampler(*setting, seed=2, augmentation=augmentation)
    true = torch.cat([plain.batch(step, 4)[1] for step in range(8)])
    assert torch.equal(mixed.batch(3, 4)[0], first)
    assert 0.2 < (told == true).float().mean() < 0.8


def test_images_are_complete(block: Cohort) -> None:
    window = Window.around(INNER.region, block)
    images = list(planted_images(block, block.subjects[:2], INNER, window, draws=2, seed=0))
    assert [(row, label) for row, label, _ in images] == [
        (r, k) for r in range(2) for _ in range(2) for k in range(len(CLASSES))
    ]
