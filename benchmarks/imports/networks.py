"""Whole networks from elsewhere, written as ONNX.

MONAI's DenseNet121, SEResNet50 and UNet in 3D, each written by both of torch's
exporters; the brain extraction network of the package deepbet, which is
trained; and a shipped network through its own ONNX file. MONAI's carry random
weights: they show that the way is open, not what a brain network learns.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from nibabel.processing import resample_from_to
from torch import nn

from models import ZOO, read_bundle
from models.normalization import Normalization, Quantile, ZScore

DEEPBET = "deepbet==1.0.2"
SHIPPED = "lesion-shapes"
# What deepbet does to an image: clipped at two quantiles, then to this mean and deviation.
DEEPBET_RULE = ZScore(voxels="all", clip=(0.005, 0.995), mean=0.449, deviation=0.226)
EDGE, VOXEL_MM = 64, 3.0
HEAD_EDGE = 96
BRIGHT = Quantile(quantile=0.995)
BRAINS = 8
SEED = 0


Written = tuple[Path, nn.Module | None]


@dataclass(frozen=True)
class Case:
    """A network, how it is written as ONNX, and the unit that is drawn.

    Attributes
    ----------
    name : str
        Of the bundle.
    words : str
        For people.
    write : Callable
        Writes the ONNX file into a folder, by an exporter's name; returns it and the network that it was
        written from, if that is at hand.
    exporters : tuple of str
        ``"torchscript"``, ``"dynamo"`` or ``"shipped"``.
    reference : Path
        An image on its grid.
    choices : dict
        The unit and how it is visualized.
    rule : Normalization
        To model units.
    tolerance : float
        Difference from ONNX Runtime that is accepted.
    """

    name: str
    words: str
    write: Callable[[Path, str], Written]
    exporters: tuple[str, ...]
    reference: Path
    choices: dict[str, Any]
    rule: Normalization = BRIGHT
    tolerance: float = 1e-4


def _export(network: nn.Module, shape: tuple[int, ...], folder: Path, exporter: str) -> Written:
    file = folder / f"network-{exporter}.onnx"
    volume = torch.zeros(1, 1, *shape)
    names: dict[str, Any] = {"input_names": ["volume"], "output_names": ["output"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            # Weights go into a second file, as this exporter writes them, so that these are read too.
            batch = torch.export.Dim("batch", min=1, max=64)
            torch.onnx.export(
                network, (volume,), file, dynamo=True, verbose=False, external_data=True,
                dynamic_shapes=({0: batch},), **names,
            )  # fmt: skip
        else:
            axes = {"volume": {0: "batch"}, "output": {0: "batch"}}
            torch.onnx.export(
                network, (volume,), file, dynamo=False, opset_version=17, dynamic_axes=axes, **names
            )
    return file, network


def _monai(make: Callable[[], nn.Module]) -> Callable[[Path, str], Written]:
    def write_network(folder: Path, exporter: str) -> Written:
        torch.manual_seed(SEED)
        return _export(make().eval(), (EDGE, EDGE, EDGE), folder, exporter)

    return write_network


def _deepbet(folder: Path, exporter: str) -> Written:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, DEEPBET]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(next(folder.glob("deepbet-*.whl"))) as wheel:
        weights = Path(wheel.extract("data/models/bbox_model.pt", folder))
    network = torch.jit.load(weights, map_location="cpu").eval()
    return _export(network, (HEAD_EDGE,) * 3, folder, exporter)


def _shipped(_folder: Path, _exporter: str) -> Written:
    bundle = read_bundle(ZOO / SHIPPED / "1")
    return bundle.path / "model.onnx", bundle.network()


def _reference(folder: Path) -> Path:
    """Write the shipped mean brain on a small grid, in intensities of a scanner's size."""
    brain = read_bundle(ZOO / SHIPPED / "1").reference()
    middle = brain.affine @ np.array([*(np.array(brain.shape) / 2), 1])
    affine = np.diag([-VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = middle[:3] - affine[:3, :3] @ np.full(3, EDGE / 2)
    small = resample_from_to(brain, ((EDGE,) * 3, affine), order=1)
    path = folder / "reference.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.asarray(small.dataobj, np.float32) * 1000, affine), path)
    return path


def _head(folder: Path, raw: Path) -> Path:
    """Write a real head as deepbet reads it: along the axes of the world, on a cube of voxels."""
    head = nibabel.as_closest_canonical(nibabel.load(sorted(raw.glob("*_T1w.nii.gz"))[0]))
    scale = np.array(head.shape) / HEAD_EDGE
    affine = head.affine @ np.diag([*scale, 1.0])
    affine[:3, 3] += head.affine[:3, :3] @ ((scale - 1) / 2)
    cube = resample_from_to(head, ((HEAD_EDGE,) * 3, affine), order=0)
    path = folder / "head.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.asarray(cube.dataobj, np.float32).clip(0), affine), path)
    return path


def some_images(folder: Path, cohort: Path) -> Path | None:
    """Name a few brains of a cohort in a folder of their own; None where there is no cohort."""
    found = sorted(cohort.rglob("*_desc-affinebrain_T1w.nii.gz"))[:BRAINS]
    if not found:
        return None
    chosen = folder / "brains"
    chosen.mkdir()
    for file in found:
        (chosen / file.name).symlink_to(file.resolve())
    return chosen


def cases(folder: Path, raw: Path) -> list[Case]:
    """Return the networks; deepbet's only where there is a head to show it."""
    from monai.networks.nets import DenseNet121, SEResNet50, UNet

    small = _reference(folder)
    both = ("torchscript", "dynamo")
    unet = {"channels": (8, 16, 32, 64), "strides": (2, 2, 2), "num_res_units": 2}
    three: dict[str, Any] = {"spatial_dims": 3, "in_channels": 1}
    densenet = _monai(lambda: DenseNet121(out_channels=2, **three))
    seresnet = _monai(lambda: SEResNet50(num_classes=2, **three))
    u_net = _monai(lambda: UNet(out_channels=2, **unet, **three))
    found = [
        Case("densenet121", "MONAI DenseNet121, random weights", densenet, both, small, {"class_name": "1"}),
        Case("seresnet50", "MONAI SEResNet50, random weights", seresnet, both, small, {"class_name": "1"}),
        Case("unet", "MONAI UNet, random weights", u_net, both, small, {"layer": "", "channel": 1}),
        Case("lesion-shapes-again", f"{SHIPPED}, trained, through its ONNX file", _shipped, ("shipped",),
             ZOO / SHIPPED / "1" / "reference.nii.gz", {"class_name": "sphere"}),
    ]  # fmt: skip
    if raw.is_dir():
        head = _head(folder, raw)
        choices = {"layer": "", "channel": 1, "start": "subject", "subject": head, "canvas_mm": 0}
        found.append(
            Case(
                "deepbet",
                "deepbet's brain extraction, trained, on a real head",
                _deepbet,
                ("torchscript",),
                head,
                choices,
                DEEPBET_RULE,
                5e-3,
            )
        )
    return found
