"""How a network of whole volumes is fitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

import torch
from pydantic import JsonValue
from torch import nn

from models.architectures import build
from training.fit import Phase, Report, Sampler, fit_phase

ARCHITECTURE = "volume-net"


@dataclass(frozen=True)
class Recipe:
    """Everything but the data that decides the weights.

    Attributes
    ----------
    hyperparameters : dict
        What the architecture receives.
    phases : tuple of Phase
        Run one after the other; without any the network stays untrained.
    weight_decay : float
        AdamW's, of weights only.
    seed : int
        Of the initial weights and all draws.
    notes : dict
        What else the manifest should say of the training.
    """

    hyperparameters: dict[str, JsonValue]
    phases: tuple[Phase, ...]
    weight_decay: float = 1e-2
    seed: int = 0
    notes: dict[str, JsonValue] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def scaled(self, steps: int) -> Recipe:
        """Return the recipe with its phases shortened or lengthened to about `steps` in all."""
        share = steps / self.steps
        phases = tuple(replace(phase, steps=round(phase.steps * share)) for phase in self.phases)
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

    def train(self, sampler: Sampler, announce: Callable[[Phase], Report]) -> nn.Module:
        """Build the network and fit it.

        Parameters
        ----------
        sampler : Sampler
            Source of training volumes.
        announce : callable
            Told of every phase as it begins; returns what is to be told of every step.

        Returns
        -------
        torch.nn.Module
            The trained network, in evaluation mode. The same recipe, data and number of threads give the same
            weights on one machine.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = build(ARCHITECTURE, **self.hyperparameters)
        first = 0
        for phase in self.phases:
            fit_phase(network, sampler, phase, first, self.weight_decay, announce(phase))
            first += phase.steps
        return network.eval()
