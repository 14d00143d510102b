"""The two networks that Eitel et al. 2021 trained on UK Biobank to tell sex."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from models.architectures.ranges import MAX_WIDTH, check_probability, check_whole, check_wholes

MNI_1MM = (182, 218, 182)
MAX_VOXELS = 1024
HIDDEN = 100


@dataclass(frozen=True)
class Stage:
    """One 3x3x3 convolution: its channels and the kernel and stride of the pooling behind it, if any."""

    width: int
    pooling: tuple[int, int] | None = None

    def size(self, voxels: int) -> int:
        """Return the number of positions that remain of `voxels` along one axis; below 1 if none does."""
        voxels -= 2
        if self.pooling is None:
            return voxels
        kernel, stride = self.pooling
        return (voxels - kernel) // stride + 1


def _block(channels_in: int, stage: Stage, dropout: float) -> nn.Sequential:
    """Convolution without padding, activation and, where the stage pools, pooling and dropout."""
    steps: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv3d(channels_in, stage.width, kernel_size=3)),
        # Not in place: a target may be the output of the convolution, which would be overwritten.
        ("act", nn.ELU()),
    ]
    if stage.pooling is not None:
        kernel, stride = stage.pooling
        steps += [("pool", nn.MaxPool3d(kernel, stride)), ("dropout", nn.Dropout3d(dropout))]
    return nn.Sequential(OrderedDict(steps))


def _grid(stages: Sequence[Stage], shape: Sequence[int]) -> list[int]:
    """Return the grid behind the last stage, or refuse a shape of which nothing would be left."""
    sizes = list(shape)
    for stage in stages:
        sizes = [stage.size(voxels) for voxels in sizes]
    if min(sizes) < 1:
        smallest = next(n for n in range(1, MAX_VOXELS) if _remains(stages, n))
        raise ValueError(f"shape must have at least {smallest} voxels along each axis, got {tuple(shape)}")
    return sizes


def _remains(stages: Sequence[Stage], voxels: int) -> bool:
    for stage in stages:
        voxels = stage.size(voxels)
    return voxels >= 1


class UKBNet(nn.Module):
    """Convolutions and pooling without padding, ELU, dropout of channels, and two linear layers.

    After Eitel, Albrecht, Weygandt, Paul and Ritter, Scientific Reports 11 (2021), 24447,
    doi 10.1038/s41598-021-03785-9, and the networks published beside it. They read T1-weighted volumes of
    182x218x182 voxels, divided by their maximum, and give one logit for "male". `UKBNetA` and `UKBNetB` say
    how the two differ; this class holds what they share.

    What the public facts settle: kernels, widths, pooling, where activations and dropout lie, the number of
    parameters of A, 1,303,769, and initial weights as PyTorch draws them. What they leave open: the voxel
    size (182x218x182 is the grid of the 1 mm MNI152 template, which nobody states), and whether the networks
    that Eitel, Melkonyan and Ritter visualize (arXiv 2203.13120) are of this kind, which is likely.

    Layers are named ``blocks.<i>.conv``, ``blocks.<i>.act``, ``blocks.<i>.pool`` and ``blocks.<i>.dropout``
    (pooling blocks only), ``hidden``, ``hidden_act`` and ``classifier``.

    Parameters
    ----------
    classes : int
        Number of logits. The original has 1, which builds here too; a bundle names at least 2 classes.
    shape : sequence of int
        Voxels of the input along its three axes. The hidden layer has weights for this size only.
        Without padding A needs at least 98 voxels along each axis and B 80, so that B alone reads
        91x109x91 voxels of 2 mm.
    dropout : float
        Probability of dropping a channel behind each pooling in training.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or the volume too small for the pooling.
    """

    STAGES: ClassVar[tuple[Stage, ...]]

    def __init__(self, classes: int = 2, shape: Sequence[int] = MNI_1MM, dropout: float = 0.3) -> None:
        super().__init__()
        check_whole("classes", classes, 1, MAX_WIDTH)
        check_wholes("shape", shape, (3, 3), 1, MAX_VOXELS)
        check_probability("dropout", dropout)
        positions = math.prod(_grid(self.STAGES, shape))
        inputs = (1, *(stage.width for stage in self.STAGES[:-1]))
        self.blocks = nn.Sequential(
            *(_block(a, stage, dropout) for a, stage in zip(inputs, self.STAGES, strict=True))
        )
        self.hidden = nn.Linear(self.STAGES[-1].width * positions, HIDDEN)
        self.hidden_act = nn.ELU()
        self.classifier = nn.Linear(HIDDEN, classes)

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
        return self.classifier(self.hidden_act(self.hidden(torch.flatten(self.blocks(volume), 1))))


class UKBNetA(UKBNet):
    """Model A: five convolutions, pooled behind the first, the second and the last. See `UKBNet`."""

    STAGES = (Stage(8, (3, 3)), Stage(16, (3, 3)), Stage(32), Stage(64), Stage(64, (4, 2)))


class UKBNetB(UKBNet):
    """Model B: four wider convolutions, pooled behind the first, the second and the last. See `UKBNet`."""

    STAGES = (Stage(8, (3, 3)), Stage(32, (3, 3)), Stage(64), Stage(64, (4, 3)))
