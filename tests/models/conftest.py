"""A small network, its manifest and the parts of a bundle, all made in milliseconds."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from torch import nn

from models import Bundle, Manifest, Prior, write_bundle
from models.architectures import build

SHAPE = (12, 14, 11)
AFFINE = np.array([[-2.0, 0, 0, 10], [0, 2, 0, -14], [0, 0, 2, -8], [0, 0, 0, 1]])
CLASSES = ("none", "sphere", "cube")
LEVELS = (0.0, 0.05, 0.5, 0.95, 1.0)


def interval(estimate: float = 0.9) -> dict[str, Any]:
    return {"estimate": estimate, "low": 0.8, "high": 1.0, "level": 0.95, "n": 20, "method": "bootstrap"}


def facts() -> dict[str, Any]:
    """What a manifest says, as plain values that tests may change."""
    return {
        "name": "tiny",
        "version": 1,
        "architecture": {"name": "lesion-net", "hyperparameters": {"classes": 3, "widths": [2, 3, 4]}},
        "input": {
            "shape": SHAPE,
            "voxel_size_mm": (2.0, 2.0, 2.0),
            "affine": AFFINE.tolist(),
            "orientation": "LAS",
            "space": "MNI152NLin6Asym",
            "normalization": {"kind": "quantile", "quantile": 0.995},
            "intensity_range": (0.0, 1.1),
        },
        "classes": CLASSES,
        "classifier_layer": "classifier",
        "training": {
            "data": "random numbers",
            "license": "CC0-1.0",
            "subjects_train": ["sub-01"],
            "subjects_test": ["sub-02"],
            "seed": 7,
            "software": {"torch": torch.__version__},
            "recipe": {"steps": 0},
        },
        "evaluation": {
            "accuracy": interval(),
            "baselines": {"total intensity": interval()},
            "chance": 1 / 3,
            "per_class": {name: interval() for name in CLASSES},
            "logit_quantiles": {name: {"0.05": 1.0, "0.5": 2.0, "0.95": 3.0} for name in CLASSES},
        },
        "license": "Apache-2.0",
        "intended_use": "tests",
        "not_for": "anything else",
    }


@pytest.fixture
def manifest_facts() -> dict[str, Any]:
    return facts()


@pytest.fixture
def manifest() -> Manifest:
    return Manifest.model_validate(facts())


@pytest.fixture(scope="session")
def network() -> nn.Module:
    torch.manual_seed(3)
    network = build("lesion-net", classes=3, widths=(2, 3, 4))
    # Passes in training mode, so that the running statistics are not the ones every network starts with.
    for _ in range(3):
        network(torch.rand(2, 1, *SHAPE))
    return network.eval()


@pytest.fixture(scope="session")
def brain() -> np.ndarray:
    """A smooth blob in model units, zero outside."""
    axes = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in SHAPE), indexing="ij")
    return np.clip(1.05 * (1 - sum(axis**2 for axis in axes)), 0, None).astype(np.float32)


@pytest.fixture(scope="session")
def reference(brain: np.ndarray) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image(brain, AFFINE)


@pytest.fixture(scope="session")
def prior(brain: np.ndarray) -> Prior:
    volume = torch.from_numpy(brain)
    quantiles = torch.quantile(volume[volume > 0], torch.tensor(LEVELS))
    return Prior.pack(
        magnitude=torch.fft.rfftn(volume, norm="ortho").abs(),
        deviation=volume / 10,
        mask=volume > 0,
        intensity_quantiles=quantiles,
        quantile_levels=LEVELS,
        activations={
            "blocks.0.conv": torch.arange(10.0).reshape(2, 5),
            "classifier": torch.arange(15.0).reshape(3, 5),
        },
        maxima={"blocks.0.conv": torch.arange(10.0).reshape(2, 5) + 1},
    )


Writer = Callable[..., Bundle]


@pytest.fixture(scope="session")
def write(network: nn.Module, reference: nibabel.Nifti1Image, prior: Prior) -> Writer:
    """Write the small bundle under a root, with any part replaced."""

    def write_tiny(root: Path, **changes: Any) -> Bundle:
        parts = {
            "manifest": Manifest.model_validate(facts()),
            "network": network,
            "reference": reference,
            "prior": prior,
            "card": "# tiny\n",
            **changes,
        }
        chosen = parts["manifest"]
        return write_bundle(root / chosen.name / str(chosen.version), **parts)

    return write_tiny


@pytest.fixture(scope="session")
def master(write: Writer, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The small bundle, written once; tests must not change it."""
    return write(tmp_path_factory.mktemp("master"))


@pytest.fixture
def root(master: Bundle, tmp_path: Path) -> Path:
    """A repository with a copy of the small bundle, which tests may spoil."""
    shutil.copytree(master.path, tmp_path / "zoo" / "tiny" / "1")
    return tmp_path / "zoo"
