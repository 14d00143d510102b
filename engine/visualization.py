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
from engine.optimizer import Adam, Optimizer
from engine.parameterization import Fourier, Latent, Parameterization
from engine.regularizer import L1, Regularizer, TotalVariation
from engine.start import ReferenceBrain, Start
from engine.transform import Transforms, resample

# A background of exactly 0 would map to minus infinity before the squashing.
_MARGIN = 0.02


class Diverged(ArithmeticError):
    """The objective is no longer a finite number.

    Parameters
    ----------
    step : int
        The step at which it happened.
    """

    def __init__(self, step: int) -> None:
        super().__init__(
            f"the objective is not finite at step {step}; lower the learning rate or the weights"
        )
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
    parameterization, start, transforms, regularizers, optimizer
        The method.
    reference : Tensor or None
        The brain on the grid, model units, for a start that asks for it.
    window : Tensor or None
        Share of the latent image that shows at each voxel, 0 to 1; None for all of it. It fades the
        volume into its start towards the border of a box that is cut from a larger volume.
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
        The objective is no longer finite.
    UnknownLayer, UnitOutOfRange
        The objective names what the network does not have.
    """
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(spec.seed)
    latent = spec.parameterization.latent(spec.grid, spec.start.deviation, generator, device)
    base = _base(spec, device)
    optimizer = spec.optimizer.over(latent.free)
    with frozen(network):
        for step in range(1, spec.steps + 1):
            if should_stop():
                return
            begin = time.perf_counter()
            objective, penalties = _step(network, spec, latent, base, optimizer, generator)
            if not math.isfinite(objective):
                raise Diverged(step)
            yield Progress(step, spec.steps, objective, penalties, time.perf_counter() - begin)
            if spec.snapshot_every and step % spec.snapshot_every == 0 and step < spec.steps:
                yield Snapshot(step, _volume(spec, latent, base))
    yield Result(spec.steps, _volume(spec, latent, base))


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
    base: Tensor,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> tuple[float, dict[str, float]]:
    """Take one step and return the objective and the penalties it was taken on."""
    image = _image(spec, latent, base)
    seen = image
    if spec.transforms.any:
        seen = resample(image, spec.grid, *spec.transforms.draw(spec.grid.ndim, generator))
    readings = spec.objective.read(activations(network, spec.objective.layers, seen))
    objective = spec.objective.combine(readings)
    home = _squash(spec, base)
    penalties = {
        regularizer.name: penalty
        for regularizer in spec.regularizers
        if (penalty := regularizer.penalty(image, home, spec.grid)) is not None
    }
    loss = -objective.sum() + sum(penalty.sum() for penalty in penalties.values())
    # Only the latent's gradient is made; nothing accumulates anywhere else.
    (latent.free.grad,) = torch.autograd.grad(loss, latent.free)
    optimizer.step()
    for regularizer in spec.regularizers:
        regularizer.after_step(latent, spec.grid)
    return objective.sum().item(), {name: penalty.sum().item() for name, penalty in penalties.items()}


def _base(spec: Spec, device: torch.device) -> Tensor:
    """Return what the latent is added to: 0 (middle grey) or the unsquashed brain."""
    if not spec.start.on_brain:
        return torch.zeros((), device=device)
    if spec.reference is None:
        raise ValueError("a start on the reference brain needs Spec.reference; give it, or start from Noise")
    low, high = spec.intensity_range
    share = (spec.reference.to(device) - low) / (high - low)
    return torch.logit(share.clamp(_MARGIN, 1 - _MARGIN))[None, None]


def _image(spec: Spec, latent: Latent, base: Tensor) -> Tensor:
    """Return the untransformed image, `(1, 1, *shape)`, model units."""
    unbounded = latent.image()
    if spec.window is not None:
        unbounded = unbounded * spec.window.to(unbounded)
    return _squash(spec, unbounded + base)


def _squash(spec: Spec, unbounded: Tensor) -> Tensor:
    low, high = spec.intensity_range
    return low + (high - low) * torch.sigmoid(unbounded)


@torch.no_grad()
def _volume(spec: Spec, latent: Latent, base: Tensor) -> Tensor:
    return _image(spec, latent, base)[0, 0].cpu().clone()
