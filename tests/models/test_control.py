from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from models import ZOO, read_bundle
from models.control import shuffle_weights
from models.importing import Facts, export_bundle
from models.onnx_graph.network import OnnxNetwork
from tests.models.importing.conftest import SHAPE, Small, brain, save_image


def _states(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.fixture(scope="module", params=["native", "imported"])
def networks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[nn.Module]:
    """The same network three times: as it is, and twice to be changed."""
    bundle = read_bundle(ZOO / "growth" / "1")
    if request.param == "imported":
        root = tmp_path_factory.mktemp("imported")
        torch.manual_seed(3)
        facts = Facts("small", classes=("a", "b", "c"))
        bundle = export_bundle(Small(), root / "repository", facts, save_image(root / "mean.nii.gz"))
        assert isinstance(bundle.network(), OnnxNetwork)
    return [bundle.network() for _ in range(3)]


def test_every_tensor_keeps_its_values_in_another_order(networks: list[nn.Module]) -> None:
    before = _states(networks[0])
    network = shuffle_weights(networks[1], 4)
    assert network is networks[1]
    after = _states(network)
    moved = 0
    for name, values in before.items():
        assert torch.equal(values.flatten().sort().values, after[name].flatten().sort().values)
        if not values.is_floating_point() or values.numel() == 1:
            assert torch.equal(values, after[name])
        elif len(values.unique()) > 8:
            assert not torch.equal(values, after[name]), name
            moved += 1
    assert moved >= 3
    # Each is shuffled by itself, not all alike.
    assert len({values.numel() for values in before.values()}) > 3


def test_the_seed_decides(networks: list[nn.Module]) -> None:
    assert not networks[2].training
    first = _states(shuffle_weights(networks[2], 9))
    shape = SHAPE if isinstance(networks[2], OnnxNetwork) else (32, 22, 22)
    volume = torch.from_numpy(np.resize(brain(1), shape).astype(np.float32))[None, None] / 1000
    with torch.inference_mode():
        answer = networks[2](volume)
        assert torch.isfinite(answer).all()
        assert not torch.allclose(answer, networks[0](volume))
    networks[2].load_state_dict(networks[0].state_dict())
    again = _states(shuffle_weights(networks[2], 9))
    assert all(torch.equal(first[name], again[name]) for name in first)
    networks[2].load_state_dict(networks[0].state_dict())
    other = _states(shuffle_weights(networks[2], 10))
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_order_is_the_same_with_all_versions_and_machines() -> None:
    """Written down once: a replay in years must find the same network."""
    layer = nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(6.0).reshape(3, 2))
        layer.bias.copy_(torch.arange(3.0))
    shuffle_weights(layer, 7)
    assert layer.weight.flatten().tolist() == [3.0, 4.0, 0.0, 2.0, 5.0, 1.0]
    assert layer.bias.tolist() == [0.0, 2.0, 1.0]


def test_the_bundle_is_left_as_it_was() -> None:
    bundle = read_bundle(ZOO / "growth" / "1")
    before = _states(bundle.network())
    shuffle_weights(bundle.network(), 0)
    after = _states(read_bundle(ZOO / "growth" / "1").network())
    assert all(torch.equal(before[name], after[name]) for name in before)
