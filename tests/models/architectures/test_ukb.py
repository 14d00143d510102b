from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from models import BundleInvalid, Layer, layer_table
from models.architectures import build

MNI = (182, 218, 182)


def empty(name: str, **hyperparameters: Any) -> nn.Module:
    with torch.device("meta"):
        return build(name, **hyperparameters)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def table(network: nn.Module) -> dict[str, Layer]:
    return {layer.name: layer for layer in layer_table(network, MNI, (1.0, 1.0, 1.0))}


def test_model_a_has_the_published_number_of_parameters() -> None:
    network = empty("ukb-a", classes=1)
    assert count(network) == 1_303_769
    assert network.hidden.in_features == 11_200


def test_model_b_has_the_published_width_behind_its_convolutions() -> None:
    network = empty("ukb-b", classes=1)
    assert network.hidden.in_features == 6_144
    widths = (1, 8, 32, 64, 64)
    convolutions = sum(27 * a * b + b for a, b in pairwise(widths))
    assert count(network) == convolutions + (6_144 * 100 + 100) + (100 + 1)


@pytest.mark.parametrize("name", ["ukb-a", "ukb-b"])
def test_each_further_class_is_one_more_row(name: str) -> None:
    assert count(empty(name)) == count(empty(name, classes=1)) + 101
    assert empty(name).classifier.out_features == 2


def test_model_b_has_the_published_grids() -> None:
    layers = table(empty("ukb-b"))
    names = [f"blocks.{i}.{part}" for i in range(4) for part in ("conv", "pool")]
    assert [layers[name].output_shape for name in names if name in layers] == [
        (180, 216, 180),
        (60, 72, 60),
        (58, 70, 58),
        (19, 23, 19),
        (17, 21, 17),
        (15, 19, 15),
        (4, 6, 4),
    ]
    # 1 + 2 * (1 + 1 + 3 + 3 + 9 + 9) + 3 * 9: each window adds all but one of its voxels, at its stride.
    assert layers["blocks.3.pool"].receptive_field == (80, 80, 80)
    assert layers["blocks.3.dropout"].stride == (27, 27, 27)
    assert layers["hidden"].whole_input


def test_model_a_has_dropout_behind_each_pooling_and_nowhere_else() -> None:
    network = empty("ukb-a")
    steps = {name: module for name, module in network.named_modules() if not any(module.children())}
    kinds = [type(module).__name__ for module in steps.values()]
    pooled = ["Conv3d", "ELU", "MaxPool3d", "Dropout3d"]
    assert kinds == [*pooled * 2, *["Conv3d", "ELU"] * 2, *pooled, "Linear", "ELU", "Linear"]
    assert {module.p for module in steps.values() if isinstance(module, nn.Dropout3d)} == {0.3}
    assert not any(module.inplace for module in steps.values() if isinstance(module, nn.ELU))


@pytest.mark.parametrize(("name", "smallest"), [("ukb-a", 98), ("ukb-b", 80)])
def test_the_smallest_volume_is_read_and_a_smaller_one_refused(name: str, smallest: int) -> None:
    network = empty(name, shape=(smallest, smallest + 9, smallest)).eval()
    with torch.device("meta"):
        assert network(torch.zeros(2, 1, smallest, smallest + 9, smallest)).shape == (2, 2)
    with pytest.raises(BundleInvalid, match=f"shape must have at least {smallest} voxels along each axis"):
        empty(name, shape=(smallest, smallest - 1, smallest))


def test_a_volume_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="input_shape"):
        layer_table(empty("ukb-b", shape=(80, 80, 80)), (120, 120, 120), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("name", ["ukb-a", "ukb-b"])
@pytest.mark.parametrize(
    ("hyperparameters", "match"),
    [
        ({"classes": 0}, "classes must be a whole number from 1 to 1024, got 0"),
        ({"classes": 2.0}, "classes"),
        ({"shape": [182, 218]}, "shape must be 3 whole numbers from 1 to 1024"),
        ({"shape": [182, 218, 182.0]}, "shape"),
        ({"shape": [182, 218, 10**6]}, "shape"),
        ({"shape": 182}, "shape"),
        ({"shape": [1, 1, 1]}, "shape must have at least"),
        ({"dropout": 1.0}, "dropout"),
        ({"widths": [8]}, "widths"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(
    name: str, hyperparameters: dict[str, Any], match: str
) -> None:
    with pytest.raises(BundleInvalid, match=match):
        empty(name, **hyperparameters)
