from __future__ import annotations

import numpy as np
import pytest
import torch

from training.cohort import Cohort, CohortError
from training.lesions.brains import paintable
from training.lesions.crops import Augmentation, CropSampler
from training.lesions.shapes import CLASSES, GRID

PLAIN = Augmentation(flip=False, gain=0.0, noise=(0.0, 0.0))


@pytest.fixture(scope="module")
def sampler(block: Cohort) -> CropSampler:
    return CropSampler(paintable(block, block.subjects[:3]), seed=5)


def test_a_batch_is_a_function_of_seed_and_step(block: Cohort, sampler: CropSampler) -> None:
    crops, labels = sampler.batch(7, size=8, edge=24)
    sampler.batch(8, size=8, edge=24)
    again, same = CropSampler(sampler.brains, seed=5).batch(7, size=8, edge=24)
    assert torch.equal(crops, again)
    assert torch.equal(labels, same)
    other, _ = CropSampler(sampler.brains, seed=6).batch(7, size=8, edge=24)
    assert not torch.equal(crops, other)


def test_batches_are_balanced_float32_crops(sampler: CropSampler) -> None:
    crops, labels = sampler.batch(0, size=2 * len(CLASSES), edge=20)
    assert crops.shape == (12, 1, 20, 20, 20)
    assert crops.dtype == torch.float32
    assert torch.bincount(labels).tolist() == [2] * len(CLASSES)


def test_a_crop_larger_than_the_volume_is_cut_down(sampler: CropSampler) -> None:
    crops, _ = sampler.batch(0, size=2, edge=500)
    assert crops.shape[2:] == sampler.shape


def test_each_crop_holds_its_whole_lesion(block: Cohort) -> None:
    """Without augmentation, a crop differs from every window of the bare brain by one lesion's support."""
    flat = paintable(block, block.subjects[:1])
    flat.volumes[:] = 0.5  # on even tissue, the lesion is all that differs
    crops, labels = CropSampler(flat, seed=1, augmentation=PLAIN).batch(0, size=24, edge=GRID)
    for crop, label in zip(crops, labels, strict=True):
        touched = int((crop != 0.5).sum())
        # The last values of the profile are so small that float32 may round them away at this contrast.
        assert touched in range(455, 461) or (CLASSES[label] == "none" and touched == 0)


def test_augmentation_flips_scales_and_adds_noise(sampler: CropSampler) -> None:
    plain = CropSampler(sampler.brains, 5, PLAIN)
    bare, _ = plain.batch(3, size=1, edge=24)
    gain, _ = CropSampler(sampler.brains, 5, Augmentation(False, 0.1, (0.0, 0.0))).batch(3, size=1, edge=24)
    inside = bare > 0.1
    ratio = (gain / bare)[inside]
    assert ratio.std() < 1e-4
    assert 0.9 <= ratio.mean() <= 1.1
    assert ratio.mean() != 1
    noisy, _ = CropSampler(sampler.brains, 5, Augmentation(False, 0.0, (0.02, 0.02))).batch(
        3, size=1, edge=24
    )
    assert float((noisy - bare).std()) == pytest.approx(0.02, rel=0.05)
    flips = [
        CropSampler(sampler.brains, 5, Augmentation(True, 0.0, (0.0, 0.0))).batch(s, 1, 24)[0]
        for s in range(12)
    ]
    bares = [plain.batch(s, 1, 24)[0] for s in range(12)]
    flipped = [torch.equal(a, b.flip(2)) for a, b in zip(flips, bares, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(flips, bares, strict=True)]
    assert any(flipped)
    assert any(kept)
    assert all(np.logical_or(flipped, kept))


def test_a_brain_without_room_is_named(block: Cohort) -> None:
    brains = block.brains.copy()
    brains[2, :, :, 8:] = 0
    spoiled = Cohort(block.subjects, brains, block.affine, block.space, block.source)
    with pytest.raises(CohortError, match=f"{block.subjects[2]}: no place in the brain"):
        paintable(spoiled, block.subjects)
