"""Volumes that are optimized together: what they hold, and what a step does with it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from engine.batch import Audience, gathered, groups
from engine.events import ItemProgress, Result, Snapshot
from engine.itemwise import rows
from engine.network import Prepared, redirected
from engine.parameterization.base import Stage
from engine.regularizer.base import Look, Regularizer
from engine.spec import Spec
from engine.start import Scene
from engine.stopping import Stop, Watch
from engine.transform import Draw

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


class Run:
    """Volumes that are computed together, between steps."""

    def __init__(self, network: Prepared, spec: Spec, first: int) -> None:
        self.spec, self.first = spec, first
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
        self.audience = Audience(network, spec, self.latent.volume())
        # Volumes that are separate are parameters of their own, which share the memory of the free numbers.
        self.moved = [part for free in self.latent.free for part in rows(free.detach())]
        self.slots = [spec.optimizer.slots(part) for part in self.moved]
        self.watches = [Watch() for _ in spec.items]
        self.alive = torch.zeros(len(spec.items), dtype=torch.bool, device=device)
        self.saliency = torch.zeros(len(spec.items), *spec.grid.shape, device=device)
        self.steps_taken = 0
        # Whether activations were computed again on the way back, now or before a break.
        self.recomputed = not self.audience.keep
        # What a balanced penalty is multiplied by; 0 until it has a gradient.
        self.balance = {r.name: torch.zeros(len(spec.items), device=device) for r in spec.regularizers}

    @property
    def finished(self) -> bool:
        """Whether every volume is."""
        return all(watch.stopped for watch in self.watches)

    def standing(self) -> Iterator[ItemProgress]:
        """Yield how each volume stands."""
        for item, watch in zip(self.progress, self.watches, strict=True):
            yield replace(item, stopped=watch.stopped)

    def step(self, step: int) -> None:
        """Take one optimizer step on all volumes."""
        spec = self.spec
        volume = self.latent.volume()
        seen = self.latent.seen(volume, spec.transforms.copies, self.generators)
        # Leaves of their own: the objective's gradient on the volume is looked at before it goes on.
        pixels, shown = volume.detach().requires_grad_(), seen.detach().requires_grad_()
        draws = self._draws((step - 1) / max(spec.steps - 1, 1))
        running = [not watch.stopped for watch in self.watches]
        objective, found = self._objective(shown, draws, running)
        look = self._look(pixels, draws, found)
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
        # The optimizer goes through both as they lie in memory.
        slopes = [part for gradient in gradients for part in rows(gradient.contiguous())]
        spec.optimizer.step(self.moved, slopes, self.slots, spec.schedule.factor(step, spec.steps))
        for regularizer in spec.regularizers:
            regularizer.after_step(self.latent, spec.anatomy, spec.grid)
        self._tell(ItemProgress.of_batch(objective, {**penalties, **own}), running, step)

    def _tell(self, latest: tuple[ItemProgress, ...], running: Sequence[bool], step: int) -> None:
        """Take note of a step's numbers, and check them; what is finished stays as it was."""
        for now, runs in zip(latest, running, strict=True):
            if runs and not all(map(math.isfinite, (now.objective, *now.penalties.values()))):
                raise Diverged(step)
        before = self.progress or latest
        self.progress = tuple(
            now if runs else then for now, then, runs in zip(latest, before, running, strict=True)
        )

    @torch.no_grad()
    def look(self, step: int, only: int | None = None) -> None:
        """Look at the untransformed volumes, or at one: keep the best, finish those that are done."""
        volume = self.latent.volume()
        found = self.audience.read(volume, None, self.spec.layers)
        objective, look = self.audience.objectives(found), self._look(volume, None, found)
        score = objective - sum(self.latent.penalties().values())
        for regularizer, penalty in self._penalties(look):
            score = score - penalty * (self.balance[regularizer.name] if regularizer.balanced else 1)
        extras = self.latent.extras()
        for index, (item, watch) in enumerate(zip(self.spec.items, self.watches, strict=True)):
            if watch.stopped or only not in (None, index):
                continue
            if not volume[index].isfinite().all():
                raise Diverged(step)
            first = item.objective.terms[0]
            activation = float(first.unit.read(found[index][first.unit.layer]))
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
        for index, watch in enumerate(self.watches):
            if not watch.stopped:
                if not volume[index].isfinite().all():
                    raise Diverged(step)
                yield Snapshot(step, volume[index, 0].cpu().clone(), self.first + index)

    def results(self, otherwise: Stop) -> Iterator[Result]:
        """Yield the best look at each volume."""
        for index, watch in enumerate(self.watches):
            if watch.image is None:
                raise Diverged(self.steps_taken)
            stopped = watch.stopped or otherwise
            item = self.first + index
            yield Result(
                watch.step, watch.image, item, watch.extras, stopped, watch.redirected_steps, self.recomputed
            )

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

    def _look(
        self, image: Tensor, draws: Sequence[Draw] | None, found: Sequence[Mapping[str, Tensor]]
    ) -> Look:
        """Return what regularizers see of volumes, and of what the network says of them."""
        spec, regularizers = self.spec, self.spec.regularizers
        read = set().union(*(r.layers for r in regularizers))
        home: Mapping[str, Tensor] = {}
        if layers := set().union(*(r.layers for r in regularizers if r.reads_home)):
            start = self.scene.home.expand_as(image)
            copies = 1 if draws is None else spec.transforms.copies
            with torch.no_grad():
                home = gathered(self.audience.read(start.repeat_interleave(copies, 0), draws, layers), layers)
        return Look(
            image, self.scene.home, spec.grid, spec.anatomy, gathered(found, read), home, groups(spec)
        )

    def _objective(
        self, shown: Tensor, draws: Sequence[Draw] | None, running: Sequence[bool]
    ) -> tuple[Tensor, Sequence[Mapping[str, Tensor]]]:
        """Return each volume's objective, and what the network says if a regularizer reads that."""
        if self.audience.single:
            return self.audience.successive(shown, draws, running), ()
        found = self.audience.read(shown, draws, self.spec.layers)
        return self.audience.objectives(found), found

    def _upward(self, objective: Tensor, shown: Tensor, draws: Sequence[Draw] | None, step: int) -> Tensor:
        """Return the objective's gradient on what is shown; a dead unit's is redirected."""
        keep = any(regularizer.layers for regularizer in self.spec.regularizers)
        (gradient,) = torch.autograd.grad(objective.sum(), shown, retain_graph=keep)
        batch = len(objective)
        size = gradient.abs()
        running = [not watch.stopped for watch in self.watches]
        dead = (size.reshape(batch, -1).amax(1) == 0) & torch.tensor(running, device=size.device)
        if dead.any():
            with redirected(self.audience.reader(self.spec.layers)):
                again, _ = self._objective(shown, draws, running)
                (other,) = torch.autograd.grad(again.sum(), shown)
            rescued = dead.repeat_interleave(len(shown) // batch).reshape(-1, *[1] * (shown.ndim - 1))
            gradient = torch.where(rescued, other, gradient)
            size = gradient.abs()
            still = size.reshape(batch, -1).amax(1) == 0
            self.alive |= ~still
            for index, watch in enumerate(self.watches):
                watch.redirected_steps += bool(dead[index] & ~still[index])
                if step >= _DEAD_STEPS and not self.alive[index] and not watch.stopped:
                    self.look(step, index)
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
