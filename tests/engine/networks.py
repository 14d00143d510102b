"""Small random networks of every rank."""

from hypothesis import strategies as st
from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
POOLS = (nn.MaxPool1d, nn.AvgPool2d, nn.AvgPool3d)


@st.composite
def networks(draw: st.DrawFn, ndim: int) -> nn.Sequential:
    """Two or three blocks, a global pooling and a classifier of three classes."""
    layers: list[nn.Module] = []
    inputs = 1
    for _ in range(draw(st.integers(1, 3))):
        width = draw(st.integers(2, 5))
        layers.append(CONVOLUTIONS[ndim - 1](inputs, width, 3, padding=1))
        if draw(st.booleans()):
            layers.append(NORMS[ndim - 1](width))
        layers.append(draw(st.sampled_from((nn.ReLU, nn.ELU, nn.Tanh)))())
        if draw(st.booleans()):
            layers.append(POOLS[ndim - 1](2))
        inputs = width
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[ndim - 1]
    layers += [pool(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(inputs, 3)]
    return nn.Sequential(*layers)
