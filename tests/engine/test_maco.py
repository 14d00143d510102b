"""Phases under a fixed magnitude, against numpy's Fourier transform."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from engine import Anatomy, Grid, InvalidField, Maco, MissingAnatomy, Neuron, Noise, ReferenceBrain, Zeros
from tests.engine.stages import ANYWHERE, GRIDS, climb, gain, generator, image, stage

# Odd, even and both: the coefficients that are their own opposites differ.
SIZES = [Grid(shape, (2.0,) * len(shape)) for shape in [(9,), (12,), (5, 9), (6, 8), (5, 6, 7), (6, 7, 8)]]
EVERY_SIZE = pytest.mark.parametrize("grid", [*SIZES, *GRIDS], ids=lambda grid: str(grid.shape))


def _magnitude(grid: Grid, scale: float = 1.0) -> Tensor:
    """Mean magnitude of some images."""
    images = [
        scale * torch.randn(grid.fourier_shape, generator=generator(seed)).double() for seed in range(3)
    ]
    half = [np.abs(np.fft.rfftn(one.numpy(), norm="ortho")) for one in images]
    return torch.from_numpy(np.mean(half, axis=0)).float()


def _anatomy(grid: Grid, scale: float = 1.0, seed: int = 9) -> Anatomy:
    return Anatomy(reference=image(grid, seed), magnitude=_magnitude(grid, scale))


@EVERY_SIZE
@pytest.mark.parametrize("start", [ReferenceBrain(3.0), Noise()])
def test_the_magnitude_is_the_priors_at_every_coefficient(grid: Grid, start: ReferenceBrain | Noise) -> None:
    anatomy = _anatomy(grid)
    latent = Maco().latent(stage(grid, start, anatomy, seeds=(0, 1)))
    with torch.no_grad():
        latent.free[0].add_(torch.randn(latent.free[0].shape, generator=generator(4)))
    for shown in latent.unclamped()[:, 0].detach().numpy():
        found = np.abs(np.fft.rfftn(shown.astype(np.float64), norm="ortho")).ravel()
        np.testing.assert_allclose(found[1:], anatomy.magnitude.numpy().ravel()[1:], atol=2e-5)


@EVERY_SIZE
def test_an_image_with_the_priors_magnitude_is_its_own_start(grid: Grid) -> None:
    brain = image(grid)
    pads = [(0, more - size) for size, more in zip(grid.shape, grid.fourier_shape, strict=True)]
    whole = np.pad(brain.double().numpy(), pads, mode="edge")
    own = torch.from_numpy(np.abs(np.fft.rfftn(whole, norm="ortho"))).float()
    latent = Maco().latent(stage(grid, ReferenceBrain(0), Anatomy(reference=brain, magnitude=own)))
    torch.testing.assert_close(latent.volume()[0, 0].detach(), brain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("grid", SIZES, ids=lambda grid: str(grid.shape))
@pytest.mark.parametrize("shift", [0.0, -1.0])
def test_the_mean_is_the_starts_with_its_sign(grid: Grid, shift: float) -> None:
    brain = image(grid) + shift
    anatomy = Anatomy(reference=brain, magnitude=_magnitude(grid))
    latent = Maco().latent(stage(grid, ReferenceBrain(2.0), anatomy, span=(-9.0, 9.0)))
    shown = latent.unclamped()[(0, 0, *map(slice, grid.shape))].mean().item()
    if grid.shape == grid.fourier_shape:
        assert shown == pytest.approx(brain.mean().item(), abs=1e-5)
    assert latent.unclamped().mean().item() * shift >= 0


def test_noise_has_phases_of_all_angles_around_middle_grey() -> None:
    grid = Grid((20, 20), (2.0, 2.0))
    latent = Maco().latent(stage(grid, Noise(), _anatomy(grid), seeds=(0, 1), span=(0.0, 3.0)))
    phases = latent.free[0].detach()
    assert phases.abs().max() <= math.pi + 1e-6
    shares = torch.histc(phases, bins=4, min=-math.pi, max=math.pi) / phases.numel()
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.06, rtol=0)
    assert not torch.allclose(phases[0], phases[1])
    torch.testing.assert_close(latent.unclamped().mean((1, 2, 3)).detach(), torch.full((2,), 1.5))


def test_the_deviation_is_radians() -> None:
    grid = Grid((40, 40), (2.0, 2.0))
    begin, noisy = (
        Maco().latent(stage(grid, ReferenceBrain(d), _anatomy(grid))).free[0].detach() for d in (0, 0.2)
    )
    assert (noisy - begin).std().item() == pytest.approx(0.2, rel=0.1)


@ANYWHERE
def test_gradients_are_the_finite_differences(grid: Grid) -> None:
    latent = Maco().latent(stage(grid, None, _anatomy(grid, 0.3), seeds=(0, 1), span=(-9.0, 9.0)))

    def volume(phases: Tensor) -> Tensor:
        latent.free[0] = phases
        return latent.volume()

    assert torch.autograd.gradcheck(volume, latent.free[0].detach().double().requires_grad_())


@ANYWHERE
@pytest.mark.parametrize("beyond", ["above", "below"])
def test_out_of_range_the_gradient_passes_only_where_descent_leads_back(grid: Grid, beyond: str) -> None:
    span = (0.0, 0.1) if beyond == "above" else (5.0, 6.0)
    anatomy = Anatomy(reference=image(grid, 9) + 1, magnitude=_magnitude(grid, 0.01))
    latent = Maco().latent(stage(grid, None, anatomy, span=span))
    back = torch.rand(1, 1, *grid.shape, generator=generator(3)) * (1 if beyond == "above" else -1)
    inside = tuple(slice(size) for size in grid.shape)
    for weights, expected in ((back, 1), (-back, 0)):
        (found,) = torch.autograd.grad((weights * latent.volume()).sum(), latent.free)
        (free,) = torch.autograd.grad((weights * latent.unclamped()[(..., *inside)]).sum(), latent.free)
        assert free.abs().max() > 0
        torch.testing.assert_close(found, expected * free)


def test_the_volume_stays_in_range_and_fades_into_its_surroundings() -> None:
    grid = GRIDS[2]
    window = torch.rand(grid.shape, generator=generator(2)).round()
    anatomy = Anatomy(reference=image(grid, 9), magnitude=_magnitude(grid, 5.0), window=window)
    volume = Maco().latent(stage(grid, Noise(), anatomy)).volume()[0, 0].detach()
    assert (volume.min(), volume.max()) == (0, 1)
    assert torch.equal(volume[window == 0], anatomy.reference[window == 0])


def test_a_start_without_phases_is_refused() -> None:
    grid = GRIDS[1]
    with pytest.raises(InvalidField, match="start is zeros") as caught:
        Maco().latent(stage(grid, Zeros(), _anatomy(grid)))
    assert caught.value.field == "start"


def test_the_magnitude_is_needed_and_must_fit() -> None:
    grid = GRIDS[1]
    with pytest.raises(MissingAnatomy, match=r"Spec\.anatomy\.magnitude"):
        Maco().latent(stage(grid))
    with pytest.raises(ValueError, match=r"shape \(6, 6\), but .* \(6, 7\)"):
        Maco().latent(stage(grid, None, Anatomy(image(grid), magnitude=torch.ones(6, 6))))


@ANYWHERE
@pytest.mark.parametrize("start", [ReferenceBrain(0.1), Noise()])
def test_an_item_of_a_batch_is_what_it_is_alone(grid: Grid, start: ReferenceBrain | Noise) -> None:
    together = Maco().latent(stage(grid, start, _anatomy(grid), seeds=(3, 4))).volume()
    alone = Maco().latent(stage(grid, start, _anatomy(grid), seeds=(4,))).volume()
    torch.testing.assert_close(together[1:], alone)


@ANYWHERE
@pytest.mark.parametrize("start", [ReferenceBrain(0.01), Noise()])
def test_a_unit_is_driven_under_the_magnitude_and_repeats_bit_for_bit(
    grid: Grid, start: ReferenceBrain | Noise
) -> None:
    anatomy = _anatomy(grid, 0.2)
    runs = [climb(Maco(), grid, anatomy, Neuron("2", 1), start=start) for _ in range(2)]
    assert gain(runs[0]) > 0.02
    assert torch.equal(runs[0][-1].image, runs[1][-1].image)
