"""How the free numbers are driven."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from engine.fields import Checked, number


@dataclass(frozen=True)
class Adam(Checked):
    """Adam (Kingma, Ba 2015).

    Parameters
    ----------
    learning_rate : float
        Step size.
    """

    learning_rate: float = number(0.02, above=0, maximum=10, doc="Step size.")
    name: ClassVar[str] = "adam"

    def over(self, free: Tensor) -> torch.optim.Optimizer:
        """Return the optimizer of one tensor."""
        return torch.optim.Adam([free], lr=self.learning_rate)


Optimizer = Adam
OPTIMIZERS = {Adam.name: Adam}
