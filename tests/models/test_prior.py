import numpy as np
import pytest
import safetensors.torch
import torch

from models import Prior


def test_the_mask_comes_back_exactly(prior: Prior, brain: np.ndarray) -> None:
    mask = prior.mask()
    assert mask.dtype == torch.bool
    assert np.array_equal(mask.numpy(), brain > 0)
    assert prior["mask"].numel() == -(-brain.size // 8)


def test_the_deviation_comes_back_smoothly(prior: Prior, brain: np.ndarray) -> None:
    deviation = prior.deviation()
    assert deviation.shape == brain.shape
    assert float((deviation - torch.from_numpy(brain) / 10).abs().max()) < 0.02


def test_quantiles_by_layer(prior: Prior) -> None:
    assert prior.layers == ("blocks.0.conv", "classifier")
    assert prior.quantile_levels == (0.0, 0.05, 0.5, 0.95, 1.0)
    assert float(prior.activation_quantiles("blocks.0.conv")[1, 0]) == 5
    assert float(prior.activation_quantiles("blocks.0.conv", "maximum")[1, 0]) == 6
    # Where a layer has no spatial axes its mean and its maximum are the same.
    assert float(prior.activation_quantiles("classifier", "maximum")[1, 0]) == 5
    with pytest.raises(KeyError):
        prior.activation_quantiles("head")
    with pytest.raises(ValueError, match="statistic"):
        prior.activation_quantiles("classifier", "median")


def power_law(shape: tuple[int, int, int]) -> torch.Tensor:
    """A spectrum that depends on the frequency in cycles a voxel alone, so that it is known on every grid."""
    axes = [torch.fft.fftfreq(shape[0]), torch.fft.fftfreq(shape[1]), torch.fft.rfftfreq(shape[2])]
    grid = torch.meshgrid(*axes, indexing="ij")
    return (-3 * sum(axis.abs() for axis in grid) + 0.2 * grid[0].abs()).exp()


@pytest.mark.parametrize("full", [(32, 36, 32), (31, 37, 33)])
@pytest.mark.parametrize("asked", [None, (20, 24, 28), (21, 25, 29), (48, 40, 44)])
def test_the_magnitude_at_any_grid(full: tuple[int, int, int], asked: tuple[int, int, int] | None) -> None:
    mask = torch.ones(full, dtype=torch.bool)
    prior = Prior.pack(
        magnitude=power_law(full),
        deviation=torch.ones(full),
        mask=mask,
        intensity_quantiles=torch.tensor([0.0, 1.0]),
        quantile_levels=(0, 1),
        activations={},
        maxima={},
    )
    expected = power_law(asked or full)
    found = prior.magnitude(asked)
    assert found.shape == expected.shape
    assert float(found[0, 0, 0]) == pytest.approx(1, rel=1e-3)
    # The law's logarithm is linear but for the fold at half a cycle, which an odd grid does not reach.
    assert float((found.log() - expected.log()).abs().max()) < 0.2
    assert float((found.log() - expected.log()).abs().mean()) < 0.02


def test_the_scale_of_a_brain_fits_float16(prior: Prior, brain: np.ndarray) -> None:
    expected = torch.fft.rfftn(torch.from_numpy(brain), norm="ortho").abs()[0, 0, 0]
    assert prior["magnitude"].dtype == torch.float16
    assert float(prior.magnitude()[0, 0, 0]) == pytest.approx(float(expected), rel=1e-3)


def test_a_real_grid_stays_small() -> None:
    shape = (91, 109, 91)
    prior = Prior.pack(
        magnitude=torch.ones(91, 109, 46),
        deviation=torch.ones(shape),
        mask=torch.ones(shape, dtype=torch.bool),
        intensity_quantiles=torch.zeros(2),
        quantile_levels=(0, 1),
        activations={},
        maxima={},
    )
    assert len(safetensors.torch.save(dict(prior))) < 500_000


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("mask", None, "mask"),
        ("surprise", torch.zeros(1), "surprise"),
        ("mask", torch.zeros(3, dtype=torch.uint8), "one bit"),
        ("mask", torch.zeros(231), "uint8"),
        ("mask_shape", torch.tensor([12, 14]), "mask_shape"),
        ("mask_shape", torch.tensor([12, 14, -11]), "mask_shape"),
        ("mask_shape", torch.tensor([2**31, 2**31, 4]), "mask_shape"),
        ("quantile_levels", torch.tensor([0.0, 0.5, 0.2, 0.9, 1.0]), "ascend"),
        ("quantile_levels", torch.tensor([0.0, 0.2, 0.5, 0.9, 1.5]), "ascend"),
        ("intensity_quantiles", torch.zeros(4), "one value per"),
        ("magnitude", torch.zeros(4), "three axes"),
        ("deviation", torch.full((2, 2, 2), float("nan")), "NaN"),
        ("activations/classifier", torch.zeros(3, 4), "units, 5"),
    ],
)
def test_what_is_no_prior_is_refused(prior: Prior, name: str, value: torch.Tensor | None, match: str) -> None:
    tensors = dict(prior)
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    with pytest.raises(ValueError, match=match):
        Prior(tensors)
