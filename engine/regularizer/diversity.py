"""How alike the volumes are that share an objective."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from engine.fields import number, text
from engine.regularizer.base import Look, Regularizer

_TINY = 1e-8


@dataclass(frozen=True)
class Diversity(Regularizer):
    """Differences in texture between the volumes of one objective (Olah et al. 2017, "Diversity").

    A Gram matrix holds how strongly each pair of a layer's channels fires
    together, wherever that is: two volumes whose matrices point the same way
    have the same texture. A volume that is alone pays nothing.

    Parameters
    ----------
    layer : str
        Name of the layer.
    weight : float
        Its weight.
    """

    layer: str = text("", doc="Name of the layer.")
    weight: float = number(1.0, minimum=0, doc="Weight of the penalty.")
    name: ClassVar[str] = "diversity"
    couples: ClassVar[bool] = True

    @property
    def layers(self) -> frozenset[str]:
        """The layer."""
        return frozenset({self.layer})

    def penalty(self, look: Look) -> Tensor:
        """Return weight * the mean cosine with the Gram matrices of the others of a group, `(batch,)`.

        The matrix of a volume is the mean over its copies.
        """
        found = look.activations[self.layer]
        maps = found.reshape(*found.shape[:2], -1)
        batch = len(look.image)
        groups = torch.tensor(look.groups, device=maps.device)
        others = (groups[:, None] == groups).fill_diagonal_(False)
        grams = torch.einsum("ncp,ndp->ncd", maps, maps) / maps.shape[2]
        mean = grams.reshape(batch, -1, *grams.shape[1:]).mean(1)
        flat = functional.normalize(mean.flatten(1), dim=1, eps=_TINY)
        cosines = torch.where(others, flat @ flat.T, 0)
        return self.weight * cosines.sum(1) / others.sum(1).clamp(min=1)
