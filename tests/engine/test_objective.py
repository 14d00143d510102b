"""Units read what they say, one number an item, and never mix items."""

import pytest
import torch

from engine import Channel, ClassLogit, Neuron, Objective, Sense, Term, UnitOutOfRange


@pytest.fixture
def activation() -> torch.Tensor:
    return torch.randn(3, 4, 5, 6, 7, generator=torch.Generator().manual_seed(0))


def test_a_channel_is_the_mean_of_its_map(activation: torch.Tensor) -> None:
    expected = torch.from_numpy(activation.numpy()[:, 2].mean(axis=(1, 2, 3)))
    torch.testing.assert_close(Channel("layer", 2).read(activation), expected)


def test_a_neuron_is_one_position(activation: torch.Tensor) -> None:
    assert torch.equal(Neuron("layer", 1, (0, 5, 6)).read(activation), activation[:, 1, 0, 5, 6])


def test_a_neuron_without_a_place_is_the_middle(activation: torch.Tensor) -> None:
    assert torch.equal(Neuron("layer", 3).read(activation), activation[:, 3, 2, 3, 3])


@pytest.mark.parametrize("unit", [ClassLogit("layer", 1), Channel("layer", 1), Neuron("layer", 1)])
def test_a_vector_layer_has_no_space(unit: Channel) -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert torch.equal(unit.read(logits), torch.tensor([2.0, 5.0]))


@pytest.mark.parametrize(
    "unit",
    [Channel("layer", 4), Neuron("layer", 9), Neuron("layer", 0, (5, 0, 0)), Neuron("layer", 0, (0, -1, 0))],
)
def test_units_that_do_not_exist(activation: torch.Tensor, unit: Channel) -> None:
    with pytest.raises(UnitOutOfRange, match="must be 0 to"):
        unit.read(activation)


def test_terms_add_up_with_weight_sense_and_spread(activation: torch.Tensor) -> None:
    objective = Objective(
        [
            Term(Channel("a", 0), weight=2.0),
            Term(Neuron("b", 1, (1, 1, 1)), weight=3.0, sense=Sense.MINIMIZE, spread=4.0),
        ]
    )
    assert objective.layers == {"a", "b"}
    readings = objective.read({"a": activation, "b": activation + 1})
    first, second = activation[:, 0].mean((1, 2, 3)), activation[:, 1, 1, 1, 1] + 1
    torch.testing.assert_close(readings, torch.stack([first, second]))
    torch.testing.assert_close(objective.combine(readings), 2 * first - 3 / 4 * second)


def test_items_of_a_batch_do_not_leak(activation: torch.Tensor) -> None:
    objective = Objective([Term(Channel("a", 0)), Term(Neuron("a", 1))])
    together = objective.combine(objective.read({"a": activation}))
    alone = torch.cat([objective.combine(objective.read({"a": one[None]})) for one in activation])
    torch.testing.assert_close(together, alone)
