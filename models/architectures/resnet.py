"""A small residual network in 3D."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from models.architectures.ranges import MAX_BLOCKS, MAX_WIDTH, check_flag, check_whole, check_wholes

MAX_STAGES = 6
MAX_STEM_KERNEL = 15
MAX_STEM_STRIDE = 4


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv3d:
    """Build a convolution that keeps the grid but for its stride; the norm behind it has the bias."""
    return nn.Conv3d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3x3 convolutions beside a shortcut; their sum is activated.

    The shortcut is the input itself, or a 1x1x1 convolution and norm where the grid or the number of channels
    changes (He et al. 2016, option B).

    Parameters
    ----------
    channels_in, channels_out : int
        Channels of the input and of the output.
    stride : int
        Of the first convolution and the shortcut.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, channels_out, 3, stride)
        self.norm1 = nn.BatchNorm3d(channels_out)
        # Two activations, neither in place: a layer that ran twice could not be told apart by its name.
        self.act1 = nn.ReLU()
        self.conv2 = _conv(channels_out, channels_out, 3)
        self.norm2 = nn.BatchNorm3d(channels_out)
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or channels_in != channels_out:
            steps: list[tuple[str, nn.Module]] = [
                ("conv", _conv(channels_in, channels_out, 1, stride)),
                ("norm", nn.BatchNorm3d(channels_out)),
            ]
            self.shortcut = nn.Sequential(OrderedDict(steps))
        self.act2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activated sum.

        Parameters
        ----------
        x : torch.Tensor
            Shape ``(batch, channels_in, X, Y, Z)``.

        Returns
        -------
        torch.Tensor
            Shape ``(batch, channels_out, X', Y', Z')``, each axis divided by the stride and rounded up.
        """
        residual = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        # Not `+=`: a target may be the output of the second norm, which would be overwritten.
        return self.act2(residual + (x if self.shortcut is None else self.shortcut(x)))


def _stem(width: int, kernel: int, stride: int, pool: bool) -> nn.Sequential:
    steps: list[tuple[str, nn.Module]] = [
        ("conv", _conv(1, width, kernel, stride)),
        ("norm", nn.BatchNorm3d(width)),
        ("act", nn.ReLU()),
    ]
    if pool:
        steps.append(("pool", nn.MaxPool3d(3, stride=2, padding=1)))
    return nn.Sequential(OrderedDict(steps))


class ResNet(nn.Module):
    """A stem, stages of basic blocks, global average pooling and a linear classifier.

    After He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, CVPR 2016,
    doi 10.1109/CVPR.2016.90, with 3D kernels and a quarter of the channels. Each stage but the first halves
    the grid. Any size of volume is read: padding keeps at least one position.

    Layers are named ``stem.conv``, ``stem.norm``, ``stem.act``, ``stem.pool`` (if asked for),
    ``stages.<s>.<b>.conv1``, ``.norm1``, ``.act1``, ``.conv2``, ``.norm2``, ``.shortcut.conv`` and
    ``.shortcut.norm`` (where the shape changes), ``.act2``, then ``pool`` and ``classifier``. The sum of a
    block is what enters its ``act2``.

    Parameters
    ----------
    classes : int
        Number of logits, at least 2.
    widths : sequence of int
        Channels of each stage. The stem has the first stage's.
    blocks : sequence of int
        Basic blocks of each stage, as many entries as `widths`; by default those of the paper's 18 layers.
    stem_kernel : int
        Edge of the stem's convolution in voxels, odd.
    stem_stride : int
        Its stride. 1 keeps fine patterns of small volumes, such as 45x54x45 at 4 mm.
    stem_pool : bool
        Whether the stem ends in max pooling of 3x3x3 voxels and stride 2.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(
        self,
        classes: int = 2,
        widths: Sequence[int] = (16, 32, 64, 128),
        blocks: Sequence[int] = (2, 2, 2, 2),
        stem_kernel: int = 7,
        stem_stride: int = 2,
        stem_pool: bool = True,
    ) -> None:
        super().__init__()
        check_whole("classes", classes, 2, MAX_WIDTH)
        check_wholes("widths", widths, (1, MAX_STAGES), 1, MAX_WIDTH)
        check_wholes("blocks", blocks, (len(widths), len(widths)), 1, MAX_BLOCKS)
        check_whole("stem_kernel", stem_kernel, 1, MAX_STEM_KERNEL)
        if stem_kernel % 2 == 0:
            raise ValueError(f"stem_kernel must be odd, so that padding keeps the grid, got {stem_kernel}")
        check_whole("stem_stride", stem_stride, 1, MAX_STEM_STRIDE)
        check_flag("stem_pool", stem_pool)
        self.stem = _stem(widths[0], stem_kernel, stem_stride, stem_pool)
        self.stages = nn.Sequential()
        channels = widths[0]
        for index, (width, depth) in enumerate(zip(widths, blocks, strict=True)):
            first = BasicBlock(channels, width, stride=1 if index == 0 else 2)
            self.stages.append(nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(depth - 1))))
            channels = width
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.classifier = nn.Linear(channels, classes)

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
