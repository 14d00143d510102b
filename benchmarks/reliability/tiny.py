"""A model so small that a job on it takes a fraction of a second."""

from pathlib import Path

import nibabel
import numpy as np
import torch

from models import ZOO, Prior, read_bundle, write_bundle
from models.architectures import build

NAME = "tiny"
_BASE = ZOO / "lesion-shapes" / "1"
_EDGE, _WIDTHS = 24, (4, 4)
_LEVELS = (0.0, 0.05, 0.5, 0.95, 1.0)


def image(edge: int = _EDGE) -> nibabel.Nifti1Image:
    """Return a ball that stands for a brain, on the model's grid and in its units."""
    axes = np.meshgrid(*3 * [np.linspace(-1.2, 1.2, edge)], indexing="ij")
    brain = np.clip(1.05 * (1 - sum(axis**2 for axis in axes)), 0, None).astype(np.float32)
    return nibabel.Nifti1Image(brain, np.array(read_bundle(_BASE).manifest.input.affine))


def make_zoo(root: Path, edge: int = _EDGE) -> Path:
    """Write a repository of one small model that has learned nothing.

    Parameters
    ----------
    root : Path
        The repository's folder; made here.
    edge : int
        Voxels along each axis.

    Returns
    -------
    Path
        The repository.
    """
    manifest = read_bundle(_BASE).manifest
    torch.manual_seed(0)
    network = build("lesion-net", classes=len(manifest.classes), widths=_WIDTHS).eval()
    reference = image(edge)
    brain = np.asarray(reference.dataobj)
    volume = torch.from_numpy(brain)
    prior = Prior.pack(
        magnitude=torch.fft.rfftn(volume, norm="ortho").abs(),
        deviation=volume / 10,
        mask=volume > 0,
        intensity_quantiles=torch.quantile(volume[volume > 0], torch.tensor(_LEVELS)),
        quantile_levels=_LEVELS,
        activations={},
        maxima={},
    )
    architecture = manifest.architecture.model_copy(
        update={"hyperparameters": {"classes": len(manifest.classes), "widths": list(_WIDTHS)}}
    )
    grid = manifest.input.model_copy(update={"shape": (edge, edge, edge)})
    small = manifest.model_copy(
        update={"name": NAME, "version": 1, "architecture": architecture, "input": grid, "files": {}}
    )
    write_bundle(root / NAME / "1", small, network, reference, prior, "# tiny\n", onnx=False)
    return root
