"""Latents against numpy's Fourier transform and closed forms."""

import numpy as np
import pytest
import torch

from engine import Fourier, Grid, Voxels

CPU = torch.device("cpu")


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(40,), (24, 27), (15, 16, 18)])
def test_fourier_image_is_numpys_inverse_transform(shape: tuple[int, ...]) -> None:
    grid = Grid(shape, (2.0,) * len(shape))
    kind = Fourier(decay=1.2)
    latent = kind.latent(grid, 0.3, _generator(), CPU)
    values = latent.free.detach().numpy().astype(np.float64)
    spectrum = (values[..., 0] + 1j * values[..., 1]) * kind.scale(grid).numpy()
    axes = tuple(range(2, 2 + len(shape)))
    expected = np.fft.irfftn(spectrum, grid.fourier_shape, axes, norm="ortho")[(0, 0, *map(slice, shape))]
    np.testing.assert_allclose(latent.image()[0, 0].detach().numpy(), expected, atol=1e-5)


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


@pytest.mark.parametrize("kind", [Voxels(), Fourier(decay=0), Fourier(decay=1.5)])
@pytest.mark.parametrize("shape", [(1024,), (48, 50), (20, 21, 22)])
def test_noise_has_the_deviation_asked_for(kind: Voxels | Fourier, shape: tuple[int, ...]) -> None:
    grid = Grid(shape, (2.0,) * len(shape))
    squares = [
        kind.latent(grid, 0.2, _generator(seed), CPU).image().square().mean().item() for seed in range(200)
    ]
    assert np.sqrt(np.mean(squares)) == pytest.approx(0.2, rel=0.12)


@pytest.mark.parametrize("kind", [Voxels(), Fourier()])
def test_filtering_a_latent_filters_its_image(kind: Voxels | Fourier) -> None:
    grid = Grid((16, 18), (2.0, 2.0))  # sizes that need no padding, so the filter is exact
    latent = kind.latent(grid, 1.0, _generator(), CPU)
    transfer = grid.gaussian_transfer(9.0)
    expected = grid.from_spectrum(grid.to_spectrum(latent.image().detach()) * transfer)
    latent.filter_(transfer)
    torch.testing.assert_close(latent.image().detach(), expected.float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [Voxels(), Fourier()])
def test_the_gradient_reaches_the_free_numbers(kind: Voxels | Fourier) -> None:
    grid = Grid((5, 6, 7), (1.0, 1.0, 1.0))
    latent = kind.latent(grid, 1.0, _generator(), CPU)
    weights = torch.randn(1, 1, 5, 6, 7, generator=_generator(1))
    (gradient,) = torch.autograd.grad((latent.image() * weights).sum(), latent.free)
    step = torch.randn(latent.free.shape, generator=_generator(2))
    before = (latent.image() * weights).sum().item()
    with torch.no_grad():
        latent.free.add_(step)
    after = (latent.image() * weights).sum().item()
    assert after - before == pytest.approx((gradient * step).sum().item(), rel=1e-3)


def test_starts_of_different_seeds_differ() -> None:
    grid = Grid((9, 9), (1.0, 1.0))
    images = [Fourier().latent(grid, 1.0, _generator(seed), CPU).image() for seed in (0, 0, 1)]
    assert torch.equal(images[0], images[1])
    assert not torch.allclose(images[0], images[2])
