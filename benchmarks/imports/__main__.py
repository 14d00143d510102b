"""Whole networks from elsewhere, imported and visualized: `make bench-imports`."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import nibabel
import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from torch import nn

import neurofv
from benchmarks.facts import README, into_readme, write
from benchmarks.imports.networks import SEED, SHIPPED, Case, cases, some_images
from models import ZOO, Bundle, read_bundle
from models.importing import Facts, import_onnx
from tests.server import RunningServer

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "imports.png"
STEPS = 48


def _facts(case: Case, exporter: str) -> Facts:
    facts = Facts(f"{case.name}-{exporter}", normalization=case.rule, tolerance=case.tolerance)
    if exporter != "shipped":
        return replace(facts, classes=("0", "1")) if "class_name" in case.choices else facts
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


def _draw(shown: list[tuple[Case, neurofv.Visualization]]) -> None:
    figure = Figure(figsize=(3 * len(shown), 3.6), facecolor="black")
    for index, (case, found) in enumerate(shown):
        values = np.asarray(nibabel.as_closest_canonical(found.volume.nifti()).dataobj)
        axes = figure.add_subplot(1, len(shown), index + 1)
        axes.imshow(values[:, :, values.shape[2] // 2].T, cmap="gray", origin="lower")
        title = f"{case.words.replace(', ', chr(10), 1)}\n{found.evaluation.terms[0].unit}"
        axes.set_title(title, color="white", fontsize=7)
        axes.axis("off")
    figure.subplots_adjust(0.01, 0.02, 0.99, 0.8, 0.04)
    figure.savefig(PICTURE, dpi=110, facecolor="black")


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "<!-- Written by `make bench-imports`: largest differences; in parts of outputs above 1. -->",
        "| network | exporter | layers | from ONNX Runtime | from the original |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        original = row["difference_from_original"]
        lines.append(
            f"| {row['network']} | {row['exporter']} | {row['layers']} "
            f"| {row['difference_from_onnxruntime']:.1e} | {'' if original is None else f'{original:.1e}'} |"
        )
    return "\n".join(lines) + "\n"


def _pictures(
    bundles: list[tuple[Case, Bundle]], repository: Path, steps: int
) -> tuple[list[dict[str, Any]], list[tuple[Case, neurofv.Visualization]]]:
    """Visualize a unit of each network by a real server."""
    rows: list[dict[str, Any]] = []
    shown: list[tuple[Case, neurofv.Visualization]] = []
    server = RunningServer(repository)
    try:
        for case, bundle in bundles:
            began = time.perf_counter()
            found = _visualize(server, case, bundle, steps)
            rows.append(_judged(found, bundle, time.perf_counter() - began))
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
        images = some_images(folder, cohort)
        rows: list[dict[str, Any]] = []
        bundles: list[tuple[Case, Bundle]] = []
        for case in cases(folder, raw):
            bundle, found = _import(case, folder, repository, images)
            rows += found
            bundles.append((case, bundle))
        pictures, shown = _pictures(bundles, repository, steps)
    _draw(shown)
    write("imports", {"steps": steps, "networks": rows, "visualizations": pictures})
    README.write_text(into_readme(README.read_text(), "imports", _table(rows)))


if __name__ == "__main__":
    typer.run(main)
