"""What holds for every architecture of the registry."""

from typing import Any

import pytest
import torch
from torch import nn

from models import layer_table
from models.architectures import REGISTRY, build
from models.onnx_export import TOLERANCE, export_onnx

SHAPE = (24, 27, 23)
SMALL: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "lesion-net": ({"classes": 3, "widths": [2, 3, 4]}, SHAPE),
    "resnet": ({"classes": 3, "widths": [3, 4], "blocks": [1, 2], "stem_kernel": 3}, SHAPE),
    "sfcn": ({"classes": 3, "widths": [3, 4, 4], "top_width": 5}, SHAPE),
    "ukb-a": ({"classes": 3, "shape": [98, 99, 98]}, (98, 99, 98)),
    "ukb-b": ({"classes": 3, "shape": [80, 81, 82]}, (80, 81, 82)),
    "volume-net": ({"classes": 3, "widths": [2, 3, 4], "positions": [3, 3, 2]}, SHAPE),
}


def as_trained(name: str) -> nn.Module:
    """Build a small network whose norms have seen data and whose logits differ from volume to volume."""
    torch.manual_seed(0)
    hyperparameters, _ = SMALL[name]
    network = build(name, **hyperparameters)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.05, 0.2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
        elif isinstance(module, nn.Conv3d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    return network.eval()


def leaves(network: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in network.named_modules() if name and not any(module.children())}


def test_every_architecture_is_tested() -> None:
    # Imported networks have tests of their own, in tests/models/onnx_graph.
    assert set(SMALL) == set(REGISTRY) - {"onnx"}


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_of_volumes_gives_rows_of_raw_logits(name: str) -> None:
    network = as_trained(name)
    volumes = torch.rand(2, 1, *SMALL[name][1])
    with torch.no_grad():
        logits = network(volumes)
        alone = network(volumes[1:])
    assert logits.shape == (2, 3)
    assert torch.allclose(logits[1:], alone, atol=1e-4)
    # Neither probabilities nor their logarithms, which would sum to 1.
    assert not torch.allclose(logits.sum(1), torch.ones(2), atol=0.01)
    assert not torch.allclose(logits.exp().sum(1), torch.ones(2), atol=0.01)


@pytest.mark.parametrize("name", SMALL)
def test_a_network_without_memory_takes_the_weights_on(name: str) -> None:
    stored = as_trained(name)
    with torch.device("meta"):
        network = build(name, **SMALL[name][0])
    assert all(tensor.is_meta for tensor in network.state_dict().values())
    network.load_state_dict(stored.state_dict(), strict=True, assign=True)
    assert not any(t.is_meta for t in (*network.parameters(), *network.buffers()))
    volume = torch.rand(1, 1, *SMALL[name][1])
    with torch.no_grad():
        assert torch.equal(network.eval()(volume), stored(volume))


@pytest.mark.parametrize("name", SMALL)
def test_the_layer_table_lists_every_leaf_once(name: str) -> None:
    hyperparameters, shape = SMALL[name]
    network = build(name, **hyperparameters)
    layers = layer_table(network, shape, (4.0, 4.0, 4.0))
    names = [layer.name for layer in layers]
    assert len(set(names)) == len(names)
    assert set(names) == set(leaves(network))
    assert [layer.type for layer in layers] == [type(leaves(network)[n]).__name__ for n in names]
    # An untraceable network would see the whole input from the first layer on.
    assert [layer.whole_input for layer in layers] == sorted(layer.whole_input for layer in layers)
    assert not layers[0].whole_input
    assert layers[0].receptive_field == network.get_submodule(names[0]).kernel_size
    assert (names[-1], layers[-1].channels, layers[-1].output_shape) == ("classifier", 3, ())


@pytest.mark.parametrize("name", SMALL)
def test_every_layer_runs_once_and_keeps_what_it_reads(name: str) -> None:
    """Hooks on layers are unambiguous, and an activation read before a layer is still there behind it."""
    network = as_trained(name)
    runs: list[str] = []
    read: list[tuple[str, torch.Tensor, torch.Tensor]] = []

    def note(layer: str, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        runs.append(layer)
        read.extend((layer, tensor, tensor.clone()) for tensor in (inputs[0], output))

    for layer, module in leaves(network).items():
        module.register_forward_hook(lambda _, inputs, output, layer=layer: note(layer, inputs, output))
    before: dict[str, torch.Tensor] = {}
    for layer, module in leaves(network).items():
        module.register_forward_pre_hook(lambda _, inputs, x=layer: before.update({x: inputs[0].clone()}))
    with torch.no_grad():
        network(torch.rand(1, 1, *SMALL[name][1]))
    assert sorted(runs) == sorted(leaves(network))
    for layer, tensor, copy in read:
        assert torch.equal(tensor, copy), layer
    for layer, tensor, _ in read[::2]:
        assert torch.equal(tensor, before[layer]), layer
    assert not any(getattr(module, "inplace", False) for module in network.modules())


@pytest.mark.parametrize("name", SMALL)
def test_onnx_agrees(name: str) -> None:
    """The export compares the logits itself; here they are seen to be large enough for that to say much."""
    network, shape = as_trained(name), SMALL[name][1]
    with torch.no_grad():
        first, second = network(torch.rand(2, 1, *shape))
    assert (first - second).abs().max() > 10 * TOLERANCE
    assert export_onnx(network, shape)
