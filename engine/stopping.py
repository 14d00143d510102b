"""When a volume is finished, and which of those on the way was the best."""

import math
from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

from engine.fields import Checked, number


class Stop(Enum):
    """Why a volume was finished."""

    STEPS = 1
    PLATEAU = 2
    ACTIVATION = 3
    TIME = 4
    DEAD = 5


@dataclass(frozen=True)
class Stopping(Checked):
    """When to stop before the last step.

    All but time is judged on the untransformed volume, every `look_every` steps
    and at the last; the best volume among those looks is the result.

    Parameters
    ----------
    look_every : int
        Steps between looks.
    plateau_looks : int
        Stop after so many looks without a gain; 0 for never.
    plateau_gain : float
        The gain in the score (objective minus penalties) that counts.
    activation : float or None
        Stop when the first term's activation has passed this value in the term's sense; None for never.
    seconds : float
        Stop after this time; 0 for never. How far a run comes then depends on the machine.
    """

    look_every: int = number(8, minimum=1, doc="Steps between looks at the untransformed volume.")
    plateau_looks: int = number(0, minimum=0, doc="Looks without a gain that end the run; 0 for never.")
    plateau_gain: float = number(0.01, minimum=0, doc="Gain in the score that counts as one.")
    activation: float | None = number(
        optional=True, doc="The first term's activation that ends the run; absent for never."
    )
    seconds: float = number(0.0, minimum=0, unit="s", doc="Time that ends the run; 0 for never.")


@dataclass
class Watch:
    """What is known of one volume of a batch: its best look, and whether it is finished.

    Attributes
    ----------
    score : float
        The best look's objective minus penalties.
    step : int
        When that was.
    image : Tensor or None, (*shape)
        The volume then, on the CPU.
    extras : dict of str to Tensor
        What belongs to it.
    stopped : Stop or None
        Why it is finished; None while it is not.
    redirected_steps : int
        Steps whose gradient had to be redirected.
    """

    score: float = -math.inf
    step: int = 0
    image: Tensor | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)
    stopped: Stop | None = None
    redirected_steps: int = 0
    _idle: int = 0
    _mark: float = -math.inf

    def look(self, score: float, activation: float, stopping: Stopping, sense: int) -> bool:
        """Take note of a look; return whether it is the best so far.

        Parameters
        ----------
        score : float
            Objective minus penalties on the untransformed volume.
        activation : float
            The first term's.
        stopping : Stopping
            The rules.
        sense : int
            1 if the first term is maximized, -1 if it is minimized.
        """
        if score > self._mark + stopping.plateau_gain:
            self._mark, self._idle = score, 0
        else:
            self._idle += 1
        wanted = stopping.activation
        if wanted is not None and sense * activation >= sense * wanted:
            self.stopped = Stop.ACTIVATION
        elif stopping.plateau_looks and self._idle >= stopping.plateau_looks:
            self.stopped = Stop.PLATEAU
        return score > self.score
