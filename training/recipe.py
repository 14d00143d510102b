"""How a network is fitted: phases, seed, and what else decides the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

import torch
from pydantic import JsonValue
from torch import nn

from models.architectures import build
from training.checkpoint import Checkpoint
from training.fit import Phase, Report, Sampler, fit
from training.task import Task


@dataclass(frozen=True)
class Recipe:
    """Everything but task and data that decides the weights.

    Attributes
    ----------
    phases : tuple of Phase
        Run one after the other; none leaves the weights as they were drawn.
    weight_decay : float
        AdamW's, of weights only.
    seed : int
        Of the initial weights and all draws.
    notes : dict
        What else the manifest should say of the training: of the images, labels and controls.
    """

    phases: tuple[Phase, ...]
    weight_decay: float = 1e-2
    seed: int = 0
    notes: dict[str, JsonValue] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def scaled(self, steps: int) -> Recipe:
        """Return the recipe with its phases shortened or lengthened to `steps` in all, at least one each.

        0 steps, as a command line that leaves them open gives, change nothing.
        """
        if not self.phases or not steps:
            return self
        share = steps / self.steps
        phases = tuple(replace(phase, steps=max(1, round(phase.steps * share))) for phase in self.phases)
        return replace(self, phases=phases)

    def facts(self) -> dict[str, JsonValue]:
        """Describe the recipe in plain values, for the manifest."""
        return {
            "optimizer": "AdamW, one-cycle learning rate",
            "weight_decay": self.weight_decay,
            "phases": [asdict(phase) for phase in self.phases],
            "threads": torch.get_num_threads(),
            **self.notes,
        }

    def train(
        self,
        task: Task,
        sampler: Sampler,
        announce: Callable[[Phase], Report],
        checkpoint: Checkpoint | None = None,
    ) -> nn.Module:
        """Build the task's network and fit it.

        Parameters
        ----------
        task : Task
            Says which architecture.
        sampler : Sampler
            Source of training volumes.
        announce : callable
            Told of every phase as it begins; returns what is to be told of every step.
        checkpoint : Checkpoint, optional
            Where the state is kept, and where an interrupted run goes on from.

        Returns
        -------
        torch.nn.Module
            The trained network, in evaluation mode. The same recipe, data and number of threads give the same
            weights on one machine, interrupted or not.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = build(task.architecture, **task.hyperparameters)
        fit(network, sampler, self.phases, self.weight_decay, announce, checkpoint)
        return network.eval()
