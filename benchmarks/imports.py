"""Whole networks from elsewhere, imported and visualized: `make bench-imports`.

MONAI's DenseNet121, SEResNet50 and UNet in 3D, each written by both of torch's
exporters; the brain extraction network of the package deepbet, which is
trained; and a shipped network through its own ONNX file. MONAI's carry random
weights: they show that the way is open, not what a brain network learns.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import nibabel
import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from nibabel.processing import resample_from_to
from torch import nn

import neurofv
from benchmarks.facts import write
from models import ZOO, Bundle, read_bundle
from models.importing import Facts, import_onnx
from models.normalization import Normalization, Quantile, ZScore
from tests.server import RunningServer

DEEPBET = "deepbet==1.0.2"
SHIPPED = "lesion-shapes"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "imports.png"
# What deepbet does to an image: clipped at two quantiles, then to this mean and deviation.
DEEPBET_RULE = ZScore(voxels="all", clip=(0.005, 0.995), mean=0.449, deviation=0.226)
EDGE, VOXEL_MM = 64, 3.0
HEAD_EDGE = 96
BRIGHT = Quantile(quantile=0.995)
STEPS = 48
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


def _some_images(folder: Path, cohort: Path) -> Path | None:
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


def _facts(case: Case, exporter: str) -> Facts:
    facts = Facts(f"{case.name}-{exporter}", normalization=case.rule, tolerance=case.tolerance)
    if exporter != "shipped":
        return facts
    manifest = read_bundle(ZOO / SHIPPED / "1").manifest
    return replace(
        facts,
        classes=manifest.classes,
        intensity_range=manifest.input.intensity_range,
        normalization=manifest.input.normalization,
        space=manifest.input.space,
    )


def _difference(bundle: Bundle, network: nn.Module | None) -> float | None:
    """Return the largest difference from the network that was exported, on noise."""
    if network is None:
        return None
    low, high = bundle.manifest.input.intensity_range
    generator = torch.Generator().manual_seed(SEED)
    volume = low + (high - low) * torch.rand(1, 1, *bundle.manifest.input.shape, generator=generator)
    with torch.no_grad():
        return float((bundle.network()(volume) - network(volume)).abs().max())


def _import(
    case: Case, folder: Path, repository: Path, images: Path | None
) -> tuple[Bundle, list[dict[str, Any]]]:
    rows, bundle = [], None
    for exporter in case.exporters:
        scratch = folder / f"{case.name}-{exporter}"
        scratch.mkdir()
        began = time.perf_counter()
        file, network = case.write(scratch, exporter)
        exported = time.perf_counter()
        # The last one is visualized, so that its units are placed among real images where there are some.
        seen = images if exporter == case.exporters[-1] and case.choices.get("start") is None else None
        bundle = import_onnx(file, repository, _facts(case, exporter), case.reference, seen)
        imported = bundle.manifest.imported
        rows.append(
            {
                "network": case.words,
                "exporter": exporter,
                "opset": imported.opset,
                "layers": len(bundle.layers()),
                "parameters": sum(p.numel() for p in bundle.network().parameters()),
                "difference_from_onnxruntime": imported.agreement,
                "difference_from_original": _difference(bundle, network),
                "export_seconds": round(exported - began, 1),
                "import_seconds": round(time.perf_counter() - exported, 1),
            }
        )
    return bundle, rows


def _visualize(server: RunningServer, case: Case, bundle: Bundle, steps: int) -> neurofv.Visualization:
    choices = dict(case.choices)
    if choices.get("layer") == "":
        # A convolution halfway down, where units see some centimetres.
        convolutions = [layer.name for layer in bundle.layers() if layer.type == "Conv3d"]
        choices["layer"] = convolutions[len(convolutions) // 3]
    with neurofv.Client(server.target) as client:
        return client.visualize(bundle.manifest.name, steps=steps, seed=SEED, **choices)


def _judged(found: neurofv.Visualization, bundle: Bundle, seconds: float) -> dict[str, Any]:
    term = found.evaluation.terms[0]
    return {
        "network": bundle.manifest.name,
        "unit": term.unit,
        "activation": term.activation,
        "seconds": round(seconds, 1),
        "sha256": found.volume.sha256,
    }


def _same_as_native(server: RunningServer, found: neurofv.Visualization, steps: int) -> float:
    """Return the correlation with the picture of the same unit of the native bundle."""
    with neurofv.Client(server.target) as client:
        native = client.visualize(SHIPPED, steps=steps, seed=SEED, class_name="sphere")
    ours, theirs = (np.asarray(each.volume.nifti().dataobj).ravel() for each in (found, native))
    return float(np.corrcoef(ours, theirs)[0, 1])


def _draw(shown: list[tuple[Case, neurofv.Visualization]]) -> None:
    figure = Figure(figsize=(3 * len(shown), 3.6), facecolor="black")
    for index, (case, found) in enumerate(shown):
        values = np.asarray(nibabel.as_closest_canonical(found.volume.nifti()).dataobj)
        axes = figure.add_subplot(1, len(shown), index + 1)
        axes.imshow(values[:, :, values.shape[2] // 2].T, cmap="gray", origin="lower")
        title = f"{case.words.replace(', ', chr(10), 1)}\n{found.evaluation.terms[0].unit}"
        axes.set_title(title, color="white", fontsize=7)
        axes.axis("off")
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110, facecolor="black")


def _pictures(
    bundles: list[tuple[Case, Bundle]], repository: Path, steps: int
) -> tuple[list[dict[str, Any]], list[tuple[Case, neurofv.Visualization]]]:
    """Visualize a unit of each network by a real server; of the shipped one, beside its native bundle."""
    rows: list[dict[str, Any]] = []
    shown: list[tuple[Case, neurofv.Visualization]] = []
    server = RunningServer(repository)
    try:
        for case, bundle in bundles:
            began = time.perf_counter()
            found = _visualize(server, case, bundle, steps)
            rows.append(_judged(found, bundle, time.perf_counter() - began))
            if case.exporters == ("shipped",):
                rows[-1]["correlation_with_native"] = _same_as_native(server, found, steps)
            shown.append((case, found))
    finally:
        server.stop()
    return rows, shown


def main(
    raw: Annotated[Path, typer.Option(help="Folder of real heads, for deepbet.")] = Path("../shared/raw"),
    cohort: Annotated[Path, typer.Option(help="Real brains, a few of which place units.")] = Path(
        "../shared/cohort"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Of each visualization.")] = STEPS,
) -> None:
    """Import every network, visualize a unit of each, and write what was found."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, repository = Path(scratch), Path(scratch) / "models"
        repository.mkdir()
        shutil.copytree(ZOO / SHIPPED, repository / SHIPPED)
        images = _some_images(folder, cohort)
        rows: list[dict[str, Any]] = []
        bundles: list[tuple[Case, Bundle]] = []
        for case in cases(folder, raw):
            bundle, found = _import(case, folder, repository, images)
            rows += found
            bundles.append((case, bundle))
        pictures, shown = _pictures(bundles, repository, steps)
    _draw(shown)
    write("imports", {"steps": steps, "networks": rows, "visualizations": pictures})


if __name__ == "__main__":
    typer.run(main)
