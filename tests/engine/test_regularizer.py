"""Regularizers against closed forms, numpy and scipy, at every rank."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from engine import (
    L1,
    L2,
    ActivationCeiling,
    Anatomy,
    BrainMask,
    Channel,
    Decay,
    Diversity,
    FeatureDistance,
    Fourier,
    GaussianBlur,
    GradientBlur,
    Grid,
    ImageDistance,
    IntensityClip,
    InvalidField,
    LaplacianPyramid,
    MissingAnatomy,
    Noise,
    NoRealActivations,
    ReferenceBrain,
    Sense,
    SpectrumMatch,
    Term,
    TotalVariation,
    Voxels,
)
from engine.evaluation import spectrum_distance
from engine.parameterization import FreeImage, Parameterization, Stage
from engine.regularizer import Look, Regularizer
from engine.start import Scene, Start

# 11 is no size that the grid transforms: its last axis is padded to 12.
GRIDS = [Grid((11,), (2.0,)), Grid((3, 11), (2.0, 1.0)), Grid((2, 4, 11), (2.0, 1.0, 0.5))]
GRID = GRIDS[2]
ANYWHERE = pytest.mark.parametrize("grid", GRIDS, ids=["1d", "2d", "3d"])
PENALTIES = [
    L1(weight=2.0),
    L2(weight=2.0),
    TotalVariation(weight=2.0),
    ImageDistance(),
    FeatureDistance("layer"),
    SpectrumMatch(weight=2.0),
    Diversity("layer", weight=2.0),
]
EACH = pytest.mark.parametrize("penalty", PENALTIES, ids=lambda penalty: penalty.name)
FREE = pytest.mark.parametrize("parameterization", [Voxels(), Fourier(), LaplacianPyramid()])


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _look(image: Tensor, grid: Grid, home: Tensor | None = None, **parts: object) -> Look:
    """Activations are two channels of a nonlinear function of the volume."""
    home = _random(1, 1, *grid.shape, seed=7).to(image) if home is None else home
    read = [
        torch.cat([volume.sin(), volume * volume.roll(1, -1)], 1) for volume in (image, home.expand_as(image))
    ]
    known = {
        "activations": {"layer": read[0]},
        "home_activations": {"layer": read[1]},
        "anatomy": Anatomy(magnitude=_random(*grid.frequencies.shape, seed=8) + 0.1),
        "groups": (0,) * len(image),
    }
    return Look(image, home, grid, **{**known, **parts})


def _latent(parameterization: Parameterization, grid: Grid, start: Start, anatomy: Anatomy) -> FreeImage:
    scene = Scene(start, (0.0, 1.0), anatomy, [], torch.device("cpu"))
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    latent = parameterization.latent(Stage(grid, start, scene, anatomy, generators, torch.device("cpu")))
    assert isinstance(latent, FreeImage)
    return latent


@ANYWHERE
@EACH
def test_gradients_are_the_finite_differences(penalty: Regularizer, grid: Grid) -> None:
    leaf = _random(2, 1, *grid.shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: penalty.penalty(_look(x, grid)), leaf)


@ANYWHERE
@EACH
def test_items_of_a_batch_do_not_leak_out_of_their_group(penalty: Regularizer, grid: Grid) -> None:
    def values_and_gradients(image: Tensor, groups: tuple[int, ...]) -> Tensor:
        leaf = image.clone().requires_grad_()
        values = penalty.penalty(_look(leaf, grid, groups=groups))
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
        return torch.cat([values.detach()[:, None], gradient.flatten(1)], 1)

    image = _random(5, 1, *grid.shape)
    together = values_and_gradients(image, (0, 1, 0, 1, 4))
    for members, groups in (([0, 2], (0, 0)), ([1, 3], (0, 0)), ([4], (0,))):
        torch.testing.assert_close(together[members], values_and_gradients(image[members], groups))
    if not isinstance(penalty, Diversity):
        torch.testing.assert_close(together[:1], values_and_gradients(image[:1], (0,)))


@ANYWHERE
@pytest.mark.parametrize("kind", [L1, L2, TotalVariation, ImageDistance, FeatureDistance, SpectrumMatch])
def test_gradients_are_finite_where_the_image_is_its_start_and_zero(kind: type, grid: Grid) -> None:
    leaf = torch.zeros(1, 1, *grid.shape, requires_grad=True)
    penalty = kind(layer="layer") if kind is FeatureDistance else kind()
    (gradient,) = torch.autograd.grad(penalty.penalty(_look(leaf, grid, torch.zeros_like(leaf))).sum(), leaf)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("kind", "norm"), [(L1, np.abs), (L2, np.square)])
def test_norms_of_the_departure_from_the_start(kind: type, norm: np.ufunc) -> None:
    image, home = _random(3, 1, *GRID.shape), torch.full((), 0.4, dtype=torch.float64)
    expected = 3 * norm(image.numpy() - 0.4).reshape(3, -1).mean(1)
    np.testing.assert_allclose(kind(weight=3.0).penalty(_look(image, GRID, home)).numpy(), expected)
    assert not kind(weight=3.0).penalty(_look(home.expand_as(image), GRID, home)).any()


@ANYWHERE
def test_total_variation_is_the_mean_gradient_length(grid: Grid) -> None:
    image = _random(1, 1, *grid.shape)
    values = image[0, 0].numpy()
    square = np.zeros_like(values)
    for axis, size in enumerate(grid.voxel_size):
        difference = np.diff(values, axis=axis, append=np.take(values, [-1], axis=axis)) / size
        square += difference**2
    found = TotalVariation(weight=2.0).penalty(_look(image, grid))
    assert found.item() == pytest.approx(2 * np.sqrt(square + 1e-8).mean(), rel=1e-6)


def test_total_variation_of_a_ramp_is_its_slope_per_mm() -> None:
    ramp = torch.arange(100.0)[None, None, :, None].expand(1, 1, 100, 5) * 0.3
    slope = TotalVariation(weight=1.0).penalty(_look(ramp, Grid((100, 5), (2.0, 1.0))))
    assert slope.item() == pytest.approx(0.3 / 2 * 99 / 100, rel=1e-3)


def test_the_image_distance_is_a_root_mean_square_whose_slope_does_not_fade_near_the_start() -> None:
    image, home = _random(2, 1, *GRID.shape), _random(1, 1, *GRID.shape, seed=1)
    expected = np.sqrt(np.square(image.numpy() - home.numpy()).reshape(2, -1).mean(1))
    np.testing.assert_allclose(ImageDistance(5.0).penalty(_look(image, GRID, home)).numpy(), expected)
    near = (home + 1e-12 * image).requires_grad_()
    (slope,) = torch.autograd.grad(ImageDistance().penalty(_look(near, GRID, home)).sum(), near)
    lengths = slope.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, image[0].numel() ** -0.5))


@pytest.mark.parametrize("spatial", [(), (5,), (5, 4), (5, 4, 3)])
def test_the_feature_distance_is_the_mean_norm_over_channels(spatial: tuple[int, ...]) -> None:
    found, home = (_random(6, 7, *spatial, seed=seed) for seed in range(2))
    parts = {"activations": {"layer": found}, "home_activations": {"layer": home}}
    value = FeatureDistance("layer").penalty(_look(_random(2, 1, *GRID.shape), GRID, **parts))
    # Three copies of each of two volumes.
    lengths = np.sqrt(np.square(found.numpy() - home.numpy()).sum(1)).reshape(2, -1)
    np.testing.assert_allclose(value.numpy(), lengths.mean(1))
    assert FeatureDistance("layer").layers == {"layer"}


def _shell_means(spectrum: np.ndarray, grid: Grid) -> np.ndarray:
    """Mean over shells of a whole spectrum, one shell after the other."""
    lines = [np.fft.fftfreq(n, d) for n, d in zip(spectrum.shape, grid.voxel_size, strict=True)]
    radius = np.sqrt(sum(np.square(line) for line in np.meshgrid(*lines, indexing="ij")))
    edge = max(n * d for n, d in zip(spectrum.shape, grid.voxel_size, strict=True))
    shells = np.round(radius * edge).astype(int)
    return np.array([spectrum[shells == shell].mean() for shell in np.unique(shells) if shell])


@ANYWHERE
def test_the_spectrum_match_is_numpys(grid: Grid) -> None:
    image, brain = _random(2, 1, *grid.shape), 3 * _random(*grid.shape, seed=1)
    whole = [
        np.abs(np.fft.fftn(one, grid.fourier_shape, range(grid.ndim), "ortho"))
        for one in (*image[:, 0], brain)
    ]
    levels = [np.log10(_shell_means(spectrum, grid)) for spectrum in whole]
    expected = [2 * np.square(mine - levels[2]).mean() for mine in levels[:2]]
    half = torch.from_numpy(whole[2][..., : grid.frequencies.shape[-1]])
    look = _look(image, grid, anatomy=Anatomy(magnitude=half))
    np.testing.assert_allclose(SpectrumMatch(2.0).penalty(look).numpy(), expected)
    assert SpectrumMatch().penalty(_look(brain[None, None], grid, anatomy=look.anatomy)).item() < 1e-20


def test_the_spectrum_match_is_the_square_of_the_spectrum_distance() -> None:
    grid = Grid((6, 8, 9), (2.0, 1.0, 1.0))
    image, magnitude = _random(1, 1, *grid.shape), _random(6, 8, 5, seed=1)
    found = SpectrumMatch(1.0).penalty(_look(image, grid, anatomy=Anatomy(magnitude=magnitude))).item()
    assert found == pytest.approx(spectrum_distance(image[0, 0], magnitude, grid) ** 2)


def test_the_spectrum_match_needs_a_magnitude_that_fits() -> None:
    image = _random(1, 1, *GRID.shape)
    with pytest.raises(MissingAnatomy, match=r"Spec\.anatomy\.magnitude"):
        SpectrumMatch().penalty(_look(image, GRID, anatomy=Anatomy()))
    with pytest.raises(ValueError, match=r"shape \(2, 4, 6\), but .* \(2, 4, 7\)"):
        SpectrumMatch().penalty(_look(image, GRID, anatomy=Anatomy(magnitude=torch.ones(2, 4, 6))))


@pytest.mark.parametrize("spatial", [(), (5,), (5, 4), (5, 4, 3)])
def test_diversity_is_the_mean_cosine_of_gram_matrices(spatial: tuple[int, ...]) -> None:
    found = _random(8, 3, *spatial) - 0.5
    maps = found.numpy().reshape(4, 2, 3, -1)
    grams = np.stack([np.mean([m @ m.T for m in copies], axis=0).ravel() for copies in maps])
    grams /= np.linalg.norm(grams, axis=1, keepdims=True)
    groups = (0, 1, 0, 0)
    expected = [
        2 * sum(grams[i] @ grams[j] for j in range(4) if j != i and groups[j] == groups[i]) / 2
        for i in range(4)
    ]
    look = _look(_random(4, 1, *GRID.shape), GRID, activations={"layer": found}, groups=groups)
    np.testing.assert_allclose(Diversity("layer", 2.0).penalty(look).numpy(), expected, atol=1e-12)
    assert expected[1] == 0
    assert Diversity("layer").layers == {"layer"}


def test_diversity_is_blind_to_place_and_strength() -> None:
    one = _random(1, 3, 6)
    both = {"layer": torch.cat([one, 2 * one.flip(-1)])}
    look = _look(_random(2, 1, *GRID.shape), GRID, activations=both)
    np.testing.assert_allclose(Diversity("layer").penalty(look).numpy(), 1)


@ANYWHERE
def test_the_sobolev_gradient_is_numpys(grid: Grid) -> None:
    gradient = _random(2, 1, *grid.shape) - 0.5
    lines = [np.fft.fftfreq(n, d) for n, d in zip(grid.fourier_shape, grid.voxel_size, strict=True)]
    square = sum(np.square(2 * np.pi * 3.0 * line) for line in np.meshgrid(*lines, indexing="ij"))
    axes = tuple(range(2, 2 + grid.ndim))
    spectrum = np.fft.fftn(gradient.numpy(), s=grid.fourier_shape, axes=axes) / (1 + square)
    expected = np.fft.ifftn(spectrum, axes=axes).real[(..., *(slice(size) for size in grid.shape))]
    np.testing.assert_allclose(GradientBlur(3.0).gradient(gradient, grid).numpy(), expected, atol=1e-12)


def test_the_sobolev_gradient_solves_its_equation() -> None:
    grid, length = Grid((24,), (0.5,)), 1.5
    x, waves = np.arange(24) * 0.5, np.fft.fftfreq(24, 0.5)
    # The second derivative of the trigonometric polynomial through the points, as a matrix.
    fourier = np.exp(2j * np.pi * np.outer(x, waves))
    laplacian = (fourier @ np.diag(-np.square(2 * np.pi * waves)) @ np.linalg.inv(fourier)).real
    g = _random(1, 1, 24)
    u = np.linalg.solve(np.eye(24) - length**2 * laplacian, g[0, 0].numpy())
    np.testing.assert_allclose(GradientBlur(length).gradient(g, grid)[0, 0].numpy(), u)


@FREE
@ANYWHERE
def test_the_blur_damps_high_frequencies_and_keeps_the_mean(
    parameterization: Parameterization, grid: Grid
) -> None:
    grid = Grid((16,) * grid.ndim, (2.0,) * grid.ndim)
    latent = _latent(parameterization, grid, Noise(1.0), Anatomy())
    before = latent.unbounded().detach().clone()
    GaussianBlur(fwhm_mm=6.0).after_step(latent, Anatomy(), grid)
    after = latent.unbounded().detach()
    sigma = 6.0 / (2 * np.sqrt(2 * np.log(2))) / 2.0
    expected = ndimage.gaussian_filter(before.double().numpy(), (0, 0) + (sigma,) * grid.ndim, mode="wrap")
    np.testing.assert_allclose(after.numpy(), expected, atol=2e-3)
    assert after.mean().item() == pytest.approx(before.mean().item(), abs=1e-5)


@FREE
@ANYWHERE
def test_decay_takes_its_share_of_the_latent_image(parameterization: Parameterization, grid: Grid) -> None:
    latent = _latent(parameterization, grid, Noise(1.0), Anatomy())
    before = latent.unbounded().detach().clone()
    Decay(0.25).after_step(latent, Anatomy(), grid)
    torch.testing.assert_close(latent.unbounded().detach(), 0.75 * before, atol=1e-5, rtol=1e-4)


@FREE
@ANYWHERE
def test_clipping_keeps_to_the_quantiles_or_to_a_start_beyond(
    parameterization: Parameterization, grid: Grid
) -> None:
    reference = torch.linspace(0, 1, grid.shape[-1]).expand(grid.shape).contiguous()
    known = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.1, 0.5, 0.7])
    anatomy = Anatomy(reference=reference, intensities=known)
    latent = _latent(parameterization, grid, ReferenceBrain(1.5), anatomy)
    before = latent.volume().detach().clone()
    IntensityClip(low=0.25, high=0.75).after_step(latent, anatomy, grid)
    # Halfway between the known quantiles.
    expected = before.clamp(reference.clamp(max=0.3), reference.clamp(min=0.6))
    torch.testing.assert_close(latent.volume().detach(), expected, atol=2e-5, rtol=0)
    assert (before != expected).any()
    assert (before == expected).any()


def test_clipping_needs_quantiles_in_order_and_brains() -> None:
    with pytest.raises(InvalidField, match=r"low is 0\.5, but must be below high"):
        IntensityClip(low=0.5, high=0.5)
    latent = _latent(Voxels(), GRID, Noise(), Anatomy())
    with pytest.raises(MissingAnatomy, match=r"Spec\.anatomy\.intensities"):
        IntensityClip().after_step(latent, Anatomy(), GRID)


@pytest.mark.parametrize("margin", [0.0, 0.9, 1.0, 2.5, 4.0, 40.0])
@pytest.mark.parametrize(
    "grid", [Grid((30,), (2.0,)), Grid((20, 9), (0.5, 1.5)), Grid((9, 8, 7), (2.0, 1.0, 0.7))]
)
def test_the_mask_grows_as_far_as_scipy_says(grid: Grid, margin: float) -> None:
    mask = _random(*grid.shape, seed=3) > 0.97
    distance = ndimage.distance_transform_edt(~mask.numpy(), sampling=grid.voxel_size)
    found = BrainMask(margin).window(Anatomy(mask=mask), grid)
    assert mask.any()
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), distance <= margin)


def test_a_mask_needs_one() -> None:
    with pytest.raises(MissingAnatomy, match=r"Spec\.anatomy\.mask"):
        BrainMask().window(Anatomy(), GRID)


def test_beyond_the_ceiling_activations_count_less_again() -> None:
    term = Term(Channel("layer", 2), real=((0.0, 0.5, 1.0), (-1.0, 0.0, 4.0)))
    readings = torch.tensor([-3.0, 2.0, 3.0, 5.0], requires_grad=True)
    # A quarter of the way from the median to the largest is 0.75: 2.
    counted = ActivationCeiling(0.75).limit(readings, term)
    (slope,) = torch.autograd.grad(counted.sum(), readings)
    assert counted.tolist() == [-3, 2, 1, -1]
    assert slope.tolist() == [1, 1, -1, -1]


def test_a_minimized_unit_has_a_floor() -> None:
    term = Term(Channel("layer", 2), sense=Sense.MINIMIZE, real=((0.0, 0.5, 1.0), (-1.0, 0.0, 4.0)))
    readings = torch.tensor([-3.0, -0.5, 2.0], requires_grad=True)
    counted = ActivationCeiling(0.75).limit(readings, term)
    (slope,) = torch.autograd.grad(counted.sum(), readings)
    assert counted.tolist() == [2, -0.5, 2]
    assert slope.tolist() == [-1, 1, 1]


def test_a_ceiling_needs_real_activations() -> None:
    with pytest.raises(NoRealActivations, match=r"layer:2.*give Term\.real, or leave the ceiling out"):
        ActivationCeiling().limit(torch.zeros(1), Term(Channel("layer", 2)))
