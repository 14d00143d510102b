"""Patterns pasted on brains, against pasting in numpy."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from engine import Anatomy, Channel, Grid, MissingAnatomy, Noise, Patch, ReferenceBrain, Zeros
from engine.parameterization.patch import PatchLatent
from tests.engine.stages import ANYWHERE, GRIDS, climb, gain, generator, image, stage


def _anatomy(grid: Grid, count: int = 3, **parts: Tensor) -> Anatomy:
    brains = torch.stack([image(grid, seed) for seed in range(count)])
    return Anatomy(reference=image(grid, 9), brains=brains, **parts)


def _latent(grid: Grid, anatomy: Anatomy, seeds: tuple[int, ...] = (0,), **settings: float) -> PatchLatent:
    return Patch(**settings).latent(stage(grid, ReferenceBrain(1.0), anatomy, seeds))


def _seen(latent: PatchLatent, copies: int, seeds: tuple[int, ...] = (0,)) -> Tensor:
    return latent.seen(latent.volume(), copies, [generator(seed) for seed in seeds])


def _places(grid: Grid, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    pairs = zip(grid.shape, shape, strict=True)
    return list(itertools.product(*(range(whole - size + 1) for whole, size in pairs)))


def _pasted(brain: Tensor, latent: PatchLatent, corner: tuple[int, ...], item: int = 0) -> np.ndarray:
    pattern, opacity = (part[item, 0].detach().numpy() for part in (latent.pattern(), latent.opacity()))
    result = brain.numpy().copy()
    box = tuple(slice(start, start + size) for start, size in zip(corner, pattern.shape, strict=True))
    result[box] = result[box] * (1 - opacity) + pattern * opacity
    return result


def _found(shown: Tensor, latent: PatchLatent, anatomy: Anatomy, grid: Grid) -> tuple[int, tuple[int, ...]]:
    """Return the brain and the corner that explain what is shown."""
    pairs = itertools.product(range(len(anatomy.brains)), _places(grid, latent.shape))
    fits = [
        (index, corner)
        for index, corner in pairs
        if np.allclose(_pasted(anatomy.brains[index], latent, corner), shown.detach().numpy(), atol=1e-6)
    ]
    assert len(fits) == 1
    return fits[0]


@ANYWHERE
def test_every_copy_is_a_brain_with_the_pattern_somewhere_and_all_of_them_occur(grid: Grid) -> None:
    anatomy = _anatomy(grid)
    latent = _latent(grid, anatomy, size_mm=8.0)
    found = [_found(shown[0], latent, anatomy, grid) for shown in _seen(latent, 60)]
    assert {index for index, _ in found} == {0, 1, 2}
    for axis, (whole, size) in enumerate(zip(grid.shape, latent.shape, strict=True)):
        assert {corner[axis] for _, corner in found} == set(range(whole - size + 1))


@ANYWHERE
def test_the_middle_lies_in_the_mask_and_where_the_window_shows_it(grid: Grid) -> None:
    mask = torch.rand(grid.shape, generator=generator(5)) < 0.6
    window = (torch.rand(grid.shape, generator=generator(6)) < 0.8).float()
    latent = _latent(grid, _anatomy(grid, mask=mask, window=window), size_mm=6.0)
    middles = {
        tuple(start + size // 2 for start, size in zip(corner, latent.shape, strict=True))
        for corner in _places(grid, latent.shape)
    }
    wanted = {place for place in middles if mask[place] and window[place]}
    half = torch.tensor([size // 2 for size in latent.shape])
    assert {tuple(corner.tolist()) for corner in latent.corners + half} == wanted
    assert 0 < len(wanted) < len(middles)


@ANYWHERE
def test_a_mask_that_no_place_meets_is_passed_over(grid: Grid) -> None:
    latent = _latent(grid, _anatomy(grid, mask=torch.zeros(grid.shape, dtype=torch.bool)), size_mm=6.0)
    assert {tuple(corner.tolist()) for corner in latent.corners} == set(_places(grid, latent.shape))


@ANYWHERE
@pytest.mark.parametrize("start", [ReferenceBrain(1.0), Noise(1.0), Zeros(1.0)])
def test_the_volume_shows_the_pattern_in_the_middle_of_the_start(
    grid: Grid, start: ReferenceBrain | Noise | Zeros
) -> None:
    anatomy = _anatomy(grid)
    latent = Patch(8.0).latent(stage(grid, start, anatomy))
    corner = tuple((whole - size) // 2 for whole, size in zip(grid.shape, latent.shape, strict=True))
    begin = start.begin(anatomy, (0.0, 1.0)).expand(grid.shape)
    expected = _pasted(begin, latent, corner)
    np.testing.assert_allclose(latent.volume()[0, 0].detach().numpy(), expected, atol=1e-6)
    opacity = np.zeros(grid.shape, np.float32)
    opacity[tuple(map(slice, corner, np.add(corner, latent.shape)))] = latent.opacity()[0, 0].detach()
    np.testing.assert_array_equal(latent.extras()["opacity"][0].detach().numpy(), opacity)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_the_opacity_begins_at_a_half_in_the_middle_and_falls_to_nothing_at_the_faces(ndim: int) -> None:
    grid = Grid((40,) * ndim, (1.0,) * ndim)
    latent = Patch(32.0).latent(stage(grid, ReferenceBrain(0), _anatomy(grid, 1)))
    place = (np.arange(32) + 0.5) / 32
    # A cosine from 0 at either face to 1 a quarter of the edge from it.
    rise = 0.5 - 0.5 * np.cos(np.pi * np.clip(np.minimum(place, 1 - place) / 0.25, 0, 1))
    expected = 0.5 * np.prod(np.meshgrid(*[rise] * ndim, indexing="ij"), axis=0)
    found = latent.opacity()[0, 0].detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[(16,) * ndim] == 0.5
    assert found[0].max() < 0.005
    assert torch.equal(latent.pattern(), torch.full_like(latent.pattern(), 0.5))


@pytest.mark.parametrize(
    ("size", "shape"), [(40.0, (6, 11)), (12.0, (6, 8)), (7.0, (4, 5)), (0.1, (1, 1)), (15.0, (6, 10))]
)
def test_the_pattern_is_as_large_as_asked_where_it_fits(size: float, shape: tuple[int, ...]) -> None:
    grid = GRIDS[1]
    latent = _latent(grid, _anatomy(grid), size_mm=size)
    assert latent.pattern().shape == latent.opacity().shape == (1, 1, *shape)
    assert _seen(latent, 3).shape == (3, 1, *grid.shape)


@ANYWHERE
def test_the_penalty_is_the_weighted_mean_opacity(grid: Grid) -> None:
    latent = _latent(grid, _anatomy(grid), seeds=(0, 1), size_mm=8.0, sparsity=0.7)
    expected = [0.7 * opacity.mean().item() for opacity in latent.opacity()]
    assert latent.penalties()["opacity"].tolist() == pytest.approx(expected)


def test_where_the_window_is_zero_the_surroundings_show() -> None:
    grid = GRIDS[2]
    window = torch.rand(grid.shape, generator=generator(2)).round()
    anatomy = _anatomy(grid, window=window)
    latent = _latent(grid, anatomy, size_mm=8.0)
    for shown in (*_seen(latent, 3)[:, 0], latent.volume()[0, 0]):
        assert torch.equal(shown[window == 0], anatomy.reference[window == 0])


@ANYWHERE
def test_copies_lie_next_to_each_other_and_draw_from_their_items_generator_alone(grid: Grid) -> None:
    anatomy = _anatomy(grid)
    together = _latent(grid, anatomy, seeds=(3, 4), size_mm=6.0)
    state = torch.get_rng_state()
    shown = _seen(together, 4, seeds=(5, 6))
    assert torch.equal(state, torch.get_rng_state())
    for item, (noise, draw) in enumerate([(3, 5), (4, 6)]):
        alone = _seen(_latent(grid, anatomy, seeds=(noise,), size_mm=6.0), 4, seeds=(draw,))
        torch.testing.assert_close(shown.chunk(2)[item], alone)


@ANYWHERE
def test_gradients_are_the_finite_differences(grid: Grid) -> None:
    latent = _latent(grid, _anatomy(grid), seeds=(0, 1), size_mm=5.0)

    def outputs(*free: Tensor) -> tuple[Tensor, ...]:
        latent.free = list(free)
        return _seen(latent, 2, seeds=(1, 2)), latent.volume(), latent.penalties()["opacity"]

    leaves = [free.detach().double().requires_grad_() for free in latent.free]
    assert torch.autograd.gradcheck(outputs, leaves)


def test_brains_are_needed() -> None:
    with pytest.raises(MissingAnatomy, match=r"patch parameterization needs Spec\.anatomy\.brains"):
        Patch().latent(stage(GRIDS[0]))


@ANYWHERE
def test_a_unit_is_driven_on_every_brain_and_repeats_bit_for_bit(grid: Grid) -> None:
    # Brains that are almost alike: the few that a step draws must not hide the gain.
    brains = 0.5 + 0.02 * (_anatomy(grid).brains - 0.5)
    anatomy = Anatomy(reference=brains[0], brains=brains)
    runs = [climb(Patch(8.0, 0.001), grid, anatomy, Channel("2", 1), seed=3) for _ in range(2)]
    assert gain(runs[0]) > 0.001
    assert torch.equal(runs[0][-1].image, runs[1][-1].image)
    assert runs[0][-1].extras.keys() == {"opacity"}
    assert runs[0][0].penalties.keys() == {"opacity"}


@ANYWHERE
def test_a_costly_opacity_ends_lower(grid: Grid) -> None:
    ends = [
        climb(Patch(8.0, sparsity), grid, _anatomy(grid), Channel("2", 1))[-1].extras["opacity"].mean()
        for sparsity in (0.0, 30.0)
    ]
    assert ends[1] < 0.8 * ends[0]
