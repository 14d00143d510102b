"""A small network as an ONNX file, and images on its grid."""

from pathlib import Path

import nibabel
import numpy as np
import onnx
import pytest
import torch
from torch import nn

SHAPE = (16, 18, 14)
AFFINE = np.array([[-2.0, 0, 0, 16], [0, 2, 0, -18], [0, 0, 2, -14], [0, 0, 0, 1]])


class Small(nn.Module):
    """A classifier with what exporters write differently: pooling, flattening, a softmax at the end."""

    def __init__(self, softmax: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm3d(4)
        self.second = nn.Conv3d(4, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)
        self.softmax = softmax

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(volume)))
        x = torch.relu(self.second(x)).mean(dim=(2, 3, 4))
        x = self.head(x.reshape(volume.shape[0], 6))
        return x.softmax(1) if self.softmax else x


def brain(seed: int) -> np.ndarray:
    """An ellipsoid with folds, 0 around it."""
    places = np.indices(SHAPE) - (np.array(SHAPE).reshape(3, 1, 1, 1) - 1) / 2
    inside = ((places / (0.42 * np.array(SHAPE).reshape(3, 1, 1, 1))) ** 2).sum(0) < 1
    folds = np.random.default_rng(seed).gamma(8, 100, SHAPE)
    return np.where(inside, folds, 0).astype(np.float32)


def save_image(path: Path, seed: int = 0) -> Path:
    nibabel.save(nibabel.Nifti1Image(brain(seed), AFFINE), path)
    return path


@pytest.fixture(scope="session")
def network() -> nn.Module:
    torch.manual_seed(5)
    return Small().eval()


@pytest.fixture(scope="session")
def exported(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network with a free batch, opset 17."""
    path = tmp_path_factory.mktemp("exported") / "small.onnx"
    axes = {"volume": {0: "batch"}, "scores": {0: "batch"}}
    torch.onnx.export(
        network,
        (torch.zeros(1, 1, *SHAPE),),
        path,
        dynamo=False,
        opset_version=17,
        input_names=["volume"],
        output_names=["scores"],
        dynamic_axes=axes,
    )
    return path


@pytest.fixture
def model(exported: Path) -> onnx.ModelProto:
    """The same as a message that a test may change."""
    return onnx.load(exported)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_image(tmp_path_factory.mktemp("reference") / "mean.nii.gz")


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images in a BIDS-like tree, one of them on another grid, and a mask that is none of them."""
    root = tmp_path_factory.mktemp("cohort")
    for index in range(6):
        folder = root / f"sub-{index}" / "anat"
        folder.mkdir(parents=True)
        save_image(folder / f"sub-{index}_T1w.nii.gz", seed=index)
        save_image(folder / f"sub-{index}_mask.nii.gz", seed=0)
    finer = nibabel.Nifti1Image(
        np.kron(brain(7), np.ones((2, 2, 2), np.float32)), AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
    )
    nibabel.save(finer, root / "sub-5" / "anat" / "sub-5_T1w.nii.gz")
    return root
