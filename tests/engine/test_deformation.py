"""Flows against scipy's integrator, closed forms and what happens to a ball."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.integrate import solve_ivp
from torch import Tensor

from engine import (
    Anatomy,
    Deformation,
    Grid,
    InvalidField,
    Neuron,
    Noise,
    ReferenceBrain,
    SubjectImage,
    Zeros,
)
from engine.parameterization.deformation import DeformationLatent, flow, jacobian, sampled
from tests.engine.stages import ANYWHERE, GRIDS, climb, gain, generator, image, stage

BOXES = [Grid((24,), (2.0,)), Grid((20, 24), (2.0, 1.5)), Grid((16, 18, 20), (2.0, 1.5, 2.0))]
IN_A_BOX = pytest.mark.parametrize("grid", BOXES, ids=["1d", "2d", "3d"])


def _places(grid: Grid) -> np.ndarray:
    """Return millimetres from the grid's middle, (ndim, *shape)."""
    lines = [(np.arange(n) + 0.5 - n / 2) * d for n, d in zip(grid.shape, grid.voxel_size, strict=True)]
    return np.stack(np.meshgrid(*lines, indexing="ij"))


def _closed(grid: Grid) -> Tensor:
    """Return a share that is smooth and 0 at the faces."""
    lines = [np.sin(np.pi * np.linspace(0, 1, n)) ** 2 for n in grid.shape]
    return torch.from_numpy(np.prod(np.meshgrid(*lines, indexing="ij"), axis=0)).float()


def _latent(
    grid: Grid, strength: float, seed: int = 0, window: Tensor | None = None, **settings: float
) -> DeformationLatent:
    """A latent whose free numbers are noise of a strength."""
    anatomy = Anatomy(reference=image(grid, 9), window=window)
    latent = Deformation(**settings).latent(stage(grid, ReferenceBrain(0), anatomy))
    with torch.no_grad():
        latent.free[0].copy_(strength * torch.randn(latent.free[0].shape, generator=generator(seed)))
    return latent


def _smooth_velocity(grid: Grid, seed: int = 0) -> Tensor:
    """A closed velocity that moves tissue by voxels."""
    return (
        (_latent(grid, 6.0, seed, smoothness_mm=14.0, reach_mm=40.0).velocity() * _closed(grid))
        .detach()
        .double()
    )


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    ndim=st.integers(1, 3),
    smoothness=st.floats(0.5, 30),
    reach=st.floats(0.1, 100),
    strength=st.floats(0, 30),
    masked=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_the_jacobian_is_positive_for_any_free_numbers(
    data: st.DataObject,
    ndim: int,
    smoothness: float,
    reach: float,
    strength: float,
    masked: bool,
    seed: int,
) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 12)] * ndim))
    grid = Grid(shape, data.draw(st.tuples(*[st.floats(0.5, 4)] * ndim)))
    window = torch.rand(shape, generator=generator(seed)).round() if masked else None
    latent = _latent(grid, strength, seed, window, smoothness_mm=smoothness, reach_mm=reach)
    for sign in (1, -1):
        assert jacobian(flow(sign * latent.velocity(), grid), grid).min() > 0


@ANYWHERE
@pytest.mark.parametrize("smoothness", [0.5, 4.0])
def test_the_jacobian_stays_positive_when_driven_to_zero(grid: Grid, smoothness: float) -> None:
    latent = _latent(grid, 1.0, smoothness_mm=smoothness, reach_mm=100.0)
    optimizer = torch.optim.Adam(latent.free, 0.1)
    for _ in range(80):
        optimizer.zero_grad()
        lowest = -torch.logsumexp(-30 * latent.extras()["jacobian"].flatten(), 0)
        lowest.backward()
        optimizer.step()
    found = latent.extras()["jacobian"].min().item()
    # Three axes that each shrink by e: the slope's bound is felt, and it holds.
    assert 0.02 < found < 0.5


@ANYWHERE
def test_without_velocity_the_start_stays_and_nothing_grows(grid: Grid) -> None:
    latent = _latent(grid, 0.0)
    torch.testing.assert_close(latent.volume()[0, 0].detach(), image(grid, 9), atol=1e-5, rtol=0)
    assert torch.equal(latent.extras()["jacobian"], torch.ones(1, *grid.shape))


@IN_A_BOX
def test_flows_are_scipys_integrals(grid: Grid) -> None:
    velocity = _smooth_velocity(grid)
    found = flow(velocity, grid)[0].numpy()
    field, steps = velocity[0].numpy(), np.array(grid.voxel_size)

    def speed(_: float, place: np.ndarray) -> np.ndarray:
        voxel = place.reshape(grid.ndim, -1) / steps[:, None]
        return np.stack([ndimage.map_coordinates(axis, voxel, order=1, mode="nearest") for axis in field])

    begin = np.indices(grid.shape).reshape(grid.ndim, -1) * steps[:, None]
    end = solve_ivp(lambda t, y: speed(t, y).ravel(), (0, 1), begin.ravel(), rtol=1e-6).y[:, -1]
    expected = (end.reshape(begin.shape) - begin).reshape(found.shape)
    assert np.abs(expected).max() > 1.5
    np.testing.assert_allclose(found, expected, atol=0.08)


@IN_A_BOX
def test_backwards_undoes_forwards(grid: Grid) -> None:
    velocity = _smooth_velocity(grid)
    there, back = flow(velocity, grid), flow(-velocity, grid)
    assert there.abs().max() > 1.5
    for first, second in ((there, back), (back, there)):
        left = first + sampled(second, first, grid)
        # Linear interpolation leaves less than a tenth of a voxel.
        assert left.abs().max() < 0.15


@IN_A_BOX
@pytest.mark.parametrize("rate", [-0.5, -0.2])
def test_a_uniform_shrinking_has_the_exponential_jacobian(grid: Grid, rate: float) -> None:
    places = torch.from_numpy(_places(grid))[None]
    moved = flow(rate * places, grid)
    torch.testing.assert_close(moved, places * (np.exp(rate) - 1), atol=0.02, rtol=0.01)
    expected = torch.full((1, *grid.shape), np.exp(grid.ndim * rate), dtype=torch.float64)
    torch.testing.assert_close(jacobian(moved, grid), expected, atol=0, rtol=0.01)


@ANYWHERE
def test_the_jacobian_is_numpys(grid: Grid) -> None:
    moved = torch.randn(2, grid.ndim, *grid.shape, generator=generator()).double()
    found = jacobian(moved, grid).numpy()
    for index, field in enumerate(moved.numpy()):
        matrix = np.zeros((*grid.shape, grid.ndim, grid.ndim))
        for axis in range(grid.ndim):
            for by, step in enumerate(grid.voxel_size):
                matrix[..., axis, by] = np.gradient(field[axis], step, axis=by) + (axis == by)
        np.testing.assert_allclose(found[index], np.linalg.det(matrix))


@ANYWHERE
def test_images_are_read_as_scipy_does(grid: Grid) -> None:
    picture = torch.randn(2, 3, *grid.shape, generator=generator(1)).double()
    moved = 3 * torch.randn(2, grid.ndim, *grid.shape, generator=generator(2)).double()
    found = sampled(picture, moved, grid).numpy()
    view = (-1, *(1,) * grid.ndim)
    for index in range(2):
        voxel = np.indices(grid.shape) + moved[index].numpy() / np.reshape(grid.voxel_size, view)
        for channel in range(3):
            one = picture[index, channel].numpy()
            expected = ndimage.map_coordinates(one, voxel, order=1, mode="nearest")
            np.testing.assert_allclose(found[index, channel], expected, atol=1e-9)


@IN_A_BOX
def test_a_closed_box_keeps_its_volume(grid: Grid) -> None:
    growth = jacobian(flow(_smooth_velocity(grid), grid), grid)
    assert growth.max() - growth.min() > 0.3
    # A sum over voxels counts those at the faces whole: half of each belongs to the box.
    inside = growth[0].numpy()
    for axis, size in reversed(list(enumerate(grid.shape))):
        inside = np.trapezoid(inside, axis=axis) / (size - 1)
    assert inside == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_ball_that_grows_has_a_jacobian_above_one_by_as_much_as_it_has_grown(ndim: int, sign: int) -> None:
    grid = Grid((32,) * ndim, (2.0,) * ndim)
    places = torch.from_numpy(_places(grid)).float()
    distance = places.square().sum(0).sqrt()
    ball = torch.sigmoid((14 - distance) / 1.5)
    latent = Deformation(8.0, 6.0).latent(stage(grid, ReferenceBrain(0), Anatomy(reference=ball)))
    with torch.no_grad():
        # The push is outwards and fades away from the ball.
        push = sign * 0.05 * places * torch.exp(-((distance / 18) ** 4))
        latent.free[0].copy_(push[None])
    growth = latent.extras()["jacobian"][0].detach()
    before, after = ball.sum().item(), latent.volume().sum().item()
    assert (after / before > 1.1**ndim) if sign > 0 else (after / before < 0.9**ndim)
    assert ((growth[distance < 8] - 1) * sign > 0).all()
    assert (growth * ball).sum().item() == pytest.approx(after, rel=0.02)


@IN_A_BOX
def test_where_the_window_is_zero_the_surroundings_stay_to_the_bit(grid: Grid) -> None:
    window = torch.from_numpy((np.abs(_places(grid)) < 12).all(0)).float()
    latent = _latent(grid, 5.0, window=window, smoothness_mm=6.0)
    volume = latent.volume()[0, 0].detach()
    assert torch.equal(volume[window == 0], image(grid, 9)[window == 0])
    assert (volume - image(grid, 9)).abs().max() > 0.02


@IN_A_BOX
def test_a_masks_sharp_edge_does_not_slow_down_what_lies_deep_inside(grid: Grid) -> None:
    window = torch.from_numpy((np.abs(_places(grid)) < 12).all(0)).float()
    latent = _latent(grid, 0.0, window=window, smoothness_mm=10.0)
    with torch.no_grad():
        latent.free[0][:, 0] = 1.0
    # A jump at the edge could be no higher than the slope's bound times a voxel, 2 mm.
    assert latent.velocity().abs().max() > 2.1


def test_a_subjects_image_goes_on_outside_as_the_subjects() -> None:
    grid = BOXES[1]
    window = torch.from_numpy((np.abs(_places(grid)) < 12).all(0)).float()
    anatomy = Anatomy(reference=image(grid, 1), subject=image(grid, 2), window=window)
    volume = Deformation().latent(stage(grid, SubjectImage(5.0), anatomy)).volume()[0, 0]
    assert torch.equal(volume[window == 0], image(grid, 2)[window == 0])


@IN_A_BOX
def test_the_velocity_is_scipys_smoothing_within_the_reach(grid: Grid) -> None:
    latent = _latent(grid, 0.5, smoothness_mm=6.0, reach_mm=2.0)
    raw = 2 * np.tanh(latent.free[0][0].detach().double().numpy())
    sigma = [6 / 2.3548200450309493 / step for step in grid.voxel_size]
    smoothed = np.stack([ndimage.gaussian_filter(one, sigma, mode="constant", truncate=20) for one in raw])
    weights = ndimage.gaussian_filter(np.ones(grid.shape), sigma, mode="constant", truncate=20)
    found = latent.velocity()[0].detach().numpy()
    np.testing.assert_allclose(found, smoothed / weights, atol=1e-4)
    assert _latent(grid, 1e6, smoothness_mm=200.0, reach_mm=2.0).velocity().abs().max() <= 2 + 1e-5


@ANYWHERE
def test_no_neighbors_are_slower_or_faster_than_a_millimetre_in_a_millimetre(grid: Grid) -> None:
    velocity = _latent(grid, 9.0, smoothness_mm=1.0, reach_mm=100.0).velocity()[0].detach().numpy()
    slopes = [np.abs(np.diff(velocity, axis=1 + a)).max() / d for a, d in enumerate(grid.voxel_size)]
    assert 0.9 / grid.ndim < max(slopes) < 1.001


def test_the_deviation_is_millimetres() -> None:
    grid = Grid((40, 40), (2.0, 2.0))
    anatomy = Anatomy(reference=image(grid))
    latent = Deformation(reach_mm=4.0).latent(stage(grid, ReferenceBrain(0.2), anatomy))
    assert 4 * latent.free[0].detach().std().item() == pytest.approx(0.2, rel=0.1)


@pytest.mark.parametrize("start", [Noise(), Zeros()])
def test_a_constant_start_is_refused(start: Noise | Zeros) -> None:
    with pytest.raises(InvalidField, match=f"start is {start.name}") as caught:
        Deformation().latent(stage(GRIDS[1], start))
    assert caught.value.field == "start"


@ANYWHERE
def test_gradients_are_the_finite_differences(grid: Grid) -> None:
    latent = _latent(grid, 0.4, window=0.3 + 0.7 * _closed(grid), smoothness_mm=5.0)

    def outputs(free: Tensor) -> tuple[Tensor, Tensor]:
        latent.free[0] = free
        return latent.volume(), latent.extras()["jacobian"]

    leaf = latent.free[0].detach().double().requires_grad_()
    assert torch.autograd.gradcheck(outputs, leaf, fast_mode=True)


@ANYWHERE
def test_an_item_of_a_batch_is_what_it_is_alone(grid: Grid) -> None:
    # The first item's velocity is so steep that it is slowed down; the second's is not.
    together = Deformation(2.0).latent(stage(grid, ReferenceBrain(1.0), seeds=(3, 4)))
    alone = Deformation(2.0).latent(stage(grid, ReferenceBrain(1.0), seeds=(4,)))
    with torch.no_grad():
        together.free[0][0].mul_(1000)
    torch.testing.assert_close(together.volume()[1:], alone.volume())
    torch.testing.assert_close(together.extras()["jacobian"][1:], alone.extras()["jacobian"])


@IN_A_BOX
def test_a_unit_is_driven_and_repeats_bit_for_bit(grid: Grid) -> None:
    anatomy = Anatomy(reference=image(grid, 9), window=_closed(grid))
    runs = [climb(Deformation(6.0), grid, anatomy, Neuron("2", 1)) for _ in range(2)]
    assert gain(runs[0]) > 0.02
    assert torch.equal(runs[0][-1].image, runs[1][-1].image)
    assert runs[0][-1].extras["jacobian"].min() > 0
