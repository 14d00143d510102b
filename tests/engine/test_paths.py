"""Rank correlations against scipy; paths of networks whose answers are known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from torch import nn

from engine.network.capture import UnknownLayer
from engine.paths import path_similarity, spearman
from tests.engine.networks import CONVOLUTIONS, networks
from tests.engine.test_evaluation import state

SHAPES = [(60,), (16, 15), (9, 8, 7)]


def a_class(shape: tuple[int, ...], which: int, count: int, first: int = 0) -> list[torch.Tensor]:
    """Draw images of a class: a pattern of its own under noise of each image's own."""
    pattern = torch.rand(shape, generator=torch.Generator().manual_seed(1000 + which))
    noise = [torch.Generator().manual_seed(100 * which + first + item) for item in range(count)]
    return [pattern + 0.5 * torch.rand(shape, generator=generator) for generator in noise]


def a_network(ndim: int) -> nn.Sequential:
    torch.manual_seed(ndim)
    convolution = CONVOLUTIONS[ndim - 1]
    return nn.Sequential(
        convolution(1, 6, 3, padding=1), nn.ReLU(inplace=True), convolution(6, 5, 3), nn.ReLU()
    )


@pytest.mark.parametrize("zeros", [False, True])
def test_spearman_is_the_one_of_scipy(zeros: bool) -> None:
    values = torch.randn(2, 500, generator=torch.Generator().manual_seed(0))
    values[1] += 0.5 * values[0]
    values = values.relu() if zeros else values
    expected = stats.spearmanr(*values.numpy()).statistic
    assert spearman(*values) == pytest.approx(expected, abs=1e-12)
    assert spearman(values[0], values[0] ** 3) == pytest.approx(1)
    assert spearman(values[0], -values[0]) == pytest.approx(-1)


@given(arrays.arrays(np.int64, (2, 12), elements=st.integers(0, 4)))
def test_ties_share_a_rank_as_in_scipy(values: np.ndarray) -> None:
    found = spearman(*torch.from_numpy(values))
    if any(len(set(line)) == 1 for line in values.tolist()):
        assert found == 0
    else:
        assert found == pytest.approx(stats.spearmanr(*values).statistic, abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_of_the_class_scores_one_and_one_of_another_class_zero(shape: tuple[int, ...]) -> None:
    network = a_network(len(shape))
    same, other = a_class(shape, 0, 12), a_class(shape, 1, 12)
    layers = ["0", "1", "2", "3"]
    before = state(network)
    native = path_similarity(network, layers, a_class(shape, 0, 1, first=50)[0], same, other)
    stranger = path_similarity(network, layers, a_class(shape, 1, 1, first=50)[0], same, other)
    assert list(native) == list(stranger) == layers
    assert all(abs(share - 1) < 0.25 for share in native.values())
    assert all(abs(share) < 0.25 for share in stranger.values())
    assert state(network) == before


@pytest.mark.parametrize("shape", SHAPES)
def test_the_scale_is_that_of_a_loop_over_pairs(shape: tuple[int, ...]) -> None:
    network = a_network(len(shape)).eval()
    same, other, image = a_class(shape, 0, 3), a_class(shape, 1, 2), torch.rand(shape)

    def said(one: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return network[:2](one[None, None]).numpy().ravel()

    def mean(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
        return float(np.mean([stats.spearmanr(said(a), said(b)).statistic for a, b in pairs]))

    top = mean([(a, b) for a in same for b in same if a is not b])
    bottom = mean([(a, b) for a in same for b in other])
    expected = (mean([(image, one) for one in same]) - bottom) / (top - bottom)
    assert path_similarity(network, ["1"], image, same, other)["1"] == pytest.approx(expected, abs=1e-6)


def test_each_layer_is_judged_by_itself() -> None:
    # The picture is of the class on the left and of the other on the right: half alike in the first layer,
    # wholly in the second, which sees the left half alone.
    class LeftHalf(nn.Module):
        def forward(self, volume: torch.Tensor) -> torch.Tensor:
            return volume[..., : volume.shape[-1] // 2]

    same, other = a_class((400,), 0, 8), a_class((400,), 1, 8)
    picture = torch.cat([a_class((400,), 0, 1, 50)[0][:200], a_class((400,), 1, 1, 50)[0][200:]])
    network = nn.Sequential(nn.Identity(), LeftHalf())
    found = path_similarity(network, ["0", "1"], picture, same, other)
    assert found["0"] == pytest.approx(0.5, abs=0.1)
    assert found["1"] == pytest.approx(1, abs=0.1)


def test_a_layer_that_tells_no_classes_apart_is_left_out() -> None:
    class Silent(nn.Module):
        def forward(self, volume: torch.Tensor) -> torch.Tensor:
            return 0 * volume

    network = nn.Sequential(nn.Identity(), Silent())
    same, other = a_class((40,), 0, 3), a_class((40,), 1, 3)
    assert list(path_similarity(network, ["0", "1"], same[0], same[1:], other)) == ["0"]


@pytest.mark.parametrize("shape", [(100, 100), (20, 20, 20)])
def test_thinned_activations_still_tell_the_classes_apart(shape: tuple[int, ...]) -> None:
    # Half of the rows' ends are empty, as is a brain's surrounding: steps of one row would see nothing else.
    same, other = a_class(shape, 0, 5), a_class(shape, 1, 5)
    for one in (*same, *other):
        one[..., : shape[-1] // 2] = 0
    most = same[0].numel() // shape[-1]
    network = nn.Sequential(nn.Identity())
    full, thin = (
        path_similarity(network, ["0"], same[0], same[1:], other, most=count)["0"] for count in (10**6, most)
    )
    assert thin == pytest.approx(full, abs=0.25)


@settings(max_examples=10, deadline=None)
@given(st.data(), st.integers(1, 3))
def test_any_network_is_as_found_and_every_figure_finite(data: st.DataObject, ndim: int) -> None:
    network = data.draw(networks(ndim))
    layers = [name for name, _ in network.named_modules() if name]
    shape = (9, 8, 10)[:ndim]
    before = state(network)
    found = path_similarity(network, layers, torch.rand(shape), a_class(shape, 0, 2), a_class(shape, 1, 1))
    assert state(network) == before
    assert set(found) <= set(layers)
    assert all(np.isfinite(share) for share in found.values())


def test_what_cannot_be_compared_is_refused_with_the_remedy() -> None:
    network, images = a_network(1), a_class((60,), 0, 3)
    before = state(network)
    with pytest.raises(ValueError, match="same has 1 images and other 2; give at least two real images"):
        path_similarity(network, ["0"], images[0], images[:1], images[1:])
    with pytest.raises(ValueError, match=r"same has 3 images and other 0; .* one of another"):
        path_similarity(network, ["0"], images[0], images, [])
    with pytest.raises(UnknownLayer):
        path_similarity(network, ["0", "conv9"], images[0], images, images)
    assert state(network) == before
