"""The two networks for sex on UK Biobank scans of Eitel et al. 2021."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from models.architectures.limits import class_count, probability, whole_number

_HIDDEN = 100


class _UKB(nn.Module):
    """Convolutions without padding, ELU, two pools by 3 and one by 4, dropout, two linear layers.

    After Eitel, Albrecht, Weygandt, Paul and Ritter 2021 (Scientific Reports 11:24447), from the published
    layer sizes. They do not say where dropout stands: here before each linear layer. Layers are named
    ``blocks.<i>.conv``, ``.act`` and ``.pool`` (blocks that pool), ``hidden``, ``hidden_act`` and
    ``classifier``.
    """

    widths: tuple[int, ...]
    last_stride: int

    def __init__(
        self, classes: int = 2, shape: Sequence[int] = (182, 218, 182), dropout: float = 0.3
    ) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ValueError(f"shape must be three numbers of voxels, got {shape}")
        edges = [whole_number("shape", edge, 1, 1024) for edge in shape]
        inputs = (1, *self.widths)
        last = len(self.widths) - 1
        self.blocks = nn.Sequential(
            *(
                _block(a, b, self._pool(i, last))
                for i, (a, b) in enumerate(zip(inputs, self.widths, strict=False))
            )
        )
        flat = self.widths[-1]
        for edge in edges:
            flat *= self._remaining(edge, last)
        self.dropout = nn.Dropout3d(probability("dropout", dropout))
        self.hidden = nn.Linear(flat, _HIDDEN)
        self.hidden_act = nn.ELU()
        self.hidden_dropout = nn.Dropout(probability("dropout", dropout))
        self.classifier = nn.Linear(_HIDDEN, class_count(classes))

    def _pool(self, block: int, last: int) -> tuple[int, int] | None:
        """Kernel and stride of a block's pooling: the first two pool by 3, the last one by 4."""
        if block == last:
            return 4, self.last_stride
        return (3, 3) if block < 2 else None

    def _remaining(self, edge: int, last: int) -> int:
        left = edge
        for block in range(last + 1):
            left -= 2
            pool = self._pool(block, last)
            if pool is not None:
                left = (left - pool[0]) // pool[1] + 1
        if left < 1:
            raise ValueError(f"shape: {edge} voxels are too few for the convolutions and pools; use more")
        return left

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Score volumes.

        Parameters
        ----------
        volume : torch.Tensor
            Shape ``(batch, 1, *shape)``, in model units.

        Returns
        -------
        torch.Tensor
            Logits, shape ``(batch, classes)``.
        """
        found = torch.flatten(self.dropout(self.blocks(volume)), 1)
        return self.classifier(self.hidden_dropout(self.hidden_act(self.hidden(found))))


class UKBModelA(_UKB):
    """Model A: five convolutions; 1,303,769 parameters with one logit at 182 x 218 x 182 voxels.

    Parameters
    ----------
    classes : int
        Number of logits.
    shape : sequence of int
        Voxels of the volumes that it reads, which decide the width of the first linear layer.
    dropout : float
        Share of channels that is left out in training.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or the shape too small.
    """

    widths = (8, 16, 32, 64, 64)
    last_stride = 2


class UKBModelB(_UKB):
    """Model B: four convolutions.

    Parameters
    ----------
    classes, shape, dropout
        As in `UKBModelA`.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or the shape too small.
    """

    widths = (8, 32, 64, 64)
    last_stride = 3


def _block(channels_in: int, channels_out: int, pool: tuple[int, int] | None) -> nn.Sequential:
    steps: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv3d(channels_in, channels_out, kernel_size=3)),
        ("act", nn.ELU()),
    ]
    if pool is not None:
        steps.append(("pool", nn.MaxPool3d(pool[0], stride=pool[1])))
    return nn.Sequential(OrderedDict(steps))
