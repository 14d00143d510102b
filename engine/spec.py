"""Everything that determines a visualization, but the network."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.anatomy import Anatomy
from engine.fields import Checked, InvalidField, number
from engine.grid import Grid
from engine.network import Precision
from engine.objective import Objective
from engine.optimizer import Adam, Optimizer, Schedule
from engine.parameterization import Fourier, Parameterization, Patch
from engine.regularizer import L1, Regularizer, SpectrumMatch, TotalVariation
from engine.start import ReferenceBrain, Start
from engine.stopping import Stopping
from engine.transform import Transforms


@dataclass(frozen=True)
class Item:
    """One volume of a batch.

    Parameters
    ----------
    objective : Objective
        What it maximizes.
    seed : int
        Seed of its random draws.
    """

    objective: Objective
    seed: int = 0


def default_regularizers(parameterization: Parameterization) -> tuple[Regularizer, ...]:
    """Return the regularizers of a run that names none.

    An image that can become any other is kept smooth, near its start and near
    the spectrum of brains. Phases, patches and deformations are held by what
    they are: these penalties would mostly keep them from moving.

    Parameters
    ----------
    parameterization : Parameterization
        How the volume is held.
    """
    if parameterization.free_image:
        return TotalVariation(), L1(), SpectrumMatch()
    return (TotalVariation(),) if isinstance(parameterization, Patch) else ()


@dataclass(frozen=True)
class Spec(Checked):
    """Everything that determines a visualization, but the network.

    Parameters
    ----------
    grid : Grid
        The box that is optimized.
    objective : Objective
        What the first volume maximizes.
    intensity_range : tuple of float
        Bounds of the volume, model units.
    parameterization, start, transforms, regularizers, optimizer, schedule, stopping
        The method; without regularizers, `default_regularizers`.
    precision : Precision
        The numbers in which the network computes.
    anatomy : Anatomy
        What is known of brains on the grid.
    batch : sequence of Item
        More volumes, optimized at the same time. Each comes out as it would alone: on a CPU to the bit.
    memory : int or None
        Bytes that the network's activations may take; None for no bound. What does not fit is computed
        again on the way back, and the result says so.
    steps, seed, snapshot_every : int
        Number of steps, seed of the first volume's draws, steps between snapshots (0 for none).

    Raises
    ------
    InvalidField
        A number is out of bounds, or parts of the method do not go together.
    """

    grid: Grid
    objective: Objective
    intensity_range: tuple[float, float] = (0.0, 1.0)
    parameterization: Parameterization = field(default_factory=Fourier)
    start: Start = field(default_factory=ReferenceBrain)
    transforms: Transforms = field(default_factory=Transforms)
    regularizers: Sequence[Regularizer] = None  # type: ignore[assignment]  # __post_init__ fills it in
    optimizer: Optimizer = field(default_factory=Adam)
    schedule: Schedule = Schedule.CONSTANT
    stopping: Stopping = field(default_factory=Stopping)
    precision: Precision = Precision.FLOAT32
    anatomy: Anatomy = field(default_factory=Anatomy, compare=False)
    batch: Sequence[Item] = ()
    memory: int | None = field(default=None, compare=False)
    steps: int = number(256, minimum=1, doc="Number of optimizer steps.")
    seed: int = number(0, minimum=0, maximum=2**63 - 1, doc="Seed of every random draw.")
    snapshot_every: int = number(32, minimum=0, doc="Steps between snapshots; 0 for none.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.regularizers is None:
            object.__setattr__(self, "regularizers", default_regularizers(self.parameterization))
        if len({item.objective.behind_nonlinearities for item in self.items}) > 1:
            raise InvalidField("behind_nonlinearities", "mixed", "the same for the whole batch")
        if self.start.name in self.parameterization.refused_starts:
            rule = f"an image or texture for {self.parameterization.name} to work on, such as reference_brain"
            raise InvalidField("start", self.start.name, rule)
        for regularizer in self.regularizers:
            if regularizer.free_image_only and not self.parameterization.free_image:
                rule = f"one that holds the image itself for {regularizer.name} to act on: fourier, voxels…"
                raise InvalidField("parameterization", self.parameterization.name, rule)

    @property
    def items(self) -> tuple[Item, ...]:
        """The volumes of the batch, the first one first."""
        return (Item(self.objective, self.seed), *self.batch)

    @property
    def layers(self) -> set[str]:
        """Names of the layers that are read."""
        named = [item.objective.layers for item in self.items]
        return set().union(*named, *(regularizer.layers for regularizer in self.regularizers))
