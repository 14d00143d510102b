"""What a visualization yields on its way."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.stopping import Stop


@dataclass(frozen=True)
class ItemProgress:
    """How one volume of the batch stands.

    Parameters
    ----------
    objective : float
        The objective on this step's transformed volume.
    penalties : mapping of str to float
        Each regularizer's weighted penalty, by name.
    stopped : Stop or None
        Why the volume is finished; None while it is not.
    """

    objective: float
    penalties: Mapping[str, float]
    stopped: Stop | None = None

    @staticmethod
    def of_batch(objective: Tensor, penalties: Mapping[str, Tensor]) -> "tuple[ItemProgress, ...]":
        """Read the numbers of a step, `(batch,)` each, off the device."""
        names = list(penalties)
        table = torch.stack([objective, *(penalties[name] for name in names)], dim=1).detach().tolist()
        return tuple(ItemProgress(row[0], dict(zip(names, row[1:], strict=True))) for row in table)


@dataclass(frozen=True)
class Progress:
    """One step is done.

    Parameters
    ----------
    step, steps : int
        Steps done and in all.
    items : tuple of ItemProgress
        One for each volume of the batch.
    seconds : float
        Wall time of the step.
    """

    step: int
    steps: int
    items: tuple[ItemProgress, ...]
    seconds: float

    @property
    def objective(self) -> float:
        """The first volume's objective."""
        return self.items[0].objective

    @property
    def penalties(self) -> Mapping[str, float]:
        """The first volume's penalties."""
        return self.items[0].penalties


@dataclass(frozen=True)
class Snapshot:
    """A volume as it stands.

    Parameters
    ----------
    step : int
        Steps done when the volume was as it is.
    image : Tensor, shape of the grid, on the CPU
        The untransformed volume, model units.
    item : int
        Which volume of the batch, from 0.
    """

    step: int
    image: Tensor
    item: int = 0


@dataclass(frozen=True)
class Result(Snapshot):
    """The best of the looks at a volume.

    Parameters
    ----------
    extras : mapping of str to Tensor, shape of the grid
        More volumes that belong to it: `gradient`, the mean magnitude of the objective's gradient over the
        run; `jacobian` of a deformation; `opacity` of a patch.
    stopped : Stop
        Why the run ended.
    redirected_steps : int
        Steps on which the unit was dead and its gradient had to be redirected.
    recomputed : bool
        Whether activations were computed again on the way back, for they did not fit in memory.
    """

    extras: Mapping[str, Tensor] = field(default_factory=dict)
    stopped: Stop = Stop.STEPS
    redirected_steps: int = 0
    recomputed: bool = False


@dataclass(frozen=True, eq=False)
class ItemState:
    """All that one volume of the batch holds between two steps.

    Parameters
    ----------
    tensors : mapping of str to Tensor, on the CPU
        Copies by name: the free numbers, the optimizer's moments, the random generator, the best look.
    numbers : mapping of str to float
        What is no tensor; whole numbers and truths stay what they are.
    """

    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class State:
    """Where a run stands after a step: enough to go on from there, in another process too.

    Parameters
    ----------
    step : int
        Steps done.
    seconds : float
        Wall time so far, which `Stopping.seconds` bounds.
    items : tuple of ItemState
        One for each volume of the batch.
    """

    step: int
    seconds: float
    items: tuple[ItemState, ...]


Event = Progress | Snapshot | State
