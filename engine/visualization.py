"""The optimization itself."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from engine.events import Event, ItemProgress, Progress, Result, Snapshot
from engine.network import Prepared, Reader, prepared, redirected
from engine.parameterization.base import Stage
from engine.regularizer.base import Look, Regularizer
from engine.spec import Spec
from engine.start import Scene
from engine.stopping import Stop, Watch
from engine.transform import Draw, apply

# A unit that has had no gradient at all for so many steps from the first gets none later.
_DEAD_STEPS = 8


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


def visualize(
    network: nn.Module | Prepared, spec: Spec, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[Event]:
    """Optimize inputs until the objectives' units fire.

    The network runs up to the last layer that is read, in evaluation mode,
    without weight gradients, and is left as it was found.

    Parameters
    ----------
    network : nn.Module or Prepared
        Takes `(batch, 1, *shape)`. Prepared, it need not be made ready again.
    spec : Spec
        What to do.
    should_stop : callable
        Asked before every step; True ends the run without a result.

    Yields
    ------
    Progress, Snapshot, Result
        A progress after each step, snapshots where asked for, the results last, in the batch's order.

    Raises
    ------
    Diverged
        A number is no longer finite.
    UnknownLayer, UnitOutOfRange
        An objective names what the network does not have.
    MissingAnatomy
        The method needs a part of the anatomy that was not given.
    """
    network = prepared(network)
    runs = [_Run(network, part, first) for first, part in _parts(spec, network.device)]
    started = time.perf_counter()
    for step in range(1, spec.steps + 1):
        if should_stop():
            return
        begin = time.perf_counter()
        late = bool(spec.stopping.seconds) and begin - started >= spec.stopping.seconds
        last = step == spec.steps or late
        for run in runs:
            if not run.finished:
                run.step(step)
                if last or step % spec.stopping.look_every == 0:
                    run.look(step)
        items = tuple(
            ItemProgress(item.objective, item.penalties, watch.stopped)
            for run in runs
            for item, watch in zip(run.progress, run.watches, strict=True)
        )
        yield Progress(step, spec.steps, items, time.perf_counter() - begin)
        if last or all(run.finished for run in runs):
            break
        if spec.snapshot_every and step % spec.snapshot_every == 0:
            for run in runs:
                yield from run.snapshots(step)
    for run in runs:
        yield from run.results(Stop.TIME if late else Stop.STEPS)


def _parts(spec: Spec, device: torch.device) -> list[tuple[int, Spec]]:
    """Return the runs that a batch is computed as, each with the number of its first volume.

    A GPU computes all volumes together. On a CPU that gains nothing, and the
    rounding of convolutions and Fourier transforms depends on the size of the
    batch: there each volume runs by itself, step by step with the others, and
    comes out with the very bits that it has alone.
    """
    if device.type != "cpu" or any(regularizer.couples for regularizer in spec.regularizers):
        return [(0, spec)]
    items = enumerate(spec.items)
    return [(n, replace(spec, objective=item.objective, seed=item.seed, batch=())) for n, item in items]


class _Run:
    """Volumes that are computed together, between steps."""

    def __init__(self, network: Prepared, spec: Spec, first: int) -> None:
        self.network, self.spec, self.first = network, spec, first
        self.progress: tuple[ItemProgress, ...] = ()
        device = network.device
        self.generators = [torch.Generator().manual_seed(item.seed) for item in spec.items]
        windows = [regularizer.window(spec.anatomy, spec.grid) for regularizer in spec.regularizers]
        self.scene = Scene(
            spec.start,
            spec.intensity_range,
            spec.anatomy,
            [window for window in windows if window is not None],
            device,
        )
        stage = Stage(spec.grid, spec.start, self.scene, spec.anatomy, self.generators, device)
        self.latent = spec.parameterization.latent(stage)
        self.optimizer = spec.optimizer.over(self.latent.free)
        self.watches = [Watch() for _ in spec.items]
        self.alive = torch.zeros(len(spec.items), dtype=torch.bool, device=device)
        self.saliency = torch.zeros(len(spec.items), *spec.grid.shape, device=device)
        self.steps_taken = 0
        self.keep = spec.memory is None or self._reader(spec.layers).fits(
            self.latent.volume().detach(), spec.memory // spec.transforms.copies
        )
        # What a balanced penalty is multiplied by; 0 until it has a gradient.
        self.balance = {r.name: torch.zeros(len(spec.items), device=device) for r in spec.regularizers}

    @property
    def finished(self) -> bool:
        """Whether every volume is."""
        return all(watch.stopped for watch in self.watches)

    def step(self, step: int) -> None:
        """Take one optimizer step on all volumes."""
        spec = self.spec
        for group in self.optimizer.param_groups:
            group["lr"] = spec.optimizer.learning_rate * spec.schedule.factor(step, spec.steps)
        volume = self.latent.volume()
        seen = self.latent.seen(volume, spec.transforms.copies, self.generators)
        # Leaves of their own: the objective's gradient on the volume is looked at before it goes on.
        pixels, shown = volume.detach().requires_grad_(), seen.detach().requires_grad_()
        draws = self._draws((step - 1) / max(spec.steps - 1, 1))
        look, objective = self._look(pixels, shown, draws)
        upward = self._upward(objective, shown, draws, step)
        # Before the penalties: they are balanced with the gradient that is followed.
        for regularizer in spec.regularizers:
            upward = regularizer.gradient(upward, spec.grid)
        on_pixels, on_shown, penalties = self._downward(look, shown, upward)
        own = self.latent.penalties()
        outputs, slopes = [seen, *own.values()], [torch.ones_like(penalty) for penalty in own.values()]
        slopes.insert(0, -upward if on_shown is None else on_shown - upward)
        if on_pixels is not None:
            outputs.append(volume)
            slopes.append(on_pixels)
        # Only the latent's gradient is made; nothing accumulates anywhere else.
        gradients = torch.autograd.grad(outputs, self.latent.free, slopes)
        for free, gradient in zip(self.latent.free, gradients, strict=True):
            # The optimizer goes through both as they lie in memory.
            free.grad = gradient.contiguous()
        self.optimizer.step()
        for regularizer in spec.regularizers:
            regularizer.after_step(self.latent, spec.anatomy, spec.grid)
        self.progress = _progress(objective, {**penalties, **own}, step)

    @torch.no_grad()
    def look(self, step: int) -> None:
        """Look at the untransformed volumes: keep the best, finish those that are done."""
        volume = self.latent.volume()
        if not volume.isfinite().all():
            raise Diverged(step)
        look, objective = self._look(volume, volume, None)
        score = objective - sum(self.latent.penalties().values())
        for regularizer, penalty in self._penalties(look):
            score = score - penalty * (self.balance[regularizer.name] if regularizer.balanced else 1)
        extras = self.latent.extras()
        for index, (item, watch) in enumerate(zip(self.spec.items, self.watches, strict=True)):
            if watch.stopped:
                continue
            first = item.objective.terms[0]
            answer = look.activations[first.unit.layer][index : index + 1]
            activation = float(first.unit.read(answer))
            if watch.look(float(score[index]), activation, self.spec.stopping, first.sense.value):
                watch.score, watch.step = float(score[index]), step
                watch.image = volume[index, 0].cpu().clone()
                watch.extras = {name: values[index].cpu().clone() for name, values in extras.items()}
                if self.latent.in_place:
                    watch.extras["gradient"] = (self.saliency[index] / self.steps_taken).cpu()

    @torch.no_grad()
    def snapshots(self, step: int) -> Iterator[Snapshot]:
        """Yield the volumes that are not finished."""
        volume = self.latent.volume()
        if not volume.isfinite().all():
            raise Diverged(step)
        for index, watch in enumerate(self.watches):
            if not watch.stopped:
                yield Snapshot(step, volume[index, 0].cpu().clone(), self.first + index)

    def results(self, otherwise: Stop) -> Iterator[Result]:
        """Yield the best look at each volume."""
        for index, watch in enumerate(self.watches):
            if watch.image is None:
                raise Diverged(self.steps_taken)
            stopped = watch.stopped or otherwise
            item = self.first + index
            redirected_steps, recomputed = watch.redirected_steps, not self.keep
            yield Result(watch.step, watch.image, item, watch.extras, stopped, redirected_steps, recomputed)

    def _draws(self, progress: float) -> list[Draw] | None:
        """Draw the transforms of every copy of every volume."""
        transforms = self.spec.transforms
        if not transforms.any:
            return None
        return [
            transforms.draw(self.spec.grid, generator, progress)
            for generator in self.generators
            for _ in range(transforms.copies)
        ]

    def _reader(self, layers: set[str]) -> Reader:
        spec = self.spec
        return self.network.reader(layers, spec.objective.behind_nonlinearities, spec.precision)

    def _read(self, volume: Tensor, draws: Sequence[Draw] | None, layers: set[str]) -> Mapping[str, Tensor]:
        """Return what the layers say of transformed volumes."""
        if draws is not None:
            volume = apply(volume, draws, self.spec.grid, self.spec.intensity_range)
        return self._reader(layers)(volume, self.keep)

    def _look(self, image: Tensor, shown: Tensor, draws: Sequence[Draw] | None) -> tuple[Look, Tensor]:
        """Return what regularizers see, and the objective of each volume."""
        spec = self.spec
        found = self._read(shown, draws, spec.layers)
        home: Mapping[str, Tensor] = {}
        if layers := set().union(*(r.layers for r in spec.regularizers if r.reads_home)):
            start = self.scene.home.expand_as(image)
            with torch.no_grad():
                home = self._read(start.repeat_interleave(len(shown) // len(image), 0), draws, layers)
        look = Look(image, self.scene.home, spec.grid, spec.anatomy, found, home, _groups(spec))
        return look, self._objective(found, len(image))

    def _objective(self, found: Mapping[str, Tensor], batch: int) -> Tensor:
        """Return each volume's objective, `(batch,)`, the mean over its copies."""
        values = []
        for index, item in enumerate(self.spec.items):
            own = {layer: answer.chunk(batch)[index] for layer, answer in found.items()}
            readings = item.objective.read(own)
            for regularizer in self.spec.regularizers:
                pairs = zip(item.objective.terms, readings, strict=True)
                readings = torch.stack([regularizer.limit(reading, term) for term, reading in pairs])
            values.append(item.objective.combine(readings).mean())
        return torch.stack(values)

    def _upward(self, objective: Tensor, shown: Tensor, draws: Sequence[Draw] | None, step: int) -> Tensor:
        """Return the objective's gradient on what is shown; a dead unit's is redirected."""
        keep = any(regularizer.layers for regularizer in self.spec.regularizers)
        (gradient,) = torch.autograd.grad(objective.sum(), shown, retain_graph=keep)
        batch = len(objective)
        size = gradient.abs()
        dead = size.reshape(batch, -1).amax(1) == 0
        if dead.any():
            with redirected(self._reader(self.spec.layers)):
                again = self._objective(self._read(shown, draws, self.spec.layers), batch)
                (other,) = torch.autograd.grad(again.sum(), shown)
            rescued = dead.repeat_interleave(len(shown) // batch).reshape(-1, *[1] * (shown.ndim - 1))
            gradient = torch.where(rescued, other, gradient)
            size = gradient.abs()
            still = size.reshape(batch, -1).amax(1) == 0
            self.alive |= ~still
            for index, watch in enumerate(self.watches):
                watch.redirected_steps += bool(dead[index] & ~still[index])
                if step >= _DEAD_STEPS and not self.alive[index] and not watch.stopped:
                    self.look(step)
                    watch.stopped = watch.stopped or Stop.DEAD
        else:
            self.alive[:] = True
        self.steps_taken = step
        for copy in size.reshape(batch, -1, *self.spec.grid.shape).unbind(1):
            self.saliency += copy
        return gradient

    def _penalties(self, look: Look) -> Iterator[tuple[Regularizer, Tensor]]:
        for regularizer in self.spec.regularizers:
            penalty = regularizer.penalty(look)
            if penalty is not None:
                yield regularizer, penalty

    def _downward(
        self, look: Look, shown: Tensor, upward: Tensor
    ) -> tuple[Tensor | None, Tensor | None, dict[str, Tensor]]:
        """Return the penalties' gradients on the volume and on what is shown, if any, and the penalties."""
        totals: list[Tensor | None] = [None, None]
        values = {}
        for regularizer, penalty in self._penalties(look):
            slopes = torch.autograd.grad(
                penalty.sum(), [look.image, shown], retain_graph=True, allow_unused=True
            )
            factor = torch.ones_like(penalty)
            if regularizer.balanced:
                factor = self._balanced(regularizer, upward, slopes)
            for index, slope in enumerate(slopes):
                if slope is not None:
                    if regularizer.balanced:
                        each = factor.repeat_interleave(len(slope) // len(penalty))
                        slope = slope * each.reshape(-1, *(1,) * (slope.ndim - 1))
                    total = totals[index]
                    totals[index] = slope if total is None else total + slope
            values[regularizer.name] = penalty.detach() * factor
        return totals[0], totals[1], values

    def _balanced(self, regularizer: Regularizer, upward: Tensor, slopes: Sequence[Tensor | None]) -> Tensor:
        """Return what makes a penalty's first gradient `weight` times as long as the objective's."""
        shape = (len(self.spec.items), -1, *upward.shape[1:])
        pulls = [slope.reshape(shape).sum(1) for slope in slopes if slope is not None]
        pull = sum(pulls, torch.zeros(())).flatten(1).norm(dim=1)
        push = upward.reshape(shape).sum(1).flatten(1).norm(dim=1)
        factor = self.balance[regularizer.name]
        ready = (factor == 0) & (pull > 0)
        weight: float = regularizer.weight  # type: ignore[attr-defined]  # every balanced one has a weight
        factor[ready] = weight * push[ready] / pull[ready]
        return factor


def _groups(spec: Spec) -> tuple[int, ...]:
    """Return, for each volume, the first one that has the same objective."""
    objectives = [item.objective for item in spec.items]
    return tuple(objectives.index(objective) for objective in objectives)


def _progress(objective: Tensor, penalties: Mapping[str, Tensor], step: int) -> tuple[ItemProgress, ...]:
    """Read the numbers of a step off the device, and check them."""
    names = list(penalties)
    rows = torch.stack([objective, *(penalties[name] for name in names)], dim=1).detach().tolist()
    if not all(math.isfinite(value) for row in rows for value in row):
        raise Diverged(step)
    return tuple(ItemProgress(row[0], dict(zip(names, row[1:], strict=True))) for row in rows)
