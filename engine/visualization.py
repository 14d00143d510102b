"""The optimization itself."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from engine.capture import activations, frozen
from engine.events import Event, Progress, Result, Snapshot
from engine.fields import Checked, number
from engine.grid import Grid
from engine.objective import Objective
from engine.optimizer import Adam, Optimizer, Schedule
from engine.parameterization import Fourier, Latent, Parameterization
from engine.regularizer import L1, Regularizer, TotalVariation
from engine.start import ReferenceBrain, Scene, Start
from engine.transform import Transforms, resample


class Diverged(ArithmeticError):
    """The objective, a penalty or the volume is no longer finite.

    Parameters
    ----------
    step : int
        The step at which it happened.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"a number is not finite at step {step}; lower the learning rate or the weights")
        self.step = step


@dataclass(frozen=True)
class Spec(Checked):
    """Everything that determines a visualization, but the network.

    Parameters
    ----------
    grid : Grid
        The box that is optimized.
    objective : Objective
        What is maximized.
    intensity_range : tuple of float
        Bounds of the volume, model units.
    parameterization, start, transforms, regularizers, optimizer, schedule
        The method.
    reference : Tensor or None
        The brain on the grid, model units, for a start that asks for it.
    window : Tensor or None
        Share of the optimized volume at each voxel, 0 to 1; the rest is the reference. It fades a box
        that is cut from a larger volume into what surrounds it; None for no fading.
    steps, seed, snapshot_every : int
        Number of steps, seed of every draw, steps between snapshots (0 for none).
    """

    grid: Grid
    objective: Objective
    intensity_range: tuple[float, float] = (0.0, 1.0)
    parameterization: Parameterization = field(default_factory=Fourier)
    start: Start = field(default_factory=ReferenceBrain)
    transforms: Transforms = field(default_factory=Transforms)
    regularizers: Sequence[Regularizer] = (TotalVariation(), L1())
    optimizer: Optimizer = field(default_factory=Adam)
    schedule: Schedule = Schedule.CONSTANT
    reference: Tensor | None = None
    window: Tensor | None = None
    steps: int = number(128, minimum=1, doc="Number of optimizer steps.")
    seed: int = number(0, minimum=0, maximum=2**63 - 1, doc="Seed of every random draw.")
    snapshot_every: int = number(16, minimum=0, doc="Steps between snapshots; 0 for none.")


def visualize(
    network: nn.Module, spec: Spec, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[Event]:
    """Optimize an input until the objective's units fire.

    The network runs up to the last layer that the objective reads, in
    evaluation mode, without weight gradients, and is left as it was found.

    Parameters
    ----------
    network : nn.Module
        Takes `(batch, 1, *shape)`.
    spec : Spec
        What to do.
    should_stop : callable
        Asked before every step; True ends the run without a result.

    Yields
    ------
    Progress, Snapshot, Result
        A progress after each step, snapshots where asked for, the result last.

    Raises
    ------
    Diverged
        A number is no longer finite.
    UnknownLayer, UnitOutOfRange
        The objective names what the network does not have.
    """
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(spec.seed)
    latent = spec.parameterization.latent(spec.grid, spec.start.deviation, generator, device)
    scene = Scene(spec.start, spec.intensity_range, spec.reference, spec.window, device)
    optimizer = spec.optimizer.over(latent.free)
    for step in range(1, spec.steps + 1):
        if should_stop():
            return
        begin = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = spec.optimizer.learning_rate * spec.schedule.factor(step, spec.steps)
        objective, penalties = _step(network, spec, latent, scene, optimizer, generator)
        if not all(map(math.isfinite, (objective, *penalties.values()))):
            raise Diverged(step)
        yield Progress(step, spec.steps, objective, penalties, time.perf_counter() - begin)
        if spec.snapshot_every and step % spec.snapshot_every == 0 and step < spec.steps:
            yield Snapshot(step, _volume(scene, latent, step))
    yield Result(spec.steps, _volume(scene, latent, spec.steps))


@torch.no_grad()
def evaluate(network: nn.Module, objective: Objective, volume: Tensor) -> tuple[float, list[float]]:
    """Read the objective on a volume as it is.

    Parameters
    ----------
    network : nn.Module
        Takes `(batch, 1, *shape)`.
    objective : Objective
        What is read.
    volume : Tensor, (*shape)
        Model units.

    Returns
    -------
    objective : float
        The weighted sum of the terms.
    terms : list of float
        Each term's activation.
    """
    device = next(network.parameters()).device
    with frozen(network):
        readings = objective.read(activations(network, objective.layers, volume[None, None].to(device)))
    return float(objective.combine(readings)), readings[:, 0].tolist()


def _step(
    network: nn.Module,
    spec: Spec,
    latent: Latent,
    scene: Scene,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> tuple[float, dict[str, float]]:
    """Take one step and return the objective and the penalties it was taken on."""
    image = scene.image(latent.image())
    seen = image
    if spec.transforms.any:
        seen = resample(image, spec.grid, *spec.transforms.draw(spec.grid.ndim, generator))
    # Frozen for the step alone: between events the network is the caller's.
    with frozen(network):
        readings = spec.objective.read(activations(network, spec.objective.layers, seen))
    objective = spec.objective.combine(readings)
    penalties = {
        regularizer.name: penalty
        for regularizer in spec.regularizers
        if (penalty := regularizer.penalty(image, scene.home, spec.grid)) is not None
    }
    loss = -objective.sum() + sum(penalty.sum() for penalty in penalties.values())
    # Only the latent's gradient is made; nothing accumulates anywhere else.
    (latent.free.grad,) = torch.autograd.grad(loss, latent.free)
    optimizer.step()
    for regularizer in spec.regularizers:
        regularizer.after_step(latent, spec.grid)
    return objective.sum().item(), {name: penalty.sum().item() for name, penalty in penalties.items()}


@torch.no_grad()
def _volume(scene: Scene, latent: Latent, step: int) -> Tensor:
    volume = scene.image(latent.image())[0, 0].cpu().clone()
    if not volume.isfinite().all():
        raise Diverged(step)
    return volume
