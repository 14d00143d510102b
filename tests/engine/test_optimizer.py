"""Optimizers and schedules against their published formulas, in plain numpy."""

import numpy as np
import pytest
import torch

from engine import (
    Adam,
    Channel,
    Grid,
    Nadam,
    Noise,
    Objective,
    Schedule,
    Sgd,
    Spec,
    Term,
    Transforms,
    Voxels,
    visualize,
)

TARGET = np.array([1.0, -2.0, 0.5])
SCALE = np.array([1.0, 3.0, 0.2])


def _torch_path(kind: Adam | Nadam | Sgd, steps: int) -> np.ndarray:
    free = torch.zeros(3, dtype=torch.float64)
    slots = kind.slots(free)
    for _ in range(steps):
        slope = (free - torch.from_numpy(TARGET)) * torch.from_numpy(SCALE)
        kind.step([free], [slope], [slots], 1.0)
    return free.numpy()


def _gradient(x: np.ndarray) -> np.ndarray:
    return (x - TARGET) * SCALE


def test_adam_is_kingma_and_bas() -> None:
    x, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
    for t in range(1, 31):
        g = _gradient(x)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(_torch_path(Adam(0.1), 30), x, rtol=1e-9)


def test_nadam_is_dozats() -> None:
    x, m, v, product = np.zeros(3), np.zeros(3), np.zeros(3), 1.0
    for t in range(1, 31):
        g = _gradient(x)
        now = 0.9 * (1 - 0.5 * 0.96 ** (t * 0.004))
        following = 0.9 * (1 - 0.5 * 0.96 ** ((t + 1) * 0.004))
        product *= now
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        look_ahead = following * m / (1 - product * following) + (1 - now) * g / (1 - product)
        x = x - 0.1 * look_ahead / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(_torch_path(Nadam(0.1), 30), x, rtol=1e-9)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_sgd_is_polyaks(momentum: float) -> None:
    x, velocity = np.zeros(3), np.zeros(3)
    for _ in range(30):
        velocity = momentum * velocity + _gradient(x)
        x = x - 0.05 * velocity
    np.testing.assert_allclose(_torch_path(Sgd(0.05, momentum), 30), x, rtol=1e-9)


def test_schedules() -> None:
    assert [Schedule.CONSTANT.factor(step, 4) for step in range(1, 5)] == [1, 1, 1, 1]
    expected = [(1 + np.cos(np.pi * done / 4)) / 2 for done in range(4)]
    np.testing.assert_allclose([Schedule.COSINE.factor(step, 4) for step in range(1, 5)], expected)


def test_the_schedule_reaches_the_optimizer() -> None:
    """On a linear objective of the latent, Adam's steps are as long as the learning rate."""
    network = torch.nn.Sequential(torch.nn.Conv1d(1, 1, 1))
    with torch.no_grad():
        network[0].weight.fill_(1.0)
    spec = Spec(
        grid=Grid((1,), (1.0,)),
        objective=Objective([Term(Channel("0", 0))]),
        parameterization=Voxels(),
        start=Noise(0.0),
        transforms=Transforms(0, 0, 0),
        regularizers=(),
        optimizer=Adam(0.01),
        schedule=Schedule.COSINE,
        steps=4,
        snapshot_every=1,
    )
    volumes = [event.image for event in visualize(network, spec) if hasattr(event, "image")]
    moved = np.diff([0.0, *[torch.logit(volume).item() for volume in volumes]])
    np.testing.assert_allclose(
        moved, [0.01 * Schedule.COSINE.factor(step, 4) for step in range(1, 5)], rtol=2e-2
    )
