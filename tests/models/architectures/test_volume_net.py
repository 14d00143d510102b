from __future__ import annotations

import pytest
import torch

from models import BundleInvalid
from models.architectures import build


@pytest.mark.parametrize("positions", [None, [2, 3, 2]])
def test_it_scores_volumes(positions: list[int] | None) -> None:
    torch.manual_seed(0)
    network = build("volume-net", widths=(2, 3, 4), pooled_blocks=2, positions=positions).eval()
    volume = torch.rand(3, 1, 9, 13, 11)
    assert network(volume).shape == (3, 2)
    names = {name for name, _ in network.named_modules()}
    assert {"blocks.0.conv", "blocks.1.pool", "blocks.2.act", "pool", "classifier"} <= names


def test_a_classifier_of_positions_knows_where_something_is() -> None:
    torch.manual_seed(0)
    left = torch.zeros(1, 1, 16, 16, 16)
    left[:, :, 2:6, 6:10, 6:10] = 1
    right = left.flip(2)
    for positions, differs in ((None, False), ([4, 4, 4], True)):
        network = build("volume-net", widths=(2, 3), pooled_blocks=2, positions=positions).eval()
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, torch.nn.Conv3d):  # mirror-symmetric, so that only place can differ
                    module.weight.copy_((module.weight + module.weight.flip(2)) / 2)
            apart = (network(left) - network(right)).abs().max()
        assert bool(apart > 1e-5) is differs


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"classes": 1}, "classes must be a whole number from 2"),
        ({"widths": []}, "widths"),
        ({"widths": [2.5]}, "widths"),
        ({"pooled_blocks": 9}, "pooled_blocks must be a whole number from 0 to 4"),
        ({"positions": [2, 2]}, "positions must be 3 whole numbers"),
        ({"positions": [0, 2, 2]}, "positions"),
        ({"positions": [99, 99, 99]}, "positions"),
    ],
)
def test_impossible_hyperparameters_are_refused(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(BundleInvalid, match=match):
        build("volume-net", **wrong)
