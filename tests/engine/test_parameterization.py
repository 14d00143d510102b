"""Images held as voxels, frequencies and levels, against numpy, scipy and closed forms."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from engine import Anatomy, Fourier, Grid, LaplacianPyramid, Noise, ReferenceBrain, Voxels
from engine.parameterization import PARAMETERIZATIONS, FreeImage, Parameterization
from engine.start import STARTS
from tests.engine.stages import ANYWHERE, generator, image, stage

KINDS = [Voxels(), Fourier(decay=0), Fourier(), LaplacianPyramid(1), LaplacianPyramid()]
EACH = pytest.mark.parametrize("kind", KINDS, ids=repr)


def _latent(kind: Parameterization, grid: Grid, deviation: float = 0.3, seed: int = 0) -> FreeImage:
    latent = kind.latent(stage(grid, Noise(deviation), seeds=(seed,)))
    assert isinstance(latent, FreeImage)
    return latent


@pytest.mark.parametrize("shape", [(40,), (24, 27), (15, 16, 18)])
def test_fourier_image_is_numpys_inverse_transform(shape: tuple[int, ...]) -> None:
    grid = Grid(shape, (2.0,) * len(shape))
    kind = Fourier(decay=1.2)
    latent = _latent(kind, grid)
    values = latent.free[0].detach().numpy().astype(np.float64)
    spectrum = (values[..., 0] + 1j * values[..., 1]) * kind.scale(grid).numpy()
    axes = tuple(range(2, 2 + len(shape)))
    expected = np.fft.irfftn(spectrum, grid.fourier_shape, axes, norm="ortho")[(0, 0, *map(slice, shape))]
    np.testing.assert_allclose(latent.unbounded()[0, 0].detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("shape", "decay"), [((128, 128), 1.0), ((64, 64, 64), 1.5)])
def test_decay_of_half_the_rank_gives_octaves_equal_energy(shape: tuple[int, ...], decay: float) -> None:
    grid = Grid(shape, (1.0,) * len(shape))
    energy = Fourier(decay=decay).scale(grid) ** 2
    radius = grid.frequencies
    octaves = [energy[(radius >= low) & (radius < 2 * low)].sum() for low in (1 / 16, 1 / 8, 1 / 4)]
    assert max(octaves) / min(octaves) < 1.15


def test_decay_of_one_favors_high_frequencies_in_three_dimensions() -> None:
    grid = Grid((64, 64, 64), (1.0, 1.0, 1.0))
    energy = Fourier(decay=1.0).scale(grid) ** 2
    radius = grid.frequencies
    low, high = ((energy[(radius >= f) & (radius < 2 * f)]).sum() for f in (1 / 16, 1 / 4))
    assert high / low > 3


@pytest.mark.parametrize("kind", [Voxels(), Fourier(decay=0), Fourier(decay=1.5)], ids=repr)
@pytest.mark.parametrize("shape", [(1024,), (48, 50), (20, 21, 22)])
def test_noise_has_the_deviation_asked_for(kind: Parameterization, shape: tuple[int, ...]) -> None:
    grid = Grid(shape, (2.0,) * len(shape))
    squares = [
        _latent(kind, grid, deviation=0.2, seed=seed).unbounded().square().mean().item()
        for seed in range(200)
    ]
    assert np.sqrt(np.mean(squares)) == pytest.approx(0.2, rel=0.12)


def test_pyramids_levels_share_the_variance() -> None:
    latent = _latent(LaplacianPyramid(4), Grid((64, 64, 64), (1.0,) * 3), deviation=0.2)
    assert [tuple(level.shape[2:]) for level in latent.free] == [(n,) * 3 for n in (64, 32, 16, 8)]
    for level in latent.free:
        assert level.detach().std().item() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("shape", [(32,), (16, 32), (16, 8, 32)])
def test_pyramid_is_a_sum_of_scipys_zooms(shape: tuple[int, ...]) -> None:
    latent = _latent(LaplacianPyramid(2), Grid(shape, (1.0,) * len(shape)))
    fine, coarse = (level[0, 0].detach().numpy() for level in latent.free)
    # Voxels as cells, the border repeated: scipy's grid mode.
    zoomed = ndimage.zoom(coarse, 2, order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(latent.unbounded()[0, 0].detach().numpy(), fine + zoomed, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "levels"),
    [((9, 30), [(9, 30), (5, 15)]), ((7, 64), [(7, 64)]), ((33,), [(33,), (17,), (9,), (5,)])],
)
def test_no_level_is_made_smaller_than_four_voxels(
    shape: tuple[int, ...], levels: list[tuple[int, ...]]
) -> None:
    assert LaplacianPyramid(8).shapes(Grid(shape, (1.0,) * len(shape))) == levels


@ANYWHERE
@EACH
def test_an_assigned_image_is_shown(kind: Parameterization, grid: Grid) -> None:
    latent = _latent(kind, grid)
    assert isinstance(latent, FreeImage)
    wanted = torch.randn(1, 1, *grid.shape, generator=generator(5))
    latent.assign_(wanted)
    torch.testing.assert_close(latent.unbounded().detach(), wanted, atol=1e-5, rtol=1e-4)


@ANYWHERE
@EACH
def test_free_image_says_what_the_latent_is(kind: Parameterization, grid: Grid) -> None:
    assert kind.free_image == isinstance(kind.latent(stage(grid)), FreeImage)


@pytest.mark.parametrize("kind", [Voxels(), Fourier(), LaplacianPyramid()], ids=repr)
def test_filtering_a_latent_filters_its_image(kind: Parameterization) -> None:
    grid = Grid((16, 18), (2.0, 2.0))  # sizes that need no padding, so the filter is exact
    latent = _latent(kind, grid, deviation=1.0)
    transfer = grid.gaussian_transfer(9.0)
    before = latent.unbounded().detach()
    axes = (2, 3)
    spectrum = np.fft.rfftn(before.numpy(), axes=axes) * transfer.numpy()
    latent.assign_(grid.from_spectrum(grid.to_spectrum(before) * transfer).float())
    expected = np.fft.irfftn(spectrum, (16, 18), axes)
    np.testing.assert_allclose(latent.unbounded().detach().numpy(), expected, atol=1e-5)


@ANYWHERE
@EACH
def test_the_gradient_reaches_the_free_numbers(kind: Parameterization, grid: Grid) -> None:
    latent = _latent(kind, grid, deviation=1.0)
    weights = torch.randn(1, 1, *grid.shape, generator=generator(1))
    gradients = torch.autograd.grad((latent.unbounded() * weights).sum(), latent.free)
    steps = [torch.randn(free.shape, generator=generator(2)) for free in latent.free]
    before = (latent.unbounded() * weights).sum().item()
    with torch.no_grad():
        for free, step in zip(latent.free, steps, strict=True):
            free.add_(step)
    after = (latent.unbounded() * weights).sum().item()
    expected = sum((gradient * step).sum().item() for gradient, step in zip(gradients, steps, strict=True))
    assert after - before == pytest.approx(expected, rel=1e-3, abs=1e-4)


@EACH
def test_starts_of_different_seeds_differ(kind: Parameterization) -> None:
    grid = Grid((9, 9), (1.0, 1.0))
    images = [_latent(kind, grid, seed=seed).unbounded() for seed in (0, 0, 1)]
    assert torch.equal(images[0], images[1])
    assert not torch.allclose(images[0], images[2])


@ANYWHERE
@EACH
def test_an_item_of_a_batch_begins_as_it_would_alone(kind: Parameterization, grid: Grid) -> None:
    together = kind.latent(stage(grid, seeds=(3, 4))).volume()
    alone = kind.latent(stage(grid, seeds=(4,))).volume()
    torch.testing.assert_close(together[1:], alone)


@ANYWHERE
@EACH
@pytest.mark.parametrize("start", STARTS.values())
def test_without_noise_the_volume_is_the_start(kind: Parameterization, grid: Grid, start: type) -> None:
    anatomy = Anatomy(reference=image(grid, 1), subject=image(grid, 2))
    made = stage(grid, start(0.0), anatomy)
    begin = start(0.0).begin(anatomy, (0.0, 1.0)).expand(1, 1, *grid.shape)
    torch.testing.assert_close(kind.latent(made).volume().detach(), begin.float(), atol=1e-6, rtol=0)


@ANYWHERE
@EACH
def test_no_latent_leaves_the_intensity_range(kind: Parameterization, grid: Grid) -> None:
    volume = kind.latent(stage(grid, ReferenceBrain(10.0), span=(0.1, 0.9))).volume()
    assert volume.min() >= 0.1
    assert volume.max() <= 0.9
    assert volume.detach().std() > 0.2


def test_every_parameterization_is_found_by_its_name() -> None:
    names = {"voxels", "fourier", "laplacian_pyramid", "maco", "patch", "deformation"}
    assert {kind().name for kind in PARAMETERIZATIONS.values()} == set(PARAMETERIZATIONS) == names
