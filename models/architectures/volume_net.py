"""A small classifier of whole volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from models.architectures.lesion_net import conv_blocks
from models.architectures.ranges import MAX_BLOCKS, MAX_WIDTH, check_whole, check_wholes

MAX_POSITIONS = 64
"""Along one axis."""


class VolumeNet(nn.Module):
    """Blocks of 3x3x3 convolution, batch norm and ReLU; average pooling; a linear classifier.

    Its layers are named ``blocks.<i>.conv``, ``blocks.<i>.norm``, ``blocks.<i>.act``, ``blocks.<i>.pool``
    (first blocks only), ``pool`` and ``classifier``.

    Parameters
    ----------
    classes : int
        Number of logits, at least 2.
    widths : sequence of int
        Channels of each block.
    pooled_blocks : int
        How many of the first blocks end in average pooling by 2.
    positions : sequence of int or None
        None averages what the blocks leave over the whole volume. Three numbers say how many positions the
        blocks leave along each axis; the classifier then weighs each of them by itself, so that it knows
        where something is, and the network takes volumes of one shape only.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(
        self,
        classes: int = 2,
        widths: Sequence[int] = (8, 16, 32, 32),
        pooled_blocks: int = 3,
        positions: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_whole("classes", classes, 2, MAX_WIDTH)
        check_wholes("widths", widths, (1, MAX_BLOCKS), 1, MAX_WIDTH)
        check_whole("pooled_blocks", pooled_blocks, 0, len(widths))
        if positions is not None:
            check_wholes("positions", positions, (3, 3), 1, MAX_POSITIONS)
        count = math.prod(positions or (1,))
        self.blocks = conv_blocks(widths, pooled_blocks, "average")
        self.pool = nn.AdaptiveAvgPool3d(1) if positions is None else nn.Identity()
        self.classifier = nn.Linear(widths[-1] * count, classes)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Score volumes.

        Parameters
        ----------
        volume : torch.Tensor
            Shape ``(batch, 1, X, Y, Z)``, in model units.

        Returns
        -------
        torch.Tensor
            Logits, shape ``(batch, classes)``.
        """
        return self.classifier(torch.flatten(self.pool(self.blocks(volume)), 1))
