"""Units read what they say, one number an item, and never mix items."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine, sqeuclidean

from engine import (
    Channel,
    ClassLogit,
    Comparison,
    Direction,
    Measure,
    Neuron,
    Objective,
    Sense,
    SubjectActivations,
    Term,
    UnitOutOfRange,
    WholeLayer,
)


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


def test_a_whole_layer_is_its_mean_square(activation: torch.Tensor) -> None:
    expected = (activation.numpy().astype(float) ** 2).mean(axis=(1, 2, 3, 4))
    np.testing.assert_allclose(WholeLayer("layer").read(activation), expected, rtol=1e-5)


WEIGHTS = (1.0, -2.0, 0.5, 3.0)


def test_a_direction_is_the_dot_product_with_its_unit_vector(activation: torch.Tensor) -> None:
    values = activation.numpy().astype(float)
    expected = np.tensordot(values.mean(axis=(2, 3, 4)), np.array(WEIGHTS), 1) / np.linalg.norm(WEIGHTS)
    np.testing.assert_allclose(Direction("layer", WEIGHTS).read(activation), expected, rtol=1e-4, atol=1e-6)
    longer = tuple(10 * weight for weight in WEIGHTS)
    torch.testing.assert_close(
        Direction("layer", longer).read(activation), Direction("layer", WEIGHTS).read(activation)
    )


def test_a_direction_at_a_position_reads_nothing_else(activation: torch.Tensor) -> None:
    unit = Direction("layer", WEIGHTS, Measure.COSINE, (1, 2, 3))
    expected = [1 - cosine(one[:, 1, 2, 3], WEIGHTS) for one in activation.double().numpy()]
    np.testing.assert_allclose(unit.read(activation), expected, rtol=1e-5)


def test_a_cosine_is_the_mean_over_positions(activation: torch.Tensor) -> None:
    vectors = activation[0].double().numpy().reshape(4, -1).T
    expected = np.mean([1 - cosine(vector, WEIGHTS) for vector in vectors])
    found = Direction("layer", WEIGHTS, Measure.COSINE).read(activation)
    assert found[0].item() == pytest.approx(expected, abs=1e-6)


def test_a_direction_works_on_logits() -> None:
    logits = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    found = Direction("layer", (3.0, 4.0)).read(logits)
    torch.testing.assert_close(found, torch.tensor([5.0, 0.6]))


def test_a_direction_needs_one_number_a_channel(activation: torch.Tensor) -> None:
    with pytest.raises(UnitOutOfRange):
        Direction("layer", (1.0, 2.0)).read(activation)


def test_inversion_is_the_relative_squared_distance(activation: torch.Tensor) -> None:
    target = torch.randn(1, *activation.shape[1:], generator=torch.Generator().manual_seed(5))
    unit = SubjectActivations("layer", Comparison.INVERSION, target)
    flat = target.double().numpy().ravel()
    expected = [
        -sqeuclidean(one.ravel(), flat) / sqeuclidean(flat, 0 * flat) for one in activation.double().numpy()
    ]
    np.testing.assert_allclose(unit.read(activation), expected, rtol=1e-5)
    assert unit.read(target).item() == 0


def test_a_caricature_grows_along_the_target(activation: torch.Tensor) -> None:
    target = activation[:1]
    unit = SubjectActivations("layer", Comparison.CARICATURE, target)
    torch.testing.assert_close(unit.read(target), torch.ones(1))
    torch.testing.assert_close(unit.read(3 * target), torch.tensor([3.0]))
    flat, other = (image.double().numpy().ravel() for image in (target[0], activation[1]))
    angle = 1 - cosine(other, flat)
    expected = other @ flat / (flat @ flat) * max(angle, 0.1) ** 2
    assert unit.read(activation)[1].item() == pytest.approx(expected, rel=1e-4)


def test_a_subject_must_have_been_read(activation: torch.Tensor) -> None:
    objective = Objective([Term(SubjectActivations("layer")), Term(Channel("layer", 0))])
    with pytest.raises(ValueError, match="no target"):
        objective.read({"layer": activation})
    bound = objective.with_targets({"layer": activation[:1]})
    assert bound.read({"layer": activation[:1]})[0].item() == 0
    assert bound.terms[1] == objective.terms[1]


@pytest.mark.parametrize(
    "unit",
    [
        WholeLayer("layer"),
        Direction("layer", (1.0, -2.0)),
        Direction("layer", (1.0, -2.0), Measure.COSINE),
        SubjectActivations("layer", Comparison.INVERSION, torch.ones(1, 2, 3, dtype=torch.float64)),
        SubjectActivations("layer", Comparison.CARICATURE, torch.ones(1, 2, 3, dtype=torch.float64)),
    ],
)
def test_gradients_are_the_finite_differences(unit: WholeLayer) -> None:
    leaf = torch.rand(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.2
    assert torch.autograd.gradcheck(unit.read, leaf.requires_grad_())
