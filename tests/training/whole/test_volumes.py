from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.cohort import INTENSITY_RANGE, Cohort, CohortError
from training.whole.volumes import Augmentation, VolumeSampler, coarse, framed, halve, halved_affine

CODES = np.array([0, 0, 0, 0, 0, 1, 1, 0])


@pytest.fixture(scope="module")
def small(block: Cohort) -> Cohort:
    return coarse(block)


def test_halving_averages_and_its_affine_keeps_places(block: Cohort) -> None:
    volume = np.arange(5 * 4 * 4, dtype=np.float32).reshape(5, 4, 4)
    assert halve(volume).shape == (2, 2, 2)
    assert halve(volume)[1, 0, 1] == volume[2:4, :2, 2:].mean()
    # A ramp along each world axis must read the same place on both grids.
    for axis in range(3):
        places = np.einsum("i,ixyz->xyz", block.affine[axis, :3], np.indices((8, 6, 10)))
        there = halved_affine(block.affine)
        expected = np.einsum("i,ixyz->xyz", there[axis, :3], np.indices((4, 3, 5))) + there[axis, 3]
        np.testing.assert_allclose(halve(places + block.affine[axis, 3]), expected, atol=1e-4)


def test_a_coarse_cohort_is_normalized(small: Cohort, block: Cohort) -> None:
    assert small.brains.shape[1:] == tuple(n // 2 for n in block.brains.shape[1:])
    brain = small.brains[0].astype(np.float32)
    assert np.quantile(brain[brain > 0], 0.995) == pytest.approx(1, abs=1e-3)


def test_a_frame_holds_every_brain_where_it_was(block: Cohort) -> None:
    brains = np.zeros((2, 20, 18, 22), np.float16)
    brains[0, 5:9, 2:7, 4:10] = 1
    brains[1, 6:13, 3:8, 4:12] = 2
    found = framed(replace(block, brains=brains))
    assert found.brains.shape == (2, 10, 6, 8)  # 5 voxels are empty on the left, so 5 are cut on the right
    assert found.brains.sum() == brains.sum()
    shift = block.affine[:3, :3] @ np.array([5, 2, 4])
    np.testing.assert_allclose(found.affine[:3, 3], block.affine[:3, 3] + shift)


def test_too_coarse_to_pool(block: Cohort) -> None:
    with pytest.raises(CohortError, match="at least 16 a side"):
        coarse(replace(block, brains=block.brains[:, :30]))


def test_a_batch_is_a_function_of_seed_and_step(small: Cohort) -> None:
    sampler = VolumeSampler(small.brains, CODES, seed=5)
    volumes, labels = sampler.batch(7, size=6)
    sampler.batch(8, size=6)
    again, same = VolumeSampler(small.brains, CODES, seed=5).batch(7, size=6)
    assert torch.equal(volumes, again)
    assert torch.equal(labels, same)
    assert not torch.equal(volumes, VolumeSampler(small.brains, CODES, seed=6).batch(7, size=6)[0])
    assert volumes.shape == (6, 1, *small.brains.shape[1:])
    assert volumes.dtype == torch.float32
    assert INTENSITY_RANGE[0] <= volumes.min() <= volumes.max() <= INTENSITY_RANGE[1]


def test_batches_are_balanced_and_labels_belong_to_the_brains(small: Cohort) -> None:
    plain = Augmentation(flip=0.0, shift=0, bias=0.0, gamma=(1.0, 1.0 + 1e-9), noise=0.0)
    sampler = VolumeSampler(small.brains, CODES, 0, plain)
    volumes, labels = sampler.batch(0, size=8)
    assert torch.bincount(labels).tolist() == [4, 4]
    for volume, label in zip(volumes, labels, strict=True):
        distances = np.abs(small.brains.astype(np.float32) - volume[0].numpy()).mean((1, 2, 3))
        assert CODES[distances.argmin()] == label
        assert distances.min() < 1e-3


def test_each_augmentation_changes_the_volume(small: Cohort) -> None:
    off = Augmentation(flip=0.0, shift=0, bias=0.0, gamma=(1.0, 1.0 + 1e-9), noise=0.0)
    bare = VolumeSampler(small.brains, CODES, 1, off).batch(0, 4)[0]
    for setting in ({"flip": 1.0}, {"shift": 1}, {"bias": 0.3}, {"gamma": (0.5, 0.6)}, {"noise": 0.05}):
        changed = VolumeSampler(small.brains, CODES, 1, replace(off, **setting)).batch(0, 4)[0]
        difference = (changed - bare).abs().flatten(1).mean(1)
        assert difference.max() > 1e-3, setting
        assert difference.mean() < 0.5, setting
