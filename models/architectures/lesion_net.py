"""A small fully convolutional classifier of lesion shapes on 2 mm brains."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from models.architectures.ranges import MAX_BLOCKS, MAX_WIDTH, check_choice, check_whole, check_wholes

POOLINGS = {"max": nn.MaxPool3d, "average": nn.AvgPool3d}


def _block(channels_in: int, channels_out: int, pooling: str | None) -> nn.Sequential:
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


def conv_blocks(widths: Sequence[int], pooled_blocks: int, pooling: str) -> nn.Sequential:
    """Blocks one after the other, from one channel to the last of `widths`; the first end in pooling."""
    inputs = (1, *widths[:-1])
    return nn.Sequential(
        *(
            _block(a, b, pooling if i < pooled_blocks else None)
            for i, (a, b) in enumerate(zip(inputs, widths, strict=True))
        )
    )


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
        check_whole("classes", classes, 2, MAX_WIDTH)
        check_wholes("widths", widths, (1, MAX_BLOCKS), 1, MAX_WIDTH)
        check_whole("pooled_blocks", pooled_blocks, 0, len(widths))
        check_choice("pooling", pooling, tuple(POOLINGS))
        self.blocks = conv_blocks(widths, pooled_blocks, pooling)
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
