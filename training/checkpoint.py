"""Where an interrupted training goes on from."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


class CheckpointRefused(Exception):
    """A checkpoint cannot be used; the message names the file and the remedy."""


class Checkpoint:
    """The latest state of one training run, in one file.

    Parameters
    ----------
    path : Path
        The file; it is replaced as a whole, so that a crash leaves the one before.
    identity : mapping
        What decides the run (data, recipe, seed), in plain values: a file of another run is refused.
    every : int
        Steps between two states.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], every: int = 50) -> None:
        self.path = path
        self.every = every
        self._identity = json.dumps(identity, sort_keys=True, default=str)

    def due(self, step: int) -> bool:
        """Whether a state is to be kept after so many steps."""
        return step % self.every == 0

    def load(self) -> dict[str, Any] | None:
        """Return the state, or None if there is none yet.

        Raises
        ------
        CheckpointRefused
            If the file is damaged, or that of another run.
        """
        if not self.path.exists():
            return None
        remedy = f"remove {self.path} to begin anew"
        try:
            state: dict[str, Any] = torch.load(self.path, weights_only=True)
            identity = state.pop("identity")
        except (OSError, RuntimeError, EOFError, KeyError, AttributeError, pickle.UnpicklingError) as error:
            raise CheckpointRefused(f"checkpoint: {self.path.name} cannot be read; {remedy}") from error
        if identity != self._identity:
            raise CheckpointRefused(f"checkpoint: {self.path.name} is that of another run; {remedy}")
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep a state: tensors and plain values."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        torch.save({**state, "identity": self._identity}, partial)
        partial.replace(self.path)

    def remove(self) -> None:
        """Forget the run: it is finished."""
        self.path.unlink(missing_ok=True)
