from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from models import BundleInvalid, layer_table
from models.architectures import build


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_papers_network_has_three_million_parameters() -> None:
    """Per block 27 weights a pair of channels, a bias, and the norm's scale and shift."""
    with torch.device("meta"):
        network = build("sfcn", classes=40)
    widths = (1, 32, 64, 128, 256, 256)
    blocks = sum(27 * a * b + 3 * b for a, b in pairwise(widths))
    assert count(network) == blocks + (256 * 64 + 3 * 64) + (64 * 40 + 40) == 2_952_936


def test_the_papers_grid_before_averaging() -> None:
    with torch.device("meta"):
        network = build("sfcn")
    layers = {layer.name: layer for layer in layer_table(network, (160, 192, 160), (1.0, 1.0, 1.0))}
    assert layers["top.act"].output_shape == (5, 6, 5)
    # Five times 3 voxels and then 2, at strides 1, 2, 4, 8 and 16: 1 + (2 + 1) * (1 + 2 + 4 + 8 + 16).
    assert layers["top.act"].receptive_field == (94, 94, 94)
    assert layers["top.act"].stride == (32, 32, 32)
    assert list(layers)[:4] == ["blocks.0.conv", "blocks.0.norm", "blocks.0.pool", "blocks.0.act"]


def test_it_computes_what_the_paper_describes() -> None:
    """Against the published steps written out, with their 1x1x1 convolution as the classifier."""
    torch.manual_seed(0)
    network = build("sfcn", classes=3, widths=(2, 3), top_width=4).eval()
    weights = network.state_dict()

    def step(x: torch.Tensor, block: str, pool: bool) -> torch.Tensor:
        kernel = weights[f"{block}.conv.weight"]
        x = functional.conv3d(x, kernel, weights[f"{block}.conv.bias"], padding=kernel.shape[2] // 2)
        names = [f"{block}.norm.{part}" for part in ("running_mean", "running_var", "weight", "bias")]
        x = functional.batch_norm(x, *(weights[name] for name in names))
        return functional.relu(functional.max_pool3d(x, 2) if pool else x)

    volume = torch.rand(1, 1, 20, 24, 20)
    x = step(step(step(volume, "blocks.0", True), "blocks.1", True), "top", False)
    x = functional.avg_pool3d(x, (5, 6, 5))
    kernel = weights["classifier.weight"][:, :, None, None, None]
    expected = functional.conv3d(x, kernel, weights["classifier.bias"]).flatten(1)
    assert torch.allclose(network(volume), expected, atol=1e-6)


@pytest.mark.parametrize("pooled", [None, 5, 3, 0])
def test_small_volumes_are_read(pooled: int | None) -> None:
    with torch.device("meta"):
        network = build("sfcn", classes=2, pooled_blocks=pooled).eval()
        assert network(torch.zeros(1, 1, 45, 54, 45)).shape == (1, 2)
    names = [name for name, _ in network.named_modules() if name.endswith(".pool")]
    assert names == [f"blocks.{i}.pool" for i in range(5 if pooled is None else pooled)]


def test_dropout_works_in_training_only() -> None:
    network = build("sfcn", widths=(4,), dropout=0.5)
    assert network.dropout.p == 0.5
    volume = torch.rand(1, 1, 8, 8, 8)
    network.eval()
    assert torch.equal(network(volume), network(volume))
    network.dropout.train()
    torch.manual_seed(0)
    assert not torch.equal(network(volume), network(volume))


@pytest.mark.parametrize(
    ("hyperparameters", "match"),
    [
        ({"classes": 1}, "classes must be a whole number from 2 to 1024, got 1"),
        ({"classes": True}, "classes"),
        ({"widths": []}, "widths must be 1 to 12 whole numbers"),
        ({"widths": [0]}, "widths"),
        ({"widths": [2.5]}, "widths"),
        ({"widths": [True]}, "widths"),
        ({"widths": 32}, "widths"),
        ({"widths": "32"}, "widths"),
        ({"widths": [2] * 13}, "widths"),
        ({"top_width": 0}, "top_width"),
        ({"top_width": 10**9}, "top_width"),
        ({"widths": [2, 2], "pooled_blocks": 3}, "pooled_blocks must be a whole number from 0 to 2, got 3"),
        ({"pooled_blocks": -1}, "pooled_blocks"),
        ({"dropout": 1}, "dropout must be a number from 0 to below 1, got 1"),
        ({"dropout": -0.1}, "dropout"),
        ({"dropout": float("nan")}, "dropout"),
        ({"dropout": "0.5"}, "dropout"),
        ({"dropout": False}, "dropout"),
        ({"depth": 3}, "depth"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(hyperparameters: dict[str, Any], match: str) -> None:
    with pytest.raises(BundleInvalid, match=match) as caught:
        build("sfcn", **hyperparameters)
    assert caught.value.field == "architecture.hyperparameters"
