"""Stages on which latents are made, at every rank."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from engine import (
    Adam,
    Anatomy,
    Event,
    Grid,
    Objective,
    Progress,
    ReferenceBrain,
    Result,
    Spec,
    Term,
    Transforms,
    Unit,
    visualize,
)
from engine.parameterization import Parameterization, Stage
from engine.start import Scene, Start
from tests.engine.networks import CONVOLUTIONS

CPU = torch.device("cpu")
# 11 is no size that the grid transforms: its last axis is padded to 12.
GRIDS = [Grid((11,), (2.0,)), Grid((6, 11), (2.0, 1.5)), Grid((5, 6, 11), (2.0, 1.0, 1.5))]
ANYWHERE = pytest.mark.parametrize("grid", GRIDS, ids=["1d", "2d", "3d"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image(grid: Grid, seed: int = 0) -> Tensor:
    """Random intensities from 0 to 1, smooth enough to be told from their neighbors."""
    noise = torch.rand(grid.shape, generator=generator(seed))
    return (0.2 + 0.6 * noise).float()


def stage(
    grid: Grid,
    start: Start | None = None,
    anatomy: Anatomy | None = None,
    seeds: tuple[int, ...] = (0,),
    span: tuple[float, float] = (0.0, 1.0),
) -> Stage:
    start = start or ReferenceBrain(0.1)
    anatomy = anatomy or Anatomy(reference=image(grid, 9))
    scene = Scene(start, span, anatomy, [], CPU)
    return Stage(grid, start, scene, anatomy, [generator(seed) for seed in seeds], CPU)


def climb(
    parameterization: Parameterization, grid: Grid, anatomy: Anatomy, unit: Unit, **changes: object
) -> list[Event]:
    """Drive a unit of a small network, `2` being its last layer, for a while; no other force acts."""
    torch.manual_seed(grid.ndim)
    convolution = CONVOLUTIONS[grid.ndim - 1]
    network = nn.Sequential(convolution(1, 3, 3, padding=1), nn.Tanh(), convolution(3, 2, 3, padding=1))
    method = {
        "start": ReferenceBrain(0.01),
        "transforms": Transforms(jitter_mm=0, rotation_degrees=0, scale=0, copies=2),
        "regularizers": (),
        "optimizer": Adam(0.1),
        "steps": 40,
    }
    spec = Spec(grid, Objective([Term(unit)]), anatomy=anatomy, parameterization=parameterization)
    return list(visualize(network, replace(spec, **{**method, **changes})))


def gain(events: list[Event]) -> float:
    """Return by how much the objective of the last eight steps exceeds that of the first eight."""
    values = [event.objective for event in events if isinstance(event, Progress)]
    assert isinstance(events[-1], Result)
    return (sum(values[-8:]) - sum(values[:8])) / 8
