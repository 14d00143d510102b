"""A small classifier of whole volumes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from models.architectures.lesion_net import MAX_BLOCKS, MAX_WIDTH, conv_block

MAX_POSITIONS = 4096


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
        places = (1, 1, 1) if positions is None else tuple(positions)
        if not all(isinstance(number, int) for number in (classes, pooled_blocks, *widths, *places)):
            raise ValueError("classes, widths, pooled_blocks and positions must be whole numbers")
        if not 2 <= classes <= MAX_WIDTH:
            raise ValueError(f"classes must be from 2 to {MAX_WIDTH}, got {classes}")
        if not 1 <= len(widths) <= MAX_BLOCKS or not all(1 <= width <= MAX_WIDTH for width in widths):
            raise ValueError(f"widths must be 1 to {MAX_BLOCKS} numbers from 1 to {MAX_WIDTH}, got {widths}")
        if not 0 <= pooled_blocks <= len(widths):
            raise ValueError(f"pooled_blocks must be from 0 to {len(widths)}, got {pooled_blocks}")
        count = places[0] * places[1] * places[2] if len(places) == 3 and min(places) > 0 else 0
        if not 1 <= count <= MAX_POSITIONS:
            raise ValueError(
                f"positions must be three numbers above 0, at most {MAX_POSITIONS} places, got {positions}"
            )
        inputs = (1, *widths[:-1])
        self.blocks = nn.Sequential(
            *(
                conv_block(a, b, "average" if i < pooled_blocks else None)
                for i, (a, b) in enumerate(zip(inputs, widths, strict=True))
            )
        )
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
