"""Fitting a network to crops, in phases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.checkpoint import Checkpoint

Report = Callable[[int, float, float], None]
"""Called after every step with the step's number, its loss and its share of right answers."""


class Sampler(Protocol):
    """Draws batches of training volumes; a batch is a function of its number alone."""

    def batch(self, step: int, size: int, edge: int) -> tuple[Tensor, Tensor]:
        """Return volumes `(size, 1, X, Y, Z)`, model units, and their classes `(size,)`."""
        ...


def balanced(rng: np.random.Generator, size: int, classes: int) -> np.ndarray:
    """Draw labels, int64, shape `(size,)`: no class runs short, and none is foreseeable."""
    # Whole rounds of all classes, and then a random few.
    rounds = [rng.permutation(classes) for _ in range(-(-size // classes))]
    return np.concatenate(rounds)[:size].astype(np.int64)


@dataclass(frozen=True)
class Phase:
    """One stretch of training with one kind of batch.

    Attributes
    ----------
    name : str
        For the progress bar and the recipe.
    steps, size, edge : int
        Number of batches, crops in each, and the crops' edge length in voxels.
    rate : float
        Peak learning rate of the one-cycle schedule (Smith and Topin 2017).
    frozen_norm : bool
        Keep the batch norms' statistics as they are, as whole volumes will meet them.
    budget : float
        L2 norm, in model units, of the worst-case perturbation that half of every batch is trained under; 0
        trains on clean crops only. It grows from 0 over the first half of the phase.
    """

    name: str
    steps: int
    size: int
    edge: int
    rate: float
    frozen_norm: bool = False
    budget: float = 0.0


def perturb(network: nn.Module, crops: Tensor, labels: Tensor, budget: float, steps: int = 2) -> Tensor:
    """Change crops within an L2 ball so that the network errs most.

    Projected gradient ascent (Madry et al. 2018). Training under such changes is what makes input gradients,
    and with them visualizations, show shapes (Tsipras et al. 2019; Engstrom et al. 2019).

    Parameters
    ----------
    network : torch.nn.Module
        Its parameters receive no gradient here.
    crops : torch.Tensor
        Shape `(batch, 1, X, Y, Z)`, model units.
    labels : torch.Tensor
        True classes, shape `(batch,)`.
    budget : float
        Radius of the ball, model units.
    steps : int
        Steps of ascent.

    Returns
    -------
    torch.Tensor
        Perturbed crops, detached.
    """
    delta = torch.zeros_like(crops)  # the norms' statistics would follow it in training mode: freeze them
    for _ in range(steps):
        delta.requires_grad_(True)
        loss = nn.functional.cross_entropy(network(crops + delta), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, delta)
        delta = delta.detach() + _ball(gradient) * (1.5 * budget / steps)
        delta = delta * (budget / _norm(delta).clamp_min(budget))
    return (crops + delta).detach()


def _norm(batch: Tensor) -> Tensor:
    return batch.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1, 1)


def _ball(batch: Tensor) -> Tensor:
    return batch / _norm(batch)


def _set_mode(network: nn.Module, frozen_norm: bool) -> None:
    network.train()
    if frozen_norm:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.eval()


def _optimizer(network: nn.Module, rate: float, decay: float) -> Optimizer:
    # Decay shrinks weights; on norms and biases it would only shift activations.
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate)


def fit(
    network: nn.Module,
    sampler: Sampler,
    phases: Sequence[Phase],
    decay: float,
    announce: Callable[[Phase], Report],
    checkpoint: Checkpoint | None = None,
) -> None:
    """Run phases one after the other; the network is changed in place.

    Parameters
    ----------
    network : torch.nn.Module
        Classifier of volumes.
    sampler : Sampler
        Source of batches.
    phases : sequence of Phase
        What to run.
    decay : float
        AdamW's weight decay, of weights only.
    announce : callable
        Told of every phase as it begins; returns what is to be told of every step.
    checkpoint : Checkpoint, optional
        Where the state is kept, and where a run that was interrupted goes on from: to the same weights, bit
        for bit.

    Raises
    ------
    CheckpointRefused
        If the checkpoint is that of another run, or damaged.
    """
    saved = checkpoint.load() if checkpoint else None
    done = 0 if saved is None else int(saved["step"])
    if saved is not None:
        network.load_state_dict(saved["network"])
    first = 0
    for phase in phases:
        last = first + phase.steps
        if done < last:
            _run(network, sampler, phase, first, decay, announce(phase), checkpoint, saved)
            saved = None
        first = last


def _run(
    network: nn.Module,
    sampler: Sampler,
    phase: Phase,
    first: int,
    decay: float,
    report: Report,
    checkpoint: Checkpoint | None,
    saved: dict[str, Any] | None,
) -> None:
    """Run one phase, whose first batch has the number `first`, from where `saved` left it."""
    optimizer = _optimizer(network, phase.rate, decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, phase.rate, total_steps=phase.steps, pct_start=0.25
    )
    done = first
    if saved is not None and int(saved["step"]) > first:
        done = int(saved["step"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
    _set_mode(network, phase.frozen_norm)
    for step in range(done, first + phase.steps):
        loss, right = _step(network, sampler, phase, step, step - first, optimizer)
        schedule.step()
        report(step, loss, right)
        if checkpoint and checkpoint.due(step + 1):
            states = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
            checkpoint.save({"step": step + 1, "network": network.state_dict(), **states})


def _step(
    network: nn.Module, sampler: Sampler, phase: Phase, number: int, within: int, optimizer: Optimizer
) -> tuple[float, float]:
    """Learn from one batch, the `within`-th of its phase; return its loss and share of right answers."""
    crops, labels = sampler.batch(number, phase.size, phase.edge)
    if phase.budget:
        budget = phase.budget * min(1.0, (within + 1) / (phase.steps / 2))
        half = phase.size // 2
        crops = torch.cat([perturb(network, crops[:half], labels[:half], budget), crops[half:]])
    logits = network(crops)
    loss = nn.functional.cross_entropy(logits, labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimizer.step()
    return float(loss.detach()), float((logits.argmax(1) == labels).float().mean())
