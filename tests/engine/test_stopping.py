"""When a run ends, and that the best volume on the way is what comes out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from engine import Adam, Channel, Grid, Noise, Objective, Result, Sense, Spec, Stop, Stopping, Term, visualize
from engine.evaluation import readings
from engine.events import Progress
from engine.parameterization import Voxels
from engine.stopping import Watch
from engine.transform import Transforms

STILL = Transforms(jitter_mm=0, rotation_degrees=0, scale=0)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Conv2d(2, 2, 3))


def _spec(**changes: object) -> Spec:
    spec = Spec(
        Grid((8, 8), (1.0, 1.0)),
        Objective((Term(Channel("2", 0)),)),
        start=Noise(0.1),
        transforms=STILL,
        regularizers=(),
        steps=60,
        snapshot_every=0,
        optimizer=Adam(0.1),
    )
    return replace(spec, **changes)


def _result(network: nn.Module, spec: Spec) -> Result:
    return [event for event in visualize(network, spec) if isinstance(event, Result)][-1]


def test_all_steps_by_default(network: nn.Module) -> None:
    assert _result(network, _spec()).stopped is Stop.STEPS


def test_an_activation_ends_the_run_as_soon_as_it_is_seen(network: nn.Module) -> None:
    steps = [
        float(readings(network, _spec().objective, _result(network, _spec(steps=n)).image[None, None])[0])
        for n in range(1, 31)
    ]
    wanted = (steps[9] + steps[10]) / 2
    assert steps[9] < wanted < steps[10], "the run must climb for this test to say something"
    result = _result(network, _spec(stopping=Stopping(look_every=1, activation=wanted)))
    assert (result.step, result.stopped) == (11, Stop.ACTIVATION)


def test_an_activation_to_fall_below_when_the_unit_is_silenced(network: nn.Module) -> None:
    objective = Objective((Term(Channel("2", 0), sense=Sense.MINIMIZE),))
    low = _result(network, _spec(objective=objective, steps=20))
    reached = float(readings(network, objective, low.image[None, None])[0])
    result = _result(network, _spec(objective=objective, stopping=Stopping(look_every=1, activation=reached)))
    assert result.stopped is Stop.ACTIVATION
    assert result.step == 20


def test_a_plateau_ends_the_run(network: nn.Module) -> None:
    stopping = Stopping(look_every=2, plateau_looks=3, plateau_gain=0.01)
    result = _result(network, _spec(steps=2000, stopping=stopping))
    assert result.stopped is Stop.PLATEAU
    longer = _result(network, _spec(steps=500))
    values = readings(network, _spec().objective, torch.stack([result.image, longer.image])[:, None])[0]
    assert values[1] - values[0] < 0.2 * values[1].abs()


def test_time_ends_the_run(network: nn.Module) -> None:
    events = list(visualize(network, _spec(steps=1_000_000, stopping=Stopping(seconds=0.3))))
    assert events[-1].stopped is Stop.TIME
    assert sum(isinstance(event, Progress) for event in events) < 1_000_000


def test_the_best_look_is_the_result(network: nn.Module) -> None:
    """A rate far too high throws the volume about; what comes out is the best of what was seen."""
    spec = _spec(optimizer=Adam(3.0), parameterization=Voxels(), steps=25, stopping=Stopping(look_every=1))
    result = _result(network, spec)
    runs = [replace(spec, steps=n, stopping=Stopping(look_every=n)) for n in range(1, 26)]
    every = [_result(network, run).image for run in runs]
    values = readings(network, spec.objective, torch.stack(every)[:, None])[0]
    assert result.step == int(values.argmax()) + 1
    assert torch.equal(result.image, every[result.step - 1])


def test_a_watch_counts_looks_without_a_gain() -> None:
    watch, rules = Watch(), Stopping(plateau_looks=2, plateau_gain=0.5)
    for score, stopped in ((1.0, None), (1.4, None), (2.0, None), (2.2, None), (2.4, Stop.PLATEAU)):
        watch.look(score, 0.0, rules, 1)
        assert watch.stopped is stopped


def test_the_gradient_volume_is_the_mean_magnitude_of_the_objectives_gradient() -> None:
    """Of a linear network without transforms the gradient is the kernel's, the same at each step."""
    network = nn.Sequential(nn.Conv2d(1, 1, 3, bias=False), nn.Flatten(), nn.Linear(16, 1, bias=False))
    spec = _spec(objective=Objective((Term(Channel("2", 0)),)), grid=Grid((6, 6), (1.0, 1.0)), steps=5)
    kernel, weights = (layer.weight.detach().numpy().squeeze() for layer in (network[0], network[2]))
    expected = np.zeros((6, 6))
    for x in range(4):
        for y in range(4):
            expected[x : x + 3, y : y + 3] += weights[4 * x + y] * kernel
    found = _result(network, spec).extras["gradient"]
    np.testing.assert_allclose(found.numpy(), np.abs(expected), rtol=1e-4, atol=1e-6)
