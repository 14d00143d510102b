"""A batch of volumes: which of them are computed together, and what the network says of each."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from engine.itemwise import parts, separate
from engine.network import Prepared, Reader
from engine.spec import Spec
from engine.transform import Draw, apply

# A step's small operations cost a CPU their start, and are shared by so many voxels. Volumes that are larger
# cost what their voxels do, however they are computed, and together would only take memory.
_JOINT_VOXELS = 1 << 21


def joint(spec: Spec, device: torch.device) -> list[tuple[int, Spec]]:
    """Return the runs that a batch is computed as, each with the number of its first volume.

    On a GPU that is one. On a CPU as many volumes are computed together as are
    worth it, and where a part of the method does not keep them apart to the bit,
    each is a run of its own. No volume's bits depend on it.
    """
    if not separate(device) or any(regularizer.couples for regularizer in spec.regularizers):
        return [(0, spec)]
    size = 1
    if spec.parameterization.itemwise and all(r.itemwise for r in spec.regularizers):
        size = max(1, _JOINT_VOXELS // (math.prod(spec.grid.shape) * spec.transforms.copies))
    found = []
    for number in range(0, len(spec.items), size):
        first, *rest = spec.items[number : number + size]
        part = replace(spec, objective=first.objective, seed=first.seed, batch=tuple(rest))
        found.append((number, part))
    return found


def groups(spec: Spec) -> tuple[int, ...]:
    """Return, for each volume, the first one that has the same objective."""
    objectives = [item.objective for item in spec.items]
    return tuple(objectives.index(objective) for objective in objectives)


def gathered(found: Sequence[Mapping[str, Tensor]], layers: Iterable[str]) -> dict[str, Tensor]:
    """Put together what some layers say of each volume."""
    return {layer: torch.cat([own[layer] for own in found]) for layer in layers}


class Audience:
    """The network before a batch of volumes.

    Parameters
    ----------
    network : Prepared
        The network.
    spec : Spec
        What is asked of it.
    like : Tensor, (batch, 1, *shape)
        Volumes.

    Attributes
    ----------
    single : bool
        Whether it is shown one volume after the other, and never more.
    keep : bool
        Whether its activations can be kept for the way back.
    """

    def __init__(self, network: Prepared, spec: Spec, like: Tensor) -> None:
        self.network, self.spec, self.count = network, spec, len(spec.items)
        # A regularizer that reads layers looks at all volumes' at once.
        self.single = separate(like.device) and not any(r.layers for r in spec.regularizers)
        self.keep = True
        # Held here: what the network keeps may make room for others meanwhile.
        self._readers: dict[frozenset[str], Reader] = {}
        if spec.memory is not None:
            held = like[:1] if self.single else like
            self.keep = self.reader(spec.layers).fits(held.detach(), spec.memory // spec.transforms.copies)

    def reader(self, layers: set[str]) -> Reader:
        """Return the network's reader of some layers."""
        spec, key = self.spec, frozenset(layers)
        if key not in self._readers:
            behind = spec.objective.behind_nonlinearities
            self._readers[key] = self.network.reader(layers, behind, spec.precision)
        return self._readers[key]

    def read(
        self, shown: Tensor, draws: Sequence[Draw] | None, layers: set[str]
    ) -> list[Mapping[str, Tensor]]:
        """Return, for each volume, what the layers say of its copies, transformed, `(copies, ...)`."""
        reader = self.reader(layers)
        found = [reader(part, self.keep) for part in parts(self._moved(shown, draws), self.count)]
        if len(found) == self.count:
            return found
        (whole,) = found
        return [
            {layer: answer.chunk(self.count)[index] for layer, answer in whole.items()}
            for index in range(self.count)
        ]

    def objectives(self, found: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """Return each volume's objective, `(batch,)`, from what the layers say."""
        return torch.stack([self.objective(index, own) for index, own in enumerate(found)])

    def objective(self, index: int, own: Mapping[str, Tensor]) -> Tensor:
        """Return one volume's objective, the mean over its copies."""
        item = self.spec.items[index]
        readings = item.objective.read(own)
        for regularizer in self.spec.regularizers:
            pairs = zip(item.objective.terms, readings, strict=True)
            readings = torch.stack([regularizer.limit(reading, term) for term, reading in pairs])
        return item.objective.combine(readings).mean()

    def successive(self, shown: Tensor, draws: Sequence[Draw] | None, wanted: Sequence[bool]) -> Tensor:
        """Return the objectives, `(batch,)`, of one volume after the other; 0 where they are not wanted."""
        found: Tensor = _Successive.apply(self._moved(shown, draws), self, wanted)
        return found

    def _moved(self, shown: Tensor, draws: Sequence[Draw] | None) -> Tensor:
        return shown if draws is None else apply(shown, draws, self.spec.grid, self.spec.intensity_range)


class _Successive(torch.autograd.Function):
    """Objectives of volumes, whose gradients are made on the way.

    So the activations of no more than one volume are held, and are still in the cache on the way back.
    """

    @staticmethod
    def forward(context: Any, moved: Tensor, audience: Audience, wanted: Sequence[bool]) -> Tensor:
        reader = audience.reader(audience.spec.layers)
        values, slopes = moved.new_zeros(len(wanted)), torch.zeros_like(moved)
        goals = slopes.chunk(len(wanted))
        for index, part in enumerate(parts(moved.detach(), len(wanted))):
            if wanted[index]:
                with torch.enable_grad():
                    own = part.detach().requires_grad_()
                    value = audience.objective(index, reader(own, audience.keep))
                values[index] = value.detach()
                goals[index].copy_(torch.autograd.grad(value, own)[0])
        context.save_for_backward(slopes)
        return values

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        ((found,), (weights,)) = context.saved_tensors, slopes
        weights = weights.repeat_interleave(len(found) // len(weights))
        return found * weights.reshape(-1, *(1,) * (found.ndim - 1)), None, None
