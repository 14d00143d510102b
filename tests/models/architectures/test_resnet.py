from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from models import BundleInvalid, layer_table
from models.architectures import build
from models.architectures.resnet import BasicBlock


def closed_form(classes: int, widths: Sequence[int], blocks: Sequence[int], kernel: int) -> int:
    """Convolutions without bias, norms with scale and shift, a projection where the width changes."""
    total = kernel**3 * widths[0] + 2 * widths[0]
    before = widths[0]
    for index, (width, depth) in enumerate(zip(widths, blocks, strict=True)):
        total += 27 * before * width + 27 * (2 * depth - 1) * width**2 + 4 * depth * width
        total += (before * width + 2 * width) if index > 0 else 0
        before = width
    return total + before * classes + classes


@pytest.mark.parametrize(
    ("classes", "widths", "blocks", "kernel"),
    [
        (2, (16, 32, 64, 128), (2, 2, 2, 2), 7),
        (1000, (64, 128, 256, 512), (3, 4, 6, 3), 7),
        (3, (4,), (1,), 3),
        (3, (4, 4), (2, 1), 1),
    ],
)
def test_the_number_of_parameters(
    classes: int, widths: Sequence[int], blocks: Sequence[int], kernel: int
) -> None:
    with torch.device("meta"):
        network = build("resnet", classes=classes, widths=widths, blocks=blocks, stem_kernel=kernel)
    assert sum(p.numel() for p in network.parameters()) == closed_form(classes, widths, blocks, kernel)


def test_a_block_adds_its_input() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 5, 6, 7)
    plain = BasicBlock(3, 3, stride=1).eval()
    nn.init.zeros_(plain.norm2.weight)
    assert torch.equal(plain(x), x)
    projected = BasicBlock(3, 4, stride=2).eval()
    nn.init.zeros_(projected.norm2.weight)
    assert projected.shortcut is not None
    assert torch.equal(projected(x), torch.relu(projected.shortcut(x)))
    assert projected(x).shape == (1, 4, 3, 3, 4)


def test_layers_have_readable_names_and_the_papers_strides() -> None:
    with torch.device("meta"):
        network = build("resnet", blocks=(1, 1, 1, 1))
    layers = {layer.name: layer for layer in layer_table(network, (224, 224, 224), (1.0, 1.0, 1.0))}
    parts = ("conv1", "norm1", "act1", "conv2", "norm2", "shortcut.conv", "shortcut.norm", "act2")
    assert list(layers) == [
        *(f"stem.{part}" for part in ("conv", "norm", "act", "pool")),
        *(f"stages.0.0.{part}" for part in parts if not part.startswith("shortcut")),
        *(f"stages.{stage}.0.{part}" for stage in (1, 2, 3) for part in parts),
        "pool",
        "classifier",
    ]
    shapes = [layers[f"stages.{stage}.0.act2"].output_shape for stage in range(4)]
    assert shapes == [(56,) * 3, (28,) * 3, (14,) * 3, (7,) * 3]
    assert (
        layers["stages.1.0.shortcut.conv"].receptive_field[0] < layers["stages.1.0.conv1"].receptive_field[0]
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_receptive_fields_agree_with_how_far_nan_travels(axis: int) -> None:
    torch.manual_seed(0)
    network = build("resnet", widths=(2, 3), blocks=(1, 1), stem_kernel=3, stem_stride=1).eval()
    shape = [12, 12, 12]
    shape[axis] = 64
    layers = {layer.name: layer for layer in layer_table(network, shape, (1.0, 1.0, 1.0))}
    for name in ("stages.0.0.act2", "stages.1.0.shortcut.norm", "stages.1.0.act2"):
        seen: list[torch.Tensor] = []
        handle = network.get_submodule(name).register_forward_hook(lambda *call, to=seen: to.append(call[2]))
        volumes = torch.ones(64, 1, *shape)
        for plane in range(64):
            volumes[plane].select(axis + 1, plane).fill_(float("nan"))
        with torch.no_grad():
            network(volumes)
        handle.remove()
        hit = seen[0].isnan().amax(dim=[d for d in range(1, 5) if d != axis + 2])
        middle = hit.shape[1] // 2
        planes, shifted = hit[:, middle].nonzero(), hit[:, middle + 1].nonzero()
        assert int(planes.max() - planes.min()) + 1 == layers[name].receptive_field[axis], name
        assert int(shifted.min() - planes.min()) == layers[name].stride[axis], name


@pytest.mark.parametrize("shape", [(45, 54, 45), (1, 1, 1), (3, 2, 9)])
def test_any_size_of_volume_is_read(shape: tuple[int, ...]) -> None:
    network = build("resnet", classes=4, widths=(2, 3, 4), blocks=(1, 1, 1)).eval()
    assert network(torch.zeros(2, 1, *shape)).shape == (2, 4)


def test_a_stem_for_small_volumes_keeps_the_grid() -> None:
    with torch.device("meta"):
        network = build("resnet", stem_kernel=3, stem_stride=1, stem_pool=False)
    layers = {layer.name: layer for layer in layer_table(network, (45, 54, 45), (4.0, 4.0, 4.0))}
    assert layers["stages.0.0.conv1"].output_shape == (45, 54, 45)
    assert "stem.pool" not in layers


@pytest.mark.parametrize(
    ("hyperparameters", "match"),
    [
        ({"classes": 1}, "classes"),
        ({"widths": []}, "widths"),
        ({"widths": [2] * 7, "blocks": [1] * 7}, "widths must be 1 to 6 whole numbers"),
        ({"widths": [10**9], "blocks": [1]}, "widths"),
        ({"widths": [2, 2], "blocks": [1]}, "blocks must be 2 whole numbers from 1 to 12"),
        ({"widths": [2], "blocks": [0]}, "blocks"),
        ({"blocks": 2}, "blocks"),
        ({"stem_kernel": 4}, "stem_kernel must be odd, so that padding keeps the grid, got 4"),
        ({"stem_kernel": 17}, "stem_kernel"),
        ({"stem_stride": 0}, "stem_stride"),
        ({"stem_pool": 1}, "stem_pool must be true or false, got 1"),
        ({"depth": 18}, "depth"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(hyperparameters: dict[str, Any], match: str) -> None:
    with pytest.raises(BundleInvalid, match=match):
        build("resnet", **hyperparameters)
