"""The simple fully convolutional network of Peng et al. 2021."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from models.architectures.ranges import MAX_BLOCKS, MAX_WIDTH, check_probability, check_whole, check_wholes


def _block(channels_in: int, channels_out: int, kernel: int, pooled: bool) -> nn.Sequential:
    """Convolution, norm, pooling by 2 if `pooled`, and activation: the paper pools before it activates."""
    steps: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv3d(channels_in, channels_out, kernel, padding=kernel // 2)),
        ("norm", nn.BatchNorm3d(channels_out)),
    ]
    if pooled:
        steps.append(("pool", nn.MaxPool3d(2)))
    # Not in place: a target may be the output of the pooling, which an in-place ReLU would overwrite.
    steps.append(("act", nn.ReLU()))
    return nn.Sequential(OrderedDict(steps))


class SFCN(nn.Module):
    """Blocks that halve the grid, a 1x1x1 block, average pooling, dropout and a linear classifier.

    After Peng, Gong, Beckmann, Vedaldi and Smith, Medical Image Analysis 68 (2021), 101871,
    doi 10.1016/j.media.2020.101871, which reads 160x192x160 voxels of 1 mm and gives 40 bins of age. Three
    things differ. Pooling averages the whole grid, where theirs averages windows of 5x6x5 voxels: the same at
    their size of input, and any other size works too. The classifier is a linear layer on the averages,
    their 1x1x1 convolution of a single position. The answer is logits, without their log-softmax.

    Its layers are named ``blocks.<i>.conv``, ``blocks.<i>.norm``, ``blocks.<i>.pool`` (first blocks only),
    ``blocks.<i>.act``, ``top.conv``, ``top.norm``, ``top.act``, ``pool``, ``dropout`` and ``classifier``.

    Parameters
    ----------
    classes : int
        Number of logits, at least 2.
    widths : sequence of int
        Channels of each 3x3x3 block.
    top_width : int
        Channels of the 1x1x1 block.
    pooled_blocks : int, optional
        How many of the first blocks end in pooling by 2; by default all, as in the paper. Each needs an input
        twice as wide: 5 suit volumes from 32 voxels on, and fewer keep small ones, such as 45x54x45 at 4 mm,
        from shrinking to a single position.
    dropout : float
        Probability of dropping an average in training.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(
        self,
        classes: int = 2,
        widths: Sequence[int] = (32, 64, 128, 256, 256),
        top_width: int = 64,
        pooled_blocks: int | None = None,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_whole("classes", classes, 2, MAX_WIDTH)
        check_wholes("widths", widths, (1, MAX_BLOCKS), 1, MAX_WIDTH)
        check_whole("top_width", top_width, 1, MAX_WIDTH)
        pooled = len(widths) if pooled_blocks is None else pooled_blocks
        check_whole("pooled_blocks", pooled, 0, len(widths))
        check_probability("dropout", dropout)
        inputs = (1, *widths[:-1])
        self.blocks = nn.Sequential(
            *(_block(a, b, 3, i < pooled) for i, (a, b) in enumerate(zip(inputs, widths, strict=True)))
        )
        self.top = _block(widths[-1], top_width, 1, pooled=False)
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(top_width, classes)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Score volumes.

        Parameters
        ----------
        volume : torch.Tensor
            Shape ``(batch, 1, X, Y, Z)``, in model units; each axis at least 2 to the pooled blocks.

        Returns
        -------
        torch.Tensor
            Logits, shape ``(batch, classes)``.
        """
        averages = torch.flatten(self.pool(self.top(self.blocks(volume))), 1)
        return self.classifier(self.dropout(averages))
