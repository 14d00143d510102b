"""What the volume pays for: what every regularizer may do.

A new regularizer is one class in a module of this package: it has a `name` and
overrides one of the methods below (docs/how-to/add-to-the-method.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from engine.anatomy import Anatomy
from engine.fields import Checked
from engine.grid import Grid
from engine.objective import Term
from engine.parameterization.base import Latent


@dataclass(frozen=True, eq=False)
class Look:
    """What a regularizer sees of a step.

    Parameters
    ----------
    image : Tensor, (batch, 1, *shape)
        The untransformed volumes, model units.
    home : Tensor, broadcastable to `image`
        What they started from.
    grid : Grid
        Their grid.
    anatomy : Anatomy
        What is known of brains.
    activations : mapping of str to Tensor
        By layer, `(batch * copies, channels, *spatial)`, of the transformed volumes; the copies of an item
        lie next to each other.
    home_activations : mapping of str to Tensor
        The same of the start under the same transforms, for the layers of regularizers with `reads_home`.
    groups : tuple of int
        For each volume, the first one with the same objective: those of a group differ by their seed only.
    """

    image: Tensor
    home: Tensor
    grid: Grid
    anatomy: Anatomy
    activations: Mapping[str, Tensor]
    home_activations: Mapping[str, Tensor]
    groups: tuple[int, ...] = (0,)

    def per_item(self, values: Tensor) -> Tensor:
        """Return the mean over each item's copies, `(batch,)`, of `(batch * copies,)` values."""
        return values.reshape(len(self.image), -1).mean(1)


@dataclass(frozen=True)
class Regularizer(Checked):
    """Does nothing: the common base.

    Attributes
    ----------
    name : str
        Its name in requests.
    balanced : bool
        Whether its weight counts in gradients: at the first step on which the penalty has a gradient, that
        gradient is made `weight` times as long as the objective's (Hamblin et al. 2024).
    free_image_only : bool
        Whether it acts on latents that can become any image (`FreeImage`), and on no others.
    reads_home : bool
        Whether it compares activations with those of the start.
    couples : bool
        Whether it lets the volumes of a group depend on each other.
    itemwise : bool
        Whether a volume of a batch has the bits it has alone also where all are computed together on a CPU:
        see `engine.itemwise`. Without, they are computed one by one there.
    """

    name: ClassVar[str]
    balanced: ClassVar[bool] = False
    free_image_only: ClassVar[bool] = False
    reads_home: ClassVar[bool] = False
    couples: ClassVar[bool] = False
    itemwise: ClassVar[bool] = False

    @property
    def layers(self) -> frozenset[str]:
        """Layers whose activations it reads."""
        return frozenset()

    def penalty(self, look: Look) -> Tensor | None:
        """Return the penalty of each item, `(batch,)`, or None: weighted, unless the loop balances it."""
        return None

    def limit(self, readings: Tensor, term: Term) -> Tensor:
        """Return what counts of a term's activations, `(n,)`; by default all."""
        return readings

    def window(self, anatomy: Anatomy, grid: Grid) -> Tensor | None:
        """Return where the volume may change, `(*shape)` from 0 to 1, or None for everywhere."""
        return None

    def gradient(self, gradient: Tensor, grid: Grid) -> Tensor:
        """Return the objective's gradient on the volume, `(n, 1, *shape)`, as it is to be followed."""
        return gradient

    def after_step(self, latent: Latent, anatomy: Anatomy, grid: Grid) -> None:
        """Act on the latent after an optimizer step, in place."""
