"""Penalties against closed forms and numpy; the filter against the latent's image."""

import numpy as np
import pytest
import torch

from engine import L1, L2, Fourier, GaussianBlur, Grid, TotalVariation, Voxels
from engine.regularizer import REGULARIZERS

GRID = Grid((6, 7, 8), (2.0, 1.0, 0.5))


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(3, 1, *GRID.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "norm"), [(L1, np.abs), (L2, np.square)])
def test_norms_of_the_departure_from_the_start(kind: type, norm: np.ufunc, image: torch.Tensor) -> None:
    base = torch.full((), 0.4, dtype=torch.float64)
    expected = 3 * norm(image.numpy() - 0.4).reshape(3, -1).mean(1)
    np.testing.assert_allclose(kind(weight=3.0).penalty(image, base, GRID).numpy(), expected)
    assert not kind(weight=3.0).penalty(base.expand_as(image), base, GRID).any()


def test_total_variation_is_the_mean_gradient_length(image: torch.Tensor) -> None:
    values = image[0, 0].numpy()
    square = np.zeros_like(values)
    for axis, size in enumerate(GRID.voxel_size):
        difference = np.diff(values, axis=axis, append=np.take(values, [-1], axis=axis)) / size
        square += difference**2
    expected = 2 * np.sqrt(square + 1e-8).mean()
    assert TotalVariation(weight=2.0).penalty(image, image, GRID)[0].item() == pytest.approx(
        expected, rel=1e-6
    )


def test_total_variation_of_a_ramp_is_its_slope_per_mm() -> None:
    ramp = torch.arange(100.0)[None, None, :, None].expand(1, 1, 100, 5) * 0.3
    slope = TotalVariation(weight=1.0).penalty(ramp, ramp, Grid((100, 5), (2.0, 1.0)))
    assert slope.item() == pytest.approx(0.3 / 2 * 99 / 100, rel=1e-3)


def test_total_variation_has_a_finite_gradient_on_a_flat_image() -> None:
    flat = torch.ones(1, 1, *GRID.shape, requires_grad=True)
    (gradient,) = torch.autograd.grad(TotalVariation(weight=1.0).penalty(flat, flat, GRID).sum(), flat)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("kind", [L1, L2, TotalVariation])
def test_gradients_are_the_finite_differences(kind: type, image: torch.Tensor) -> None:
    start = torch.zeros((), dtype=torch.float64)
    leaf = image[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: kind(weight=2.0).penalty(x, start, GRID), leaf)


@pytest.mark.parametrize("kind", [L1, L2, TotalVariation])
def test_items_of_a_batch_do_not_leak(kind: type, image: torch.Tensor) -> None:
    base = torch.zeros((), dtype=torch.float64)
    together = kind(weight=1.0).penalty(image, base, GRID)
    alone = torch.cat([kind(weight=1.0).penalty(one[None], base, GRID) for one in image])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("parameterization", [Voxels(), Fourier()])
def test_the_blur_damps_high_frequencies_and_keeps_the_mean(parameterization: Voxels | Fourier) -> None:
    grid = Grid((16, 16, 16), (2.0, 2.0, 2.0))
    latent = parameterization.latent(grid, 1.0, torch.Generator().manual_seed(0), torch.device("cpu"))
    before = latent.image().detach().clone()
    GaussianBlur(fwhm_mm=6.0).after_step(latent, grid)
    after = latent.image().detach()
    roughness = [volume.diff(dim=-1).square().mean() for volume in (before, after)]
    assert roughness[1] < roughness[0] / 2
    assert after.mean().item() == pytest.approx(before.mean().item(), abs=1e-5)
    assert GaussianBlur().penalty(before, before, grid) is None


def test_every_regularizer_is_registered_under_its_name() -> None:
    assert {name: kind.name for name, kind in REGULARIZERS.items()} == {name: name for name in REGULARIZERS}
