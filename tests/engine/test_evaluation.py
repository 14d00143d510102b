"""Figures on a finished volume against closed forms, numpy and scipy."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, signal
from torch import nn

from engine.evaluation import (
    HELD_OUT,
    agreement,
    held_out,
    layer_readings,
    readings,
    saturated_share,
    selectivity,
    spectrum_distance,
    total_variation,
)
from engine.grid import Grid
from engine.network.capture import UnknownLayer
from engine.objective import Channel, ClassLogit, Neuron, Objective, Term
from engine.roughness import gradient_length
from engine.transform import Transforms
from tests.engine.networks import CONVOLUTIONS, networks

GRIDS = [Grid((30,), (2.0,)), Grid((11, 14), (2.0, 1.0)), Grid((8, 9, 7), (2.0, 1.0, 1.5))]
STILL = Transforms(jitter_mm=0.0, rotation_degrees=0.0, scale=0.0)


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def each(*channels: int) -> Objective:
    return Objective([Term(Channel("0", channel)) for channel in channels])


def state(network: nn.Module) -> list[object]:
    modules = [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()]
    weights = [(p.requires_grad, p.grad, p.tolist()) for p in network.parameters()]
    return [modules, weights, [buffer.tolist() for buffer in network.buffers()]]


# Readings.


@settings(max_examples=15, deadline=None)
@given(st.data(), st.integers(1, 3))
def test_readings_are_the_layers_answers_and_the_network_stays_as_found(
    data: st.DataObject, ndim: int
) -> None:
    network = data.draw(networks(ndim))
    network[0].bias.requires_grad_(False)
    last = str(len(network) - 1)
    objective = Objective([Term(Channel("0", 1)), Term(ClassLogit(last, 2))])
    volumes = rand(19, 1, *(12, 11, 10)[:ndim])
    before = state(network)
    found = readings(network, objective, volumes)
    assert state(network) == before
    assert not found.requires_grad
    network.eval()
    with torch.no_grad():
        expected = torch.stack([network[0](volumes)[:, 1].flatten(1).mean(1), network(volumes)[:, 2]])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_readings_take_at_most_eight_volumes_at_a_time() -> None:
    sizes: list[int] = []

    class Counts(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            return x

        def __deepcopy__(self, memo: object) -> "Counts":
            return self

    network = nn.Sequential(Counts(), nn.Conv1d(1, 2, 3))
    objective = Objective([Term(Channel("1", 0))])
    assert readings(network, objective, rand(19, 1, 12)).shape == (1, 19)
    assert sizes == [8, 8, 3]


def test_a_non_linearity_is_read_before_or_behind_it() -> None:
    network = nn.Sequential(nn.ReLU())
    volume = torch.tensor([[[-3.0, 1.0]]])
    assert readings(network, each(0), volume).item() == -1.0
    assert readings(network, replace(each(0), behind_nonlinearities=True), volume).item() == 0.5
    unit = Channel("0", 0)
    assert layer_readings(network, unit, volume[0, 0]).item() == -1.0
    assert layer_readings(network, unit, volume[0, 0], behind_nonlinearities=True).item() == 0.5
    grid = Grid((2,), (1.0,))
    behind = held_out(
        network, replace(each(0), behind_nonlinearities=True), volume[0, 0], grid, (0, 1), STILL
    )
    assert behind.tolist() == [[0.5] * 64]


def test_the_network_is_released_after_an_unknown_layer() -> None:
    network = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU())
    before = state(network)
    with pytest.raises(UnknownLayer):
        readings(network, Objective([Term(Channel("conv9", 0))]), rand(1, 1, 12))
    assert state(network) == before


# Held-out transforms.


@pytest.mark.parametrize("grid", GRIDS)
def test_transforms_without_a_range_give_the_plain_reading_each_time(grid: Grid) -> None:
    network = nn.Sequential(CONVOLUTIONS[grid.ndim - 1](1, 3, 3))
    before = state(network)
    image = rand(*grid.shape)
    found = held_out(network, each(0, 2), image, grid, (0.0, 1.0), STILL)
    plain = readings(network, each(0, 2), image[None, None])
    assert found.shape == (2, 64)
    torch.testing.assert_close(found, plain.expand(2, 64))
    assert state(network) == before


@pytest.mark.parametrize("grid", GRIDS)
def test_held_out_copies_are_those_that_scipy_moves(grid: Grid) -> None:
    # A smooth kernel and a neuron, so that each copy has a reading of its own.
    network = nn.Sequential(CONVOLUTIONS[grid.ndim - 1](1, 1, 3, padding=1))
    objective = Objective([Term(Neuron("0", 0, tuple(size // 2 for size in grid.shape)))])
    image = rand(*grid.shape)
    found = held_out(network, objective, image, grid, (0.0, 1.0), count=11, seed=5)[0]
    generator = torch.Generator().manual_seed(5)
    # Voxel indices are read at scale^-1 (matrix (scale (index + 1/2) - half) + shift + half) - 1/2.
    step, half = np.asarray(grid.voxel_size), np.multiply(grid.shape, grid.voxel_size) / 2
    expected = []
    for _ in range(11):
        draw = HELD_OUT.draw(grid, generator)
        matrix, shift = draw.matrix.numpy(), draw.shift.numpy()
        indices = matrix * step[None] / step[:, None]
        offset = (matrix @ (0.5 * step - half) + shift + half) / step - 0.5
        moved = ndimage.affine_transform(image.numpy(), indices, offset, order=1, mode="nearest")
        expected.append(readings(network, objective, torch.from_numpy(moved)[None, None]))
    torch.testing.assert_close(found, torch.cat(expected, 1)[0], rtol=1e-4, atol=1e-5)
    assert found.std() > 1e-3


@pytest.mark.parametrize("grid", GRIDS)
def test_flips_do_not_move_the_mean_of_a_pointwise_layer(grid: Grid) -> None:
    network = nn.Sequential(CONVOLUTIONS[grid.ndim - 1](1, 1, 1))
    flips = Transforms(jitter_mm=0.0, rotation_degrees=0.0, scale=0.0, flip=0.5)
    image = rand(*grid.shape)
    found = held_out(network, each(0), image, grid, (0.0, 1.0), flips)
    plain = readings(network, each(0), image[None, None])
    torch.testing.assert_close(found, plain.expand(1, 64))
    corner = Objective([Term(Neuron("0", 0, (0,) * grid.ndim))])
    assert len(held_out(network, corner, image, grid, (0.0, 1.0), flips).unique()) == 2


def test_held_out_copies_depend_on_the_seed_alone() -> None:
    grid = GRIDS[1]
    network = nn.Sequential(nn.Conv2d(1, 1, 3))
    image = rand(*grid.shape)
    noisy = Transforms(noise=0.1, bias_field=0.2)
    torch.manual_seed(1)
    first = held_out(network, each(0), image, grid, (0.0, 1.0), noisy, count=12)
    torch.manual_seed(2)
    assert torch.equal(first, held_out(network, each(0), image, grid, (0.0, 1.0), noisy, count=12))
    assert not torch.equal(
        first, held_out(network, each(0), image, grid, (0.0, 1.0), noisy, count=12, seed=0)
    )
    longer = held_out(network, each(0), image, grid, (0.0, 1.0), noisy, count=20)
    torch.testing.assert_close(longer[:, :12], first)


# Spectrum.


def half_magnitude(image: torch.Tensor) -> torch.Tensor:
    return torch.fft.rfftn(image, norm="ortho").abs()


@pytest.mark.parametrize("grid", [*GRIDS, Grid((13,), (1.0,)), Grid((10, 9, 8), (1.0, 1.0, 1.0))])
def test_spectrum_distance_is_the_one_of_the_full_spectrum(grid: Grid) -> None:
    image, brain = rand(*grid.shape), rand(*grid.shape, seed=1).square() + 0.3
    axes = [np.fft.fftfreq(size, step) for size, step in zip(grid.shape, grid.voxel_size, strict=True)]
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    width = 1 / np.multiply(grid.shape, grid.voxel_size).max()
    spectra = [np.abs(np.fft.fftn(one.double().numpy(), norm="ortho")) for one in (image, brain)]
    differences = []
    for shell in range(1, 1 + math.ceil(radius.max() / width)):
        inside = np.round(radius / width) == shell
        if inside.any():
            mine, prior = (spectrum[inside].mean() for spectrum in spectra)
            differences.append(np.log10(mine) - np.log10(prior))
    expected = np.sqrt(np.mean(np.square(differences)))
    found = spectrum_distance(image, half_magnitude(brain.double()), grid)
    assert found == pytest.approx(expected, rel=1e-6)
    assert found > 0.01


@pytest.mark.parametrize("grid", GRIDS)
def test_an_image_ten_times_as_strong_is_one_decade_away(grid: Grid) -> None:
    brain = rand(*grid.shape)
    assert spectrum_distance(10 * brain, half_magnitude(brain), grid) == pytest.approx(1, abs=1e-4)
    assert spectrum_distance(brain / 100, half_magnitude(brain), grid) == pytest.approx(2, abs=1e-4)
    assert spectrum_distance(brain, half_magnitude(brain), grid) == pytest.approx(0, abs=1e-4)


def test_the_constant_part_and_the_phase_do_not_count() -> None:
    grid = GRIDS[2]
    brain = rand(*grid.shape).double()
    moved = 100 + brain.roll((1, 2, 3), (0, 1, 2))
    assert spectrum_distance(moved, half_magnitude(brain), grid) == pytest.approx(0, abs=1e-9)


def test_a_flat_image_is_far_from_a_brain_but_not_infinitely_far() -> None:
    grid = GRIDS[1]
    distance = spectrum_distance(torch.full(grid.shape, 0.5), half_magnitude(rand(*grid.shape)), grid)
    assert 5 < distance < 20


def test_a_padded_magnitude_is_refused_with_the_remedy() -> None:
    grid = Grid((11, 13), (1.0, 1.0))
    padded = grid.to_spectrum(rand(*grid.shape)).abs()
    with pytest.raises(ValueError, match=r"magnitude has shape \(12, 8\).*\(11, 7\).*without padding"):
        spectrum_distance(rand(*grid.shape), padded, grid)


# Intensities and roughness.


def test_saturated_voxels_are_counted_among_those_asked_for() -> None:
    image = torch.tensor([[-1.0, -0.97, 0.0], [2.96, 2.98, 3.5]])
    # 1 % of the range from -1 to 3 is 0.04.
    assert saturated_share(image, (-1.0, 3.0)) == pytest.approx(5 / 6)
    mask = torch.tensor([[True, False, True], [False, False, True]])
    assert saturated_share(image, (-1.0, 3.0), mask) == pytest.approx(2 / 3)
    assert saturated_share(torch.full((4, 4, 4), 1.0), (-1.0, 3.0)) == 0.0
    with pytest.raises(ValueError, match="among holds no voxel; give a mask"):
        saturated_share(image, (-1.0, 3.0), torch.zeros(2, 3, dtype=torch.bool))


def test_saturation_agrees_with_numpy() -> None:
    image = 1.2 * rand(9, 8, 7) - 0.1
    values = image.numpy()
    expected = np.mean((values <= 0.01) | (values >= 0.99))
    assert saturated_share(image, (0.0, 1.0)) == pytest.approx(expected)
    assert 0 < expected < 1


@pytest.mark.parametrize("grid", GRIDS)
def test_total_variation_is_the_mean_gradient_length(grid: Grid) -> None:
    image = rand(*grid.shape)
    square = np.zeros(grid.shape)
    for axis, size in enumerate(grid.voxel_size):
        line = image.double().numpy()
        square += (np.diff(line, axis=axis, append=np.take(line, [-1], axis=axis)) / size) ** 2
    expected = np.sqrt(square).mean()
    assert total_variation(image, grid) == pytest.approx(expected, rel=1e-4)
    pair = gradient_length(torch.stack([image, 2 * image])[:, None], grid)
    np.testing.assert_allclose(pair.numpy(), [expected, 2 * expected], rtol=1e-4)


def test_total_variation_of_a_ramp_is_its_slope_per_mm() -> None:
    ramp = (torch.arange(100.0) * 0.3)[:, None].expand(100, 5)
    assert total_variation(ramp, Grid((100, 5), (2.0, 1.0))) == pytest.approx(0.15 * 0.99, rel=1e-3)


# Selectivity.


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_layer_readings_are_what_every_channel_says_where_the_unit_reads(ndim: int) -> None:
    network = nn.Sequential(
        CONVOLUTIONS[ndim - 1](1, 4, 3), nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    image = rand(*(7,) * ndim)
    before = state(network)
    with torch.no_grad():
        maps, logits = network[0](image[None, None])[0], network(image[None, None])[0]
    place = (3, 1, 2)[:ndim]
    torch.testing.assert_close(layer_readings(network, Channel("0", 2), image), maps.flatten(1).mean(1))
    at_place = layer_readings(network, Neuron("0", 1, place), image)
    torch.testing.assert_close(at_place, maps[(slice(None), *place)])
    torch.testing.assert_close(
        layer_readings(network, Neuron("0", 0), image), maps[(slice(None), *(2,) * ndim)]
    )
    torch.testing.assert_close(layer_readings(network, ClassLogit("4", 0), image), logits)
    assert state(network) == before


def test_the_rank_of_a_network_made_by_hand_is_known() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, 4.0, -2.0, 3.0]).reshape(4, 1, 1, 1))
        network[0].bias.zero_()
    image = torch.full((5, 5), 0.5)
    said = layer_readings(network, Channel("0", 0), image)
    assert said.tolist() == [0.5, 2.0, -1.0, 1.5]
    assert [selectivity(said, None, None, channel) for channel in range(4)] == [3, 1, 4, 2]


def test_units_are_counted_in_widths_of_their_real_activations() -> None:
    said = torch.tensor([0.5, 2.0, -1.0, 1.5])
    low = torch.tensor([0.0, 1.9, -3.0, -1.5])
    high = torch.tensor([0.1, 3.9, -2.0, 8.5])
    # 5, 0.05, 2 and 0.3 widths.
    assert [selectivity(said, low, high, channel) for channel in range(4)] == [1, 4, 2, 3]


def test_a_unit_without_a_width_is_counted_in_the_median_of_the_others() -> None:
    low, high = torch.zeros(4), torch.tensor([0.0, 1.0, 2.0, 9.0])
    # In widths of 2, 1, 2 and 9: 2, 3, 0.5 and 1.
    said = torch.tensor([4.0, 3.0, 1.0, 9.0])
    assert [selectivity(said, low, high, channel) for channel in range(4)] == [2, 1, 4, 3]
    assert selectivity(said, low, low, 3) == 1


def test_equals_share_the_better_rank() -> None:
    said = torch.tensor([1.0, 3.0, 3.0, 0.0])
    assert [selectivity(said, None, None, channel) for channel in range(4)] == [3, 1, 1, 4]


# Agreement.


@pytest.mark.parametrize(
    ("shape", "shift"), [((40,), (-13,)), ((17, 20), (5, -6)), ((12, 11, 10), (3, -4, 2)), ((9, 1), (2, 0))]
)
def test_a_moved_copy_agrees_fully_whatever_its_gain_and_offset(
    shape: tuple[int, ...], shift: tuple[int, ...]
) -> None:
    axes = tuple(range(len(shape)))
    middle = tuple(slice(size // 2 - size // 8, size // 2 + size // 8 + 1) for size in shape)
    second = torch.full(shape, 0.2)
    second[middle] = rand(*second[middle].shape)
    first = second.roll(shift, axes)
    value, found = agreement(3 * first + 7, second)
    assert value == pytest.approx(1, abs=1e-6)
    assert found == shift
    assert agreement(second, first)[1] == tuple(-step for step in shift)


def test_without_offsets_it_is_the_correlation_of_scipy() -> None:
    # Contents of mean zero in the middle third never leave the overlap of such shifts: plain sums are enough.
    images = []
    for seed in (0, 1):
        content = rand(6, 5, 4, seed=seed).double()
        image = torch.zeros(18, 15, 12, dtype=torch.float64)
        image[6:12, 5:10, 4:8] = content - content.mean()
        images.append(image)
    one, other = (image.numpy() for image in images)
    plain = signal.correlate(one, other, mode="full") / np.sqrt(np.sum(one**2) * np.sum(other**2))
    best = np.unravel_index(plain.argmax(), plain.shape)
    value, shift = agreement(images[0], images[1])
    assert value == pytest.approx(plain.max(), abs=1e-9)
    assert shift == tuple(int(index) - size + 1 for index, size in zip(best, one.shape, strict=True))
    assert 0.05 < value < 0.9


@pytest.mark.parametrize("shape", [(9,), (6, 5), (4, 5, 3)])
def test_every_shift_is_compared_by_the_correlation_of_the_overlap(shape: tuple[int, ...]) -> None:
    first, second = rand(*shape), rand(*shape, seed=1) + 4
    one, other = first.double().numpy(), second.double().numpy()
    best, place = -2.0, None
    for shift in np.ndindex(*(2 * size - 1 for size in shape)):
        steps = [step - size + 1 for step, size in zip(shift, shape, strict=True)]
        left = one[tuple(slice(max(0, s), min(n, n + s)) for s, n in zip(steps, shape, strict=True))]
        right = other[tuple(slice(max(0, -s), min(n, n - s)) for s, n in zip(steps, shape, strict=True))]
        if left.var() * left.size < one.var() * one.size / 2:
            continue
        if right.var() * right.size < other.var() * other.size / 2:
            continue
        value = np.corrcoef(left.ravel(), right.ravel())[0, 1]
        if value > best:
            best, place = value, tuple(steps)
    found, shift = agreement(first, second)
    assert found == pytest.approx(best, abs=1e-9)
    assert shift == place


def test_constant_volumes_agree_with_nothing() -> None:
    image, zeros = rand(5, 6), torch.zeros(5, 6)
    for first, second in [(image, zeros), (zeros, image), (zeros, zeros), (zeros + 0.1, image)]:
        assert agreement(first, second) == (0.0, (0, 0))


def test_volumes_of_unlike_shape_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"\(5, 6\) and \(6, 5\); resample one"):
        agreement(rand(5, 6), rand(6, 5))
