"""The fused resampling against scipy, axis by axis, in mm and degrees."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from engine import Grid, Transforms
from engine.transform import resample


def _image(shape: tuple[int, ...]) -> torch.Tensor:
    noise = np.random.default_rng(0).normal(size=shape)
    return torch.from_numpy(ndimage.gaussian_filter(noise, 1.5))[None, None]


@pytest.mark.parametrize("shape", [(31,), (21, 24), (13, 16, 11)])
def test_resampling_is_scipys_affine_transform(shape: tuple[int, ...]) -> None:
    ndim = len(shape)
    sizes = (2.0, 1.0, 3.0)[:ndim]
    grid = Grid(shape, sizes)
    image = _image(shape)
    matrix, shift = Transforms(jitter_mm=3, rotation_degrees=25, scale=0.2).draw(
        ndim, torch.Generator().manual_seed(4)
    )
    to_mm = np.diag(sizes)
    middle = (np.array(shape) - 1) / 2
    in_voxels = np.linalg.inv(to_mm) @ matrix.numpy() @ to_mm
    offset = middle - in_voxels @ middle + np.linalg.inv(to_mm) @ shift.numpy()
    expected = ndimage.affine_transform(image[0, 0].numpy(), in_voxels, offset, order=1, mode="nearest")
    moved = resample(image, grid, matrix, shift)[0, 0].numpy()
    np.testing.assert_allclose(moved, expected, atol=1e-10)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shift_of_one_voxel_moves_one_voxel_along_its_axis(axis: int) -> None:
    grid = Grid((8, 9, 10), (2.0, 3.0, 4.0))
    image = _image(grid.shape)
    shift = torch.zeros(3, dtype=torch.float64)
    shift[axis] = grid.voxel_size[axis]
    moved = resample(image, grid, torch.eye(3, dtype=torch.float64), shift)
    inner = [slice(None)] * 5
    inner[axis + 2] = slice(0, -1)
    torch.testing.assert_close(moved[tuple(inner)], image.roll(-1, axis + 2)[tuple(inner)])


def test_nothing_moves_without_ranges() -> None:
    still = Transforms(jitter_mm=0, rotation_degrees=0, scale=0)
    assert not still.any
    matrix, shift = still.draw(3, torch.Generator().manual_seed(0))
    assert torch.equal(matrix, torch.eye(3, dtype=torch.float64))
    assert not shift.any()


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_draws_stay_within_their_ranges(ndim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    transforms = Transforms(jitter_mm=5, rotation_degrees=0, scale=0.1)
    draws = [transforms.draw(ndim, generator) for _ in range(300)]
    shifts = torch.stack([shift for _, shift in draws])
    scales = torch.stack([1 / matrix[0, 0] for matrix, _ in draws])
    assert shifts.abs().max() <= 5
    assert shifts.abs().max() > 4.5
    assert 0.9 <= scales.min() < 0.92
    assert 1.08 < scales.max() <= 1.1


def test_rotations_are_rotations() -> None:
    generator = torch.Generator().manual_seed(0)
    transforms = Transforms(jitter_mm=0, rotation_degrees=30, scale=0)
    for _ in range(20):
        matrix, _ = transforms.draw(3, generator)
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64))
        assert torch.linalg.det(matrix) == pytest.approx(1)
    matrix, _ = transforms.draw(2, generator)
    assert abs(math.degrees(math.acos(matrix[0, 0].item()))) <= 30
