"""The grid's spectra against numpy and scipy."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from engine import Grid


def test_frequencies_are_those_of_numpy_in_cycles_per_mm() -> None:
    grid = Grid((8, 9, 10), (2.0, 1.0, 0.5))
    i, j, k = np.fft.fftfreq(8, 2.0), np.fft.fftfreq(9, 1.0), np.fft.rfftfreq(10, 0.5)
    expected = np.sqrt(i[:, None, None] ** 2 + j[None, :, None] ** 2 + k[None, None, :] ** 2)
    np.testing.assert_allclose(grid.frequencies.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(("size", "padded"), [(109, 112), (91, 96), (64, 64), (13, 14), (1, 1)])
def test_fourier_sizes_have_small_prime_factors(size: int, padded: int) -> None:
    assert Grid((size,), (1.0,)).fourier_shape == (padded,)


@pytest.mark.parametrize("shape", [(15,), (11, 13), (7, 11, 13)])
def test_spectrum_and_back_is_the_image(shape: tuple[int, ...]) -> None:
    grid = Grid(shape, (2.0,) * len(shape))
    image = torch.randn(2, 1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(grid.from_spectrum(grid.to_spectrum(image)), image, rtol=1e-10, atol=1e-10)


def test_gaussian_transfer_filters_as_scipy_does() -> None:
    grid = Grid((64, 64), (2.0, 2.0))
    image = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    image[0, 0, 30, 33] = 1
    filtered = grid.from_spectrum(grid.to_spectrum(image) * grid.gaussian_transfer(12.0))
    sigma_voxels = 12.0 / 2.354820045 / 2.0
    expected = ndimage.gaussian_filter(image[0, 0].numpy(), sigma_voxels, mode="wrap", truncate=8)
    np.testing.assert_allclose(filtered[0, 0].numpy(), expected, atol=1e-6)


def test_full_width_at_half_maximum_is_what_it_says() -> None:
    grid = Grid((256,), (1.0,))
    line = torch.zeros(1, 1, 256, dtype=torch.float64)
    line[0, 0, 128] = 1
    profile = grid.from_spectrum(grid.to_spectrum(line) * grid.gaussian_transfer(20.0))[0, 0]
    assert profile[128 + 10] / profile[128] == pytest.approx(0.5, abs=1e-3)
