from typing import Any

import pytest
import torch
from torch import nn

from models import BundleInvalid
from models.architectures import build


def test_any_size_of_volume_gives_one_row_of_logits() -> None:
    network = build("lesion-net", classes=5, widths=(2, 3, 4)).eval()
    for shape in [(8, 8, 8), (9, 13, 11)]:
        assert network(torch.zeros(2, 1, *shape)).shape == (2, 5)


def test_the_answer_does_not_depend_on_the_place() -> None:
    torch.manual_seed(0)
    network = build("lesion-net", classes=3, widths=(4, 4, 4)).eval()
    pattern = torch.rand(6, 6, 6)
    volumes = torch.zeros(2, 1, 40, 40, 40)
    volumes[0, 0, 12:18, 12:18, 12:18] = pattern
    # By a multiple of the stride, so that pooling cuts it the same way.
    volumes[1, 0, 20:26, 16:22, 12:18] = pattern
    first, second = network(volumes)
    assert torch.allclose(first, second, atol=1e-6)
    assert not torch.allclose(first, network(torch.zeros(1, 1, 40, 40, 40))[0], atol=1e-4)


def test_no_activation_works_in_place() -> None:
    activations = [module for module in build("lesion-net").modules() if isinstance(module, nn.ReLU)]
    assert activations
    assert not any(activation.inplace for activation in activations)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BundleInvalid, match="'vgg' is not registered; use one of: lesion-net, onnx, resnet"):
        build("vgg")


@pytest.mark.parametrize(
    ("hyperparameters", "match"),
    [
        ({"classes": 1}, "classes"),
        ({"classes": 10**9}, "classes"),
        ({"widths": ()}, "widths"),
        ({"widths": (0,)}, "widths"),
        ({"widths": (2,) * 100}, "widths"),
        ({"widths": (2, 2), "pooled_blocks": 3}, "pooled_blocks"),
        ({"classes": "three"}, "hyperparameters"),
        ({"classes": 2.5}, "classes"),
        ({"widths": (2.5,)}, "widths"),
        ({"depth": 3}, "depth"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(hyperparameters: dict[str, Any], match: str) -> None:
    with pytest.raises(BundleInvalid, match=match):
        build("lesion-net", **hyperparameters)
