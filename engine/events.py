"""What a visualization yields on its way."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Progress:
    """One step is done.

    Parameters
    ----------
    step, steps : int
        Steps done and in all.
    objective : float
        The objective on this step's transformed volume.
    penalties : mapping of str to float
        Each regularizer's weighted penalty, by name.
    seconds : float
        Wall time of the step.
    """

    step: int
    steps: int
    objective: float
    penalties: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class Snapshot:
    """The volume as it stands.

    Parameters
    ----------
    step : int
        Steps done.
    image : Tensor, shape of the grid, on the CPU
        The untransformed volume, model units.
    """

    step: int
    image: Tensor


@dataclass(frozen=True)
class Result(Snapshot):
    """The final volume."""


Event = Progress | Snapshot
