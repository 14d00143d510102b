"""How a volume is held while it is optimized: what every parameterization offers.

A parameterization makes a `Latent`: free numbers and the way they become a
volume. The optimizer steps on the free numbers.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from engine.anatomy import Anatomy
from engine.fields import Checked
from engine.grid import Grid
from engine.start import Scene, Start


@dataclass(frozen=True, eq=False)
class Stage:
    """What a latent is made on.

    Parameters
    ----------
    grid : Grid
        The box that is optimized.
    start : Start
        What the volumes begin as.
    scene : Scene
        Their intensity range, start and surroundings.
    anatomy : Anatomy
        What is known of brains.
    generators : sequence of torch.Generator
        One for each item of the batch, on the CPU: an item's draws are its own.
    device : torch.device
        Where the free numbers live.
    """

    grid: Grid
    start: Start
    scene: Scene
    anatomy: Anatomy
    generators: Sequence[torch.Generator]
    device: torch.device

    def noise(self, *shape: int) -> Tensor:
        """Draw standard Gaussian numbers for every item, `(batch, *shape)`, on the device."""
        draws = [torch.randn(shape, generator=generator) for generator in self.generators]
        return torch.stack(draws).to(self.device)


class Latent(ABC):
    """Free numbers that stand for a batch of volumes.

    Attributes
    ----------
    free : list of Tensor, (batch, ...)
        The leaves that the optimizer moves. All that changes from step to step is in them: a run that is
        resumed makes the rest anew from the spec and the seeds.
    in_place : bool
        Whether the network sees the volume itself, so that a gradient on what it sees is one on the volume.
    """

    free: list[Tensor]
    in_place: ClassVar[bool] = True

    @abstractmethod
    def volume(self) -> Tensor:
        """Return the volumes, `(batch, 1, *shape)`, model units, differentiably."""

    def seen(self, volume: Tensor, copies: int, generators: Sequence[torch.Generator]) -> Tensor:
        """Return what the network is shown before the transforms.

        Parameters
        ----------
        volume : Tensor, (batch, 1, *shape)
            What `volume` has just returned.
        copies : int
            How many each item is shown as.
        generators : sequence of torch.Generator
            One for each item.

        Returns
        -------
        Tensor, (batch * copies, 1, *shape)
            The copies of an item lie next to each other.
        """
        # Not `repeat_interleave`, whose way back is a sum.
        return volume if copies == 1 else torch.stack([volume] * copies, 1).flatten(0, 1)

    def penalties(self) -> Mapping[str, Tensor]:
        """Return what the latent itself costs, `(batch,)` by name."""
        return {}

    def extras(self) -> Mapping[str, Tensor]:
        """Return more volumes that belong to the result, `(batch, *shape)` by name."""
        return {}


class FreeImage(Latent):
    """A latent whose image is unbounded and may be set to any other.

    Parameters
    ----------
    stage : Stage
        What it is made on.
    """

    def __init__(self, stage: Stage) -> None:
        self.grid = stage.grid
        self.scene = stage.scene

    @abstractmethod
    def unbounded(self) -> Tensor:
        """Return the image before the squashing, `(batch, 1, *shape)`; zeros are the start."""

    @abstractmethod
    def assign_(self, image: Tensor) -> None:
        """Become another unbounded image, `(batch, 1, *shape)`, in place."""

    def volume(self) -> Tensor:
        """Return the volumes, `(batch, 1, *shape)`, model units."""
        return self.scene.image(self.unbounded())


@dataclass(frozen=True)
class Parameterization(Checked):
    """How a volume is held: the common base."""

    name: ClassVar[str]
    # Whether the latent is a `FreeImage`, on which blur, decay and clipping can act after a step.
    free_image: ClassVar[bool] = False
    # Whether a volume of a batch has the bits it has alone also where all are computed together on a CPU:
    # see `engine.itemwise`. Without, they are computed one by one there.
    itemwise: ClassVar[bool] = False
    # Starts by name on which it has nothing to work with.
    refused_starts: ClassVar[tuple[str, ...]] = ()

    def latent(self, stage: Stage) -> Latent:
        """Return a batch of latents, one for each of the stage's generators, at its start.

        Raises
        ------
        MissingAnatomy
            It needs a part of the anatomy that was not given.
        """
        raise NotImplementedError
