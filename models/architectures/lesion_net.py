"""A small fully convolutional classifier of lesion shapes on 2 mm brains."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

MAX_BLOCKS = 12
MAX_WIDTH = 1024


POOLINGS = {"max": nn.MaxPool3d, "average": nn.AvgPool3d}


def conv_block(channels_in: int, channels_out: int, pooling: str | None) -> nn.Sequential:
    """Convolution, norm, activation and, if `pooling` names one, a halving of the grid."""
    steps: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv3d(channels_in, channels_out, kernel_size=3, padding=1)),
        ("norm", nn.BatchNorm3d(channels_out)),
        # Not in place: a target may be the output of the norm, which an in-place ReLU would overwrite.
        ("act", nn.ReLU()),
    ]
    if pooling is not None:
        steps.append(("pool", POOLINGS[pooling](2)))
    return nn.Sequential(OrderedDict(steps))


class LesionNet(nn.Module):
    """Blocks of 3x3x3 convolution, batch norm and ReLU; global max pooling; a linear classifier.

    The global maximum makes the answer independent of where the lesion lies and of the size of the volume, so
    that the network may be trained on crops and used on whole brains. Its layers are named
    ``blocks.<i>.conv``, ``blocks.<i>.norm``, ``blocks.<i>.act``, ``blocks.<i>.pool`` (first blocks only),
    ``pool`` and ``classifier``.

    Parameters
    ----------
    classes : int
        Number of logits, at least 2.
    widths : sequence of int
        Channels of each block.
    pooled_blocks : int
        How many of the first blocks end in pooling by 2.
    pooling : str
        "max" or "average". Averages pass gradients to every voxel alike, which spares visualizations the
        checkerboard that maxima leave.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(
        self,
        classes: int = 6,
        widths: Sequence[int] = (16, 32, 48, 48),
        pooled_blocks: int = 2,
        pooling: str = "max",
    ) -> None:
        super().__init__()
        if not all(isinstance(number, int) for number in (classes, pooled_blocks, *widths)):
            raise ValueError(
                f"classes, widths and pooled_blocks must be whole, got {classes}, {widths}, {pooled_blocks}"
            )
        if not 2 <= classes <= MAX_WIDTH:
            raise ValueError(f"classes must be from 2 to {MAX_WIDTH}, got {classes}")
        if not 1 <= len(widths) <= MAX_BLOCKS or not all(1 <= width <= MAX_WIDTH for width in widths):
            raise ValueError(f"widths must be 1 to {MAX_BLOCKS} numbers from 1 to {MAX_WIDTH}, got {widths}")
        if not 0 <= pooled_blocks <= len(widths):
            raise ValueError(f"pooled_blocks must be from 0 to {len(widths)}, got {pooled_blocks}")
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(sorted(POOLINGS))}, got {pooling!r}")
        inputs = (1, *widths[:-1])
        self.blocks = nn.Sequential(
            *(
                conv_block(a, b, pooling if i < pooled_blocks else None)
                for i, (a, b) in enumerate(zip(inputs, widths, strict=True))
            )
        )
        self.pool = nn.AdaptiveMaxPool3d(1)
        self.classifier = nn.Linear(widths[-1], classes)

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
