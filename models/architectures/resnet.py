"""A residual network in three dimensions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from models.architectures.limits import channel_widths, class_count, whole_number


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016, figure 5 left).

    Parameters
    ----------
    channels_in, channels_out : int
        Channels before and after.
    stride : int
        Of the first convolution and, where anything changes, of the shortcut's 1x1x1 convolution.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm3d(channels_out)
        # One module for each use: a hook on a layer then means one place of the network.
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv3d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm3d(channels_out)
        self.act2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                OrderedDict(
                    conv=nn.Conv3d(channels_in, channels_out, 1, stride=stride, bias=False),
                    norm=nn.BatchNorm3d(channels_out),
                )
            )

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Return ``(batch, channels_out, ...)`` of ``(batch, channels_in, ...)``."""
        found = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(volume)))))
        return self.act2(found + self.shortcut(volume))


class ResNet3d(nn.Module):
    """A stem, stages of basic blocks that halve the grid, a global average, a linear classifier.

    After He, Zhang, Ren and Sun 2016 (CVPR), with 3D convolutions; a stem of one 3x3x3 convolution, which
    spares small volumes the loss of three quarters of their grid. Layers are named ``stem.conv``,
    ``stem.norm``, ``stem.act``, ``stages.<i>.<j>.conv1`` and so on, ``pool`` and ``classifier``.

    Parameters
    ----------
    classes : int
        Number of logits.
    widths : sequence of int
        Channels of each stage; every stage but the first one halves the grid.
    blocks : int
        Basic blocks in each stage.
    stem_stride : int
        1 or 2.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(
        self,
        classes: int = 2,
        widths: Sequence[int] = (16, 32, 64, 128),
        blocks: int = 2,
        stem_stride: int = 2,
    ) -> None:
        super().__init__()
        channels = channel_widths(widths)
        whole_number("blocks", blocks, 1, 12)
        stride = whole_number("stem_stride", stem_stride, 1, 2)
        self.stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv3d(1, channels[0], 3, stride=stride, padding=1, bias=False),
                norm=nn.BatchNorm3d(channels[0]),
                act=nn.ReLU(),
            )
        )
        inputs = (channels[0], *channels)
        self.stages = nn.Sequential(
            *(
                _stage(a, b, blocks, 1 if i == 0 else 2)
                for i, (a, b) in enumerate(zip(inputs, channels, strict=False))
            )
        )
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.classifier = nn.Linear(channels[-1], class_count(classes))

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
        return self.classifier(torch.flatten(self.pool(self.stages(self.stem(volume))), 1))


def _stage(channels_in: int, channels_out: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [BasicBlock(channels_out, channels_out, 1) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(channels_in, channels_out, stride), *rest)
