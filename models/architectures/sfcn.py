"""The simple fully convolutional network of Peng et al. 2021, made for brain age and sex."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from models.architectures.limits import channel_widths, class_count, probability, whole_number


class SFCN(nn.Module):
    """Convolution, batch norm, max pooling, ReLU; a 1x1x1 convolution; an average; a linear classifier.

    After Peng, Gong, Beckmann, Vedaldi and Smith 2021 (Medical Image Analysis 68:101871), whose widths are
    the default. Two things differ, so that volumes of any size can be read: the last average is over all of
    the grid, not over 5x6x5 voxels, and the number of blocks that pool can be chosen. Layers are named
    ``blocks.<i>.conv``, ``.norm``, ``.pool`` (blocks that pool), ``.act``, ``head.conv``, ``head.norm``,
    ``head.act``, ``pool``, ``dropout`` and ``classifier``.

    Parameters
    ----------
    classes : int
        Number of logits.
    widths : sequence of int
        Channels of each block, the last one being that of the 1x1x1 convolution.
    pooled_blocks : int
        How many of the first blocks end in max pooling by 2.
    dropout : float
        Share of channels that is left out in training.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(
        self,
        classes: int = 2,
        widths: Sequence[int] = (32, 64, 128, 256, 256, 64),
        pooled_blocks: int = 5,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        *body, last = channel_widths(widths)
        whole_number("pooled_blocks", pooled_blocks, 0, len(body))
        inputs = (1, *body)
        self.blocks = nn.Sequential(
            *(_block(a, b, i < pooled_blocks) for i, (a, b) in enumerate(zip(inputs, body, strict=False)))
        )
        self.head = nn.Sequential(
            OrderedDict(
                conv=nn.Conv3d(inputs[-1], last, kernel_size=1), norm=nn.BatchNorm3d(last), act=nn.ReLU()
            )
        )
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.dropout = nn.Dropout(probability("dropout", dropout))
        self.classifier = nn.Linear(last, class_count(classes))

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Score volumes.

        Parameters
        ----------
        volume : torch.Tensor
            Shape ``(batch, 1, X, Y, Z)``, in model units; at least ``2**pooled_blocks`` voxels an axis.

        Returns
        -------
        torch.Tensor
            Logits, shape ``(batch, classes)``.
        """
        pooled = torch.flatten(self.pool(self.head(self.blocks(volume))), 1)
        return self.classifier(self.dropout(pooled))


def _block(channels_in: int, channels_out: int, pooled: bool) -> nn.Sequential:
    steps: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv3d(channels_in, channels_out, kernel_size=3, padding=1)),
        ("norm", nn.BatchNorm3d(channels_out)),
    ]
    if pooled:
        steps.append(("pool", nn.MaxPool3d(2)))
    # Not in place: a target may be the output before it.
    return nn.Sequential(OrderedDict([*steps, ("act", nn.ReLU())]))
