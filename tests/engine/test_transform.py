"""Transforms against scipy and numpy: one fused affine map in mm and degrees, then the intensities."""

import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft, ndimage, stats

from engine import Grid, InvalidField, Transforms
from engine.transform import Draw, apply, resample

STILL = Transforms(jitter_mm=0, rotation_degrees=0, scale=0)
EVERYTHING = Transforms(
    jitter_mm=3,
    rotation_degrees=25,
    scale=0.2,
    flip=0.5,
    crop_first=0.8,
    crop_last=0.5,
    noise=0.05,
    gain=0.3,
    gamma=0.4,
    bias_field=0.4,
)
SHAPES = [(31,), (21, 24), (13, 16, 11)]
SIZES = (2.0, 1.0, 3.0)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _image(shape: tuple[int, ...], count: int = 1) -> torch.Tensor:
    noise = np.random.default_rng(0).normal(size=(count, 1, *shape))
    sigma = (0, 0, *(1.5 for _ in shape))
    return torch.from_numpy(ndimage.gaussian_filter(noise, sigma))


def _eye(ndim: int) -> torch.Tensor:
    return torch.eye(ndim, dtype=torch.float64)


def _scipys(image: np.ndarray, grid: Grid, draw: Draw) -> np.ndarray:
    to_mm = np.diag(grid.voxel_size)
    middle = (np.array(grid.shape) - 1) / 2
    in_voxels = np.linalg.inv(to_mm) @ draw.matrix.numpy() @ to_mm
    offset = middle - in_voxels @ middle + np.linalg.inv(to_mm) @ draw.shift.numpy()
    return ndimage.affine_transform(image, in_voxels, offset, order=1, mode="nearest")


def _numpys(image: np.ndarray, grid: Grid, draw: Draw, low: float, high: float) -> np.ndarray:
    """The whole transform of an image that stays above the toe of the power."""
    share = (_scipys(image, grid, draw) - low) / (high - low)
    assert share.min() > 0.01
    share = draw.gain * share**draw.exponent
    if draw.field is not None:
        share = share * draw.field.numpy()
    if draw.noise is not None:
        share = share + draw.noise.double().numpy()
    return low + (high - low) * share


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("crop", [1.0, 0.6])
def test_resampling_is_scipys_affine_transform(shape: tuple[int, ...], flip: float, crop: float) -> None:
    grid = Grid(shape, SIZES[: len(shape)])
    image = _image(shape)
    transforms = Transforms(jitter_mm=3, rotation_degrees=25, scale=0.2, flip=flip, crop_first=crop)
    draw = transforms.draw(grid, _generator(4))
    moved = resample(image, grid, draw.matrix, draw.shift)[0, 0].numpy()
    np.testing.assert_allclose(moved, _scipys(image[0, 0].numpy(), grid, draw), atol=1e-10)


@st.composite
def _grids(draw: st.DrawFn) -> Grid:
    ndim = draw(st.integers(1, 3))
    shape = draw(st.tuples(*[st.integers(2, 9)] * ndim))
    sizes = draw(st.tuples(*[st.sampled_from([0.5, 1.0, 2.0, 3.5])] * ndim))
    return Grid(shape, sizes, left_right=draw(st.integers(0, ndim - 1)))


_SETTINGS = st.builds(
    Transforms,
    jitter_mm=st.sampled_from([0.0, 2.0]),
    rotation_degrees=st.sampled_from([0.0, 180.0]),
    scale=st.sampled_from([0.0, 0.3]),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
    crop_first=st.sampled_from([1.0, 0.5]),
    crop_last=st.sampled_from([1.0, 0.05]),
    noise=st.sampled_from([0.0, 0.1]),
    gain=st.sampled_from([0.0, 0.9]),
    gamma=st.sampled_from([0.0, 2.0]),
    bias_field=st.sampled_from([0.0, 0.9]),
)


@settings(deadline=None)
@given(_grids(), _SETTINGS, st.integers(0, 2**31), st.floats(0, 1))
def test_any_settings_do_what_scipy_and_numpy_do_and_no_item_leaks(
    grid: Grid, transforms: Transforms, seed: int, progress: float
) -> None:
    low, high = -1.0, 4.0
    generator = _generator(seed)
    images = low + (high - low) * (
        0.02 + torch.rand(3, 1, *grid.shape, generator=generator, dtype=torch.float64)
    )
    draws = [transforms.draw(grid, generator, progress) for _ in images]
    together = apply(images, draws, grid, (low, high))
    for image, draw, seen in zip(images, draws, together, strict=True):
        expected = _numpys(image[0].numpy(), grid, draw, low, high)
        # Exponents reach e^2 and factors 3.6.
        np.testing.assert_allclose(seen[0].numpy(), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            apply(image[None], [draw], grid, (low, high))[0], seen, rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shift_of_one_voxel_moves_one_voxel_along_its_axis(axis: int) -> None:
    grid = Grid((8, 9, 10), (2.0, 3.0, 4.0))
    image = _image(grid.shape)
    shift = torch.zeros(3, dtype=torch.float64)
    shift[axis] = grid.voxel_size[axis]
    moved = resample(image, grid, _eye(3), shift)
    inner = [slice(None)] * 5
    inner[axis + 2] = slice(0, -1)
    torch.testing.assert_close(moved[tuple(inner)], image.roll(-1, axis + 2)[tuple(inner)])


def test_one_map_for_all_is_the_same_map_for_each() -> None:
    grid = Grid((8, 9), (2.0, 3.0))
    images = _image(grid.shape, 3)
    draw = EVERYTHING.draw(grid, _generator(0))
    each = resample(images, grid, draw.matrix.expand(3, 2, 2), draw.shift.expand(3, 2))
    assert torch.equal(resample(images, grid, draw.matrix, draw.shift), each)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_changes_and_nothing_is_resampled_without_ranges(shape: tuple[int, ...]) -> None:
    assert not STILL.any
    grid = Grid(shape, SIZES[: len(shape)])
    images = _image(shape, 2)
    draws = [STILL.draw(grid, _generator(0), progress) for progress in (0.0, 1.0)]
    for draw in draws:
        assert torch.equal(draw.matrix, _eye(len(shape)))
        assert not draw.shift.any()
    assert apply(images, draws, grid, (0.0, 1.0)) is images


@pytest.mark.parametrize(
    "change",
    [
        {"jitter_mm": 1},
        {"rotation_degrees": 1},
        {"scale": 0.1},
        {"flip": 0.1},
        {"crop_first": 0.9},
        {"crop_last": 0.9},
        {"noise": 0.1},
        {"gain": 0.1},
        {"gamma": 0.1},
        {"bias_field": 0.1},
    ],
)
def test_each_range_alone_changes_the_image(change: dict[str, Any]) -> None:
    grid = Grid((12, 13), (2.0, 3.0))
    transforms = replace(STILL, **change)
    assert transforms.any
    draws = [transforms.draw(grid, _generator(seed), progress=0.5) for seed in range(40)]
    images = _image(grid.shape).expand(40, 1, -1, -1)
    assert not torch.allclose(apply(images, draws, grid, (0.0, 1.0)), images, atol=1e-4)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_draws_stay_within_their_ranges(ndim: int) -> None:
    generator = _generator(0)
    grid = Grid((20,) * ndim, (2.0,) * ndim)
    transforms = Transforms(jitter_mm=5, rotation_degrees=0, scale=0.1, gain=0.2, gamma=0.5)
    draws = [transforms.draw(grid, generator) for _ in range(300)]
    shifts = torch.stack([draw.shift for draw in draws])
    scales = torch.stack([1 / draw.matrix[0, 0] for draw in draws])
    assert shifts.abs().max() <= 5
    assert shifts.abs().max() > 4.5
    assert 0.9 <= scales.min() < 0.92
    assert 1.08 < scales.max() <= 1.1
    gains = [draw.gain for draw in draws]
    powers = [math.log(draw.exponent) for draw in draws]
    assert 0.8 <= min(gains) < 0.82
    assert 1.18 < max(gains) <= 1.2
    assert -0.5 <= min(powers) < -0.45
    assert 0.45 < max(powers) <= 0.5


def test_rotations_are_rotations() -> None:
    generator = _generator(0)
    transforms = Transforms(jitter_mm=0, rotation_degrees=30, scale=0)
    grid = Grid((20, 20, 20), (2.0, 2.0, 2.0))
    for _ in range(20):
        matrix = transforms.draw(grid, generator).matrix
        torch.testing.assert_close(matrix @ matrix.T, _eye(3))
        assert torch.linalg.det(matrix) == pytest.approx(1)
    matrix = transforms.draw(Grid((20, 20), (2.0, 2.0)), generator).matrix
    assert abs(math.degrees(math.acos(matrix[0, 0].item()))) <= 30


@pytest.mark.parametrize("shape", [(9,), (8,), (9, 8), (7, 10, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_flip_is_numpys_to_the_bit_along_the_left_right_axis(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    images = _image(shape, 2).to(dtype)
    for axis in range(len(shape)):
        grid = Grid(shape, SIZES[: len(shape)], left_right=axis)
        draws = [replace(STILL, flip=share).draw(grid, _generator(0)) for share in (1.0, 0.0)]
        flipped, same = apply(images, draws, grid, (0.0, 1.0)).numpy()
        np.testing.assert_array_equal(flipped[0], np.flip(images[0, 0].numpy(), axis))
        np.testing.assert_array_equal(same, images[1].numpy())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flip_comes_before_every_other_movement(axis: int) -> None:
    grid = Grid((13, 16, 11), SIZES, left_right=axis)
    image = _image(grid.shape)
    plain, flipped = (replace(EVERYTHING, flip=share).draw(grid, _generator(5)) for share in (0.0, 1.0))
    torch.testing.assert_close(
        apply(image, [flipped], grid, (0.0, 1.0)),
        apply(image.flip(axis + 2), [plain], grid, (0.0, 1.0)),
        rtol=1e-10,
        atol=1e-10,
    )


def test_flips_are_as_frequent_as_asked() -> None:
    generator = _generator(0)
    grid = Grid((8, 8), (1.0, 1.0), left_right=1)
    transforms = replace(STILL, flip=0.3)
    flips = sum(bool(transforms.draw(grid, generator).matrix[1, 1] < 0) for _ in range(1000))
    assert stats.binomtest(flips, 1000, 0.3).pvalue > 0.01


@pytest.mark.parametrize("shape", [(16,), (16, 12), (16, 12, 8)])
def test_a_crop_of_half_an_edge_is_scipys_zoom_of_that_half(shape: tuple[int, ...]) -> None:
    grid = Grid(shape, SIZES[: len(shape)])
    image = _image(shape)
    draw = replace(STILL, crop_first=0.5).draw(grid, _generator(0))
    # From a quarter less one voxel on, along every axis.
    aligned = replace(draw, shift=-torch.tensor(grid.voxel_size, dtype=torch.float64))
    seen = apply(image, [aligned], grid, (0.0, 1.0))[0, 0].numpy()
    kept = image[0, 0].numpy()[tuple(slice(n // 4 - 1, n // 4 - 1 + n // 2) for n in shape)]
    expected = ndimage.zoom(kept, 2, order=1, mode="nearest", grid_mode=True)
    # At its border the zoom knows nothing of what surrounds the crop.
    inner = (slice(1, -1),) * len(shape)
    np.testing.assert_allclose(seen[inner], expected[inner], atol=1e-10)


def test_crops_shrink_linearly_lie_within_the_grid_and_reach_its_faces_evenly() -> None:
    generator = _generator(0)
    grid = Grid((20, 30, 10), SIZES)
    half = torch.tensor([20.0, 15.0, 15.0], dtype=torch.float64)
    transforms = replace(STILL, crop_first=0.9, crop_last=0.3)
    for progress, share in [(0.0, 0.9), (0.25, 0.75), (0.5, 0.6), (1.0, 0.3)]:
        draws = [transforms.draw(grid, generator, progress) for _ in range(300)]
        for draw in draws:
            torch.testing.assert_close(draw.matrix, share * _eye(3))
        room = torch.stack([draw.shift for draw in draws]) / ((1 - share) * half)
        assert room.abs().max() <= 1 + 1e-12
        for axis in range(3):
            assert stats.kstest(room[:, axis].numpy(), stats.uniform(-1, 2).cdf).pvalue > 0.001


def test_a_crop_is_one_of_the_moved_image() -> None:
    grid = Grid((20, 30, 10), SIZES, left_right=1)
    cropped = EVERYTHING.draw(grid, _generator(5))
    moved = replace(EVERYTHING, crop_first=1).draw(grid, _generator(5))
    crop = replace(STILL, crop_first=EVERYTHING.crop_first).draw(grid, _generator(5))
    assert crop.shift.abs().min() > 0
    torch.testing.assert_close(cropped.matrix, moved.matrix @ crop.matrix)
    torch.testing.assert_close(cropped.shift, moved.matrix @ crop.shift + moved.shift)


def test_the_parts_of_a_draw_are_independent() -> None:
    generator = _generator(0)
    grid = Grid((6, 8), (1.0, 2.0))
    rows = []
    for _ in range(1000):
        draw = EVERYTHING.draw(grid, generator)
        assert draw.field is not None
        flipped = float(torch.linalg.det(draw.matrix) < 0)
        turned = draw.matrix[1, 0] / draw.matrix[1, 1]
        size = draw.matrix.square().sum()
        bias = (draw.field - 1).abs().max()
        power = math.log(draw.exponent)
        sizes = [abs(draw.gain - 1), abs(power), bias]
        rows.append([*draw.shift, turned, size, flipped, draw.gain, power, *sizes])
    correlation = np.corrcoef(np.array(rows, dtype=float).T)
    assert np.abs(correlation - np.eye(len(correlation))).max() < 4 / math.sqrt(1000)


def test_noise_is_gaussian_of_the_asked_deviation_and_independent() -> None:
    generator = _generator(0)
    grid = Grid((30, 31, 32), SIZES)
    images = torch.full((2, 1, *grid.shape), 3.0)
    draws = [replace(STILL, noise=0.05).draw(grid, generator) for _ in range(2)]
    one, other = (apply(images, draws, grid, (2.0, 6.0)) - images).double().numpy()[:, 0]
    for noise in (one, other):
        assert stats.kstest(noise.ravel(), stats.norm(0, 0.05 * 4).cdf).pvalue > 0.001
    bound = 4 / math.sqrt(one.size)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < bound
    for axis in range(3):
        assert abs(np.corrcoef(one.ravel(), np.roll(one, 1, axis).ravel())[0, 1]) < bound


@pytest.mark.parametrize(("gain", "exponent"), [(1.3, 1.0), (1.0, 0.4), (1.0, 2.5), (0.7, 0.6)])
def test_gain_and_gamma_act_on_intensity_counted_from_the_lower_end(gain: float, exponent: float) -> None:
    low, high = -2.0, 3.0
    share = np.linspace(0.01, 1.2, 50)
    images = torch.from_numpy(low + (high - low) * share)[None, None]
    grid = Grid((50,), (1.0,))
    draw = Draw(_eye(1), torch.zeros(1, dtype=torch.float64), gain=gain, exponent=exponent)
    seen = apply(images, [draw], grid, (low, high))[0, 0].numpy()
    np.testing.assert_allclose(seen, low + (high - low) * gain * share**exponent, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("exponent", [math.exp(-2), math.exp(2)])
def test_the_power_is_a_line_through_zero_below_its_toe_with_a_finite_slope(exponent: float) -> None:
    share = torch.linspace(-0.02, 0.02, 4001, dtype=torch.float64)
    images = share.clone()[None, None].requires_grad_()
    draw = Draw(_eye(1), torch.zeros(1, dtype=torch.float64), exponent=exponent)
    seen = apply(images, [draw], Grid((4001,), (1.0,)), (0.0, 1.0))
    (slope,) = torch.autograd.grad(seen.sum(), images)
    assert slope.isfinite().all()
    values = seen.detach()[0, 0]
    below = share.abs() < 0.01 - 1e-9
    torch.testing.assert_close(values[below], share[below] * 0.01 ** (exponent - 1))
    torch.testing.assert_close(values, -values.flip(0))
    # Monotone, and no jump where line and power meet.
    assert values.diff().min() > -1e-16
    assert values.diff().max() < 1e-5 * max(1, exponent) * 0.009 ** (min(exponent, 1) - 1)


def test_an_item_that_nothing_changes_comes_out_to_the_bit_beside_one_that_all_changes() -> None:
    grid = Grid((7, 8), (1.0, 1.0))
    images = torch.rand(2, 1, 7, 8, generator=_generator(0)) * 3 - 1
    low, high = -0.3, 1.1
    changed = replace(EVERYTHING, jitter_mm=0, rotation_degrees=0, scale=0, crop_first=1, crop_last=1)
    draws = [STILL.draw(grid, _generator(0)), changed.draw(grid, _generator(1))]
    seen = apply(images, draws, grid, (low, high))
    assert torch.equal(seen[0], images[0])
    assert not torch.isclose(seen[1], images[1]).any()


@pytest.mark.parametrize("shape", [(31,), (21, 24), (13, 16, 11), (5, 1)])
def test_the_bias_field_has_low_cosine_waves_only_and_stays_in_its_bound(shape: tuple[int, ...]) -> None:
    generator = _generator(0)
    grid = Grid(shape, SIZES[: len(shape)])
    fields = [replace(STILL, bias_field=0.4).draw(grid, generator).field for _ in range(60)]
    peaks = []
    for field in fields:
        assert field is not None
        departure = field.numpy() - 1
        peaks.append(np.abs(departure).max())
        waves = fft.dctn(departure, norm="ortho")
        low = (slice(0, 3),) * len(shape)
        assert np.square(waves[low]).sum() == pytest.approx(np.square(waves).sum())
    assert max(peaks) <= 0.4 + 1e-12
    assert max(peaks) > 0.37
    assert min(peaks) < 0.03


def test_the_bias_field_has_no_constant_part() -> None:
    field = replace(STILL, bias_field=0.4).draw(Grid((9, 10, 11), SIZES), _generator(3)).field
    assert field is not None
    assert field.mean().item() == pytest.approx(1, abs=1e-12)
    assert field.std() > 0.01


@pytest.mark.parametrize("shape", [(7,), (4, 5), (3, 4, 3)])
def test_gradients_are_the_finite_differences(shape: tuple[int, ...]) -> None:
    generator = _generator(2)
    grid = Grid(shape, SIZES[: len(shape)])
    images = torch.rand(2, 1, *shape, generator=generator, dtype=torch.float64) + 0.1
    draws = [EVERYTHING.draw(grid, generator) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda x: apply(x, draws, grid, (0.0, 1.5)), images.requires_grad_())


def test_a_gradient_reaches_its_own_item_only() -> None:
    grid = Grid((6, 7), (1.0, 2.0))
    images = _image(grid.shape, 3).requires_grad_()
    draws = [EVERYTHING.draw(grid, _generator(seed)) for seed in range(3)]
    (slope,) = torch.autograd.grad(apply(images, draws, grid, (-1.0, 1.0))[1].sum(), images)
    assert slope[1].any()
    assert not slope[0].any()
    assert not slope[2].any()


def test_single_precision_is_double_precision_rounded() -> None:
    grid = Grid((40, 48, 44), (2.0, 2.0, 2.0))
    images = _image(grid.shape, 2)
    draws = [EVERYTHING.draw(grid, _generator(seed)) for seed in range(2)]
    seen = apply(images.float(), draws, grid, (-1.0, 1.0))
    assert seen.dtype == torch.float32
    # Volumes are read as tall pictures, whose rows float32 places to 2^-23 of their number.
    atol = 1e-5 + 40 * 48 * 2**-23
    torch.testing.assert_close(seen.double(), apply(images, draws, grid, (-1.0, 1.0)), rtol=0, atol=atol)


def test_the_same_generator_draws_the_same_bits() -> None:
    grid = Grid((9, 10, 11), SIZES)
    one, same, other = (EVERYTHING.draw(grid, _generator(seed), 0.3) for seed in (7, 7, 8))
    for name in ("matrix", "shift", "field", "noise"):
        assert torch.equal(getattr(one, name), getattr(same, name))
        assert not torch.equal(getattr(one, name), getattr(other, name))
    assert (one.gain, one.exponent) == (same.gain, same.exponent)
    images = _image(grid.shape)
    assert torch.equal(*(apply(images, [draw], grid, (0.0, 1.0)) for draw in (one, same)))


@settings(deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_how_many_numbers_are_drawn_does_not_depend_on_their_outcome(seed: int, progress: float) -> None:
    grid = Grid((4, 5), (1.0, 2.0))
    rare = replace(EVERYTHING, flip=0.01, gamma=0.01, crop_first=0.05)
    frequent = replace(EVERYTHING, flip=0.99, jitter_mm=90, bias_field=0.9)
    following = []
    for transforms, when in [(rare, 0.0), (frequent, progress)]:
        generator = _generator(seed)
        transforms.draw(grid, generator, when)
        following.append(torch.rand(5, generator=generator))
    assert torch.equal(*following)


def test_intensity_changes_leave_the_geometry_as_it_is() -> None:
    grid = Grid((9, 10, 11), SIZES)
    full = EVERYTHING.draw(grid, _generator(7), 0.3)
    bare = replace(EVERYTHING, noise=0, gain=0, gamma=0, bias_field=0).draw(grid, _generator(7), 0.3)
    mask = (_image(grid.shape) > 0).double()
    assert torch.equal(apply(mask, [full.moved()], grid, (0.0, 1.0)), apply(mask, [bare], grid, (0.0, 1.0)))


def test_images_and_draws_must_be_as_many() -> None:
    grid = Grid((4,), (1.0,))
    with pytest.raises(ValueError, match="1 draws for 2 images"):
        apply(torch.zeros(2, 1, 4), [STILL.draw(grid, _generator(0))], grid, (0.0, 1.0))


@pytest.mark.parametrize("axis", [-1, 2])
def test_a_grid_refuses_a_left_right_axis_that_it_does_not_have(axis: int) -> None:
    with pytest.raises(InvalidField, match="left_right"):
        Grid((4, 5), (1.0, 1.0), left_right=axis)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flip", 1.1),
        ("crop_first", 0.04),
        ("crop_last", 1.01),
        ("noise", -0.1),
        ("gain", 1.0),
        ("gamma", math.inf),
        ("bias_field", 1.0),
        ("copies", 0),
    ],
)
def test_settings_out_of_bounds_are_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidField, match=name):
        Transforms(**cast(dict[str, Any], {name: value}))


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("shape", [(12, 10, 8), (7, 5, 9), (2, 2, 1)])
def test_volumes_in_single_precision_are_read_as_those_in_double(shape: tuple[int, ...], batch: int) -> None:
    grid = Grid(shape, (2.0, 1.5, 1.0))
    torch.manual_seed(0)
    draws = [Transforms(flip=0.5).draw(grid, _generator(seed)) for seed in range(batch)]
    matrix, shift = (torch.stack([getattr(draw, part) for draw in draws]) for part in ("matrix", "shift"))
    single = torch.rand(batch, 1, *shape, requires_grad=True)
    double = single.detach().double().requires_grad_()
    slope = torch.rand(batch, 1, *shape)
    read = [resample(image, grid, matrix, shift) for image in (single, double)]
    torch.testing.assert_close(read[0].double(), read[1], rtol=0, atol=1e-4)
    back = [
        torch.autograd.grad(seen, image, slope.to(image))[0]
        for seen, image in zip(read, (single, double), strict=True)
    ]
    torch.testing.assert_close(back[0].double(), back[1], rtol=1e-4, atol=2e-3)
    # To the bit what each is alone.
    alone = resample(single[:1], grid, matrix[:1], shift[:1])
    assert torch.equal(read[0][:1], alone)
