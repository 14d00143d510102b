"""The baselines are what the peers publish, held against numpy and scipy."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from benchmarks.peers import baselines
from benchmarks.peers.baselines import Run, b0, b1, b2
from benchmarks.peers.figures import real_images
from benchmarks.peers.pictures import LAYERS, Subject

SHAPE, RANGE = (9, 10, 11), (0.0, 1.1)


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 3, 3), nn.Tanh(), nn.Conv3d(3, 4, 3), nn.Tanh(), nn.Conv3d(4, 2, 3))


def test_the_strong_port_makes_the_ports_pictures(network: nn.Sequential) -> None:
    runs = [Run(0, 3), Run(2, 1)]
    alone = [b1(network, "2", run, SHAPE, RANGE, 1.0, steps=3) for run in runs]
    for truncate in (False, True):
        batch = b2(network, "2", runs, SHAPE, RANGE, 1.0, steps=3, truncate=truncate)
        for one, other in zip(alone, batch, strict=True):
            torch.testing.assert_close(one, other, atol=1e-3, rtol=0)
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)


@pytest.mark.parametrize("method", ["b0", "b2"])
def test_a_picture_fires_its_unit_and_leaves_the_network_as_found(
    network: nn.Sequential, method: str
) -> None:
    runs = [Run(1, 0), Run(3, 0)]
    make = {
        "b0": lambda n: b0(network, "2", runs, SHAPE, RANGE, n),
        "b2": lambda n: b2(network, "2", runs, SHAPE, RANGE, 1.5, n),
    }
    before, after = make[method](0), make[method](60)
    with torch.no_grad():
        for index, run in enumerate(runs):
            read = [
                network[:3](images[index][None, None])[0, run.channel].mean() for images in (before, after)
            ]
            assert read[1] > read[0]
    assert not any(module._forward_hooks for module in network.modules())
    assert all(weight.requires_grad and weight.grad is None for weight in network.parameters())


def test_the_spectrum_falls_as_lucents(network: nn.Sequential) -> None:
    free = baselines._spectrum(np.random.default_rng(0), SHAPE)
    found = baselines._from_spectrum(free[None], baselines._scale(SHAPE, 1.0), SHAPE, RANGE)[0, 0]
    axes = [np.fft.fftfreq(n) for n in SHAPE[:2]] + [np.fft.rfftfreq(SHAPE[2])]
    radius = np.sqrt(sum(axis**2 for axis in np.ix_(*axes)))
    spectrum = (free[0, ..., 0] + 1j * free[0, ..., 1]).numpy() / np.maximum(radius, 1 / 11)
    image = np.fft.irfftn(spectrum, s=SHAPE, axes=(0, 1, 2), norm="ortho") / 4
    np.testing.assert_allclose(found.numpy(), 1.1 / (1 + np.exp(-image)), atol=1e-5)


def test_the_corner_warp_shifts_and_scales_about_the_corner() -> None:
    volume = ndimage.gaussian_filter(np.random.default_rng(0).random((24, 20, 22)), 2)

    class Fixed:
        def integers(self, low: int, high: int, size: int) -> np.ndarray:
            return np.array([3, 0, 5])

        def uniform(self, low: float, high: float) -> float:
            return 0.9

    found = baselines._corner_warp(torch.from_numpy(volume).float()[None, None], [Fixed()])[0, 0].numpy()
    # Voxel centers lie half a voxel from the corner.
    offset = (0.5 - np.array([3, 0, 5])) / 0.9 - 0.5
    expected = ndimage.affine_transform(volume, np.eye(3) / 0.9, offset, order=1)
    np.testing.assert_allclose(found[8:-2, 4:-4, 10:-1], expected[8:-2, 4:-4, 10:-1], atol=1e-4)


def test_lucids_view_keeps_the_size_and_its_draws_differ() -> None:
    volume = torch.rand(1, 1, *SHAPE)
    views = [baselines._lucid_view(volume, np.random.default_rng(seed), SHAPE, RANGE) for seed in range(4)]
    assert all(view.shape == volume.shape for view in views)
    assert all(not torch.equal(one, other) for one, other in pairwise(views))


def test_real_images_bring_every_unit_to_a_number(cohort_dir: Path) -> None:
    found = real_images(Subject.load(), cohort_dir, crops=12)
    assert set(found) == set(LAYERS.values())
    for layer, units in found.items():
        assert list(units) == Subject.load().units(layer)
        assert all(unit["best"] >= unit["p99"] >= unit["p95"] for unit in units.values())


def test_fresh_units_were_not_looked_at_before() -> None:
    for layer in ("blocks.0.conv", "blocks.3.conv"):
        watched, fresh = Subject.load().units(layer), Subject.load(fresh=True).units(layer)
        assert len(watched) == len(fresh) == 8
        assert not set(watched) & set(fresh)
