"""The published architectures beside the project's own: SFCN, the UK Biobank pair, a residual network."""

from itertools import pairwise
from typing import Any

import onnxruntime
import pytest
import torch
from torch import nn

from models import BundleInvalid
from models.architectures import REGISTRY, build
from models.layers import layer_table
from models.onnx_export import export_onnx

SMALL: dict[str, dict[str, Any]] = {
    "sfcn": {"widths": (4, 6, 8, 5), "pooled_blocks": 2, "classes": 3},
    "ukb-a": {"shape": (100, 104, 100), "classes": 3},
    "ukb-b": {"shape": (100, 104, 100), "classes": 3},
    "resnet": {"widths": (4, 8), "blocks": 2, "classes": 3},
}
EDGES = (100, 104, 100)


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_volumes_become_logits(name: str) -> None:
    network = build(name, **SMALL[name]).eval()
    with torch.no_grad():
        assert network(torch.rand(2, 1, *EDGES)).shape == (2, 3)


def test_parameters_are_as_published() -> None:
    # Eitel et al. 2021: 1,303,769 with one logit; the flat width of model B is 6144.
    assert _count(build("ukb-a", classes=1)) == 1_303_769
    assert build("ukb-b").hidden.in_features == 6144
    # Peng et al. 2021: "about 3 million"; convolutions, norms and the classifier of 40 classes.
    widths = (1, 32, 64, 128, 256, 256)
    blocks = sum(27 * a * b + b + 2 * b for a, b in pairwise(widths))
    assert _count(build("sfcn", classes=40)) == blocks + (256 * 64 + 64 + 128) + (64 * 40 + 40)


def test_a_residual_network_has_the_parameters_of_its_blocks() -> None:
    def block(a: int, b: int) -> int:
        shortcut = a * b + 2 * b if a != b else 0
        return 27 * (a * b + b * b) + 4 * b + shortcut

    expected = 27 * 4 + 8 + block(4, 4) * 2 + block(4, 8) + block(8, 8) + 8 * 3 + 3
    assert _count(build("resnet", **SMALL["resnet"])) == expected


@pytest.mark.parametrize("name", SMALL)
def test_it_is_built_without_memory_and_takes_weights(name: str) -> None:
    network = build(name, **SMALL[name]).eval()
    with torch.device("meta"):
        twin = build(name, **SMALL[name]).eval()
    twin.load_state_dict(network.state_dict(), assign=True)
    volume = torch.rand(1, 1, *EDGES)
    with torch.no_grad():
        assert torch.equal(network(volume), twin(volume))


@pytest.mark.parametrize("name", SMALL)
def test_every_layer_is_listed_once_and_can_be_traced(name: str) -> None:
    network = build(name, **SMALL[name])
    leaves = [path for path, module in network.named_modules() if not any(module.children())]
    table = layer_table(network, EDGES, (2.0, 2.0, 2.0))
    assert sorted(layer.name for layer in table) == sorted(leaves)
    assert not table[0].whole_input
    assert table[0].receptive_field == (3, 3, 3)
    assert not any(getattr(module, "inplace", False) for module in network.modules())


@pytest.mark.parametrize("name", SMALL)
def test_the_onnx_model_agrees(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, **SMALL[name]).eval()
    session = onnxruntime.InferenceSession(export_onnx(network, EDGES))
    volume = torch.rand(1, 1, *EDGES)
    (found,) = session.run(None, {session.get_inputs()[0].name: volume.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(found), network(volume), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("sfcn", {"widths": ()}, "widths must be 1 to 12 numbers"),
        ("sfcn", {"pooled_blocks": 6}, "pooled_blocks must be from 0 to 5"),
        ("sfcn", {"dropout": 1.0}, "dropout must be from 0"),
        ("ukb-a", {"shape": (40, 40, 40)}, "too few"),
        ("ukb-b", {"shape": (182, 218)}, "three numbers"),
        ("resnet", {"blocks": 0}, "blocks must be from 1"),
        ("resnet", {"widths": (8, 2.5)}, "widths must be whole"),
        ("resnet", {"classes": 0}, "classes must be from 1"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleInvalid, match=words):
        build(name, **settings)


def test_all_are_in_the_registry() -> None:
    assert set(SMALL) < set(REGISTRY)
