"""`python -m models import`: a bundle out of a network that was trained elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import track

from models.bundle import Bundle
from models.errors import ModelError
from models.importing.facts import UNSTATED, Facts
from models.importing.monai import import_monai
from models.importing.network import import_onnx
from models.normalization import Normalization
from models.onnx_graph.agreement import TOLERANCE

console = Console()


def _triple(text: str) -> tuple[int, int, int]:
    try:
        x, y, z = (int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no shape; write it as 96,112,96") from None
    return x, y, z


def _pair(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no range; write it as 0,1.1") from None
    if low >= high:
        raise typer.BadParameter(f"--intensity-range {text} must be LOW,HIGH with LOW below HIGH")
    return low, high


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if len(set(names)) != len(names) or len(names) == 1:
        raise typer.BadParameter(f"--classes {text} must name two classes or more, each by another name")
    return names


def _name(source: Path) -> str:
    """Make a bundle's name of a file's."""
    return re.sub(r"[^a-z0-9._-]+", "-", source.stem.lower()).strip("-._") or "imported"


def _rule(text: str) -> Normalization:
    """Read ``quantile:0.995``, ``zscore``, ``zscore:all``, ``minmax``, ``none`` or a JSON object."""
    adapter: TypeAdapter[Normalization] = TypeAdapter(Normalization)
    kind, _, rest = text.partition(":")
    try:
        if text.lstrip().startswith("{"):
            return adapter.validate_json(text)
        fields: dict[str, object] = {"kind": kind}
        if rest and kind == "quantile":
            fields["quantile"] = float(rest)
        elif rest and kind in ("zscore", "minmax"):
            fields["voxels"] = rest
        return adapter.validate_python(fields)
    except (ValidationError, ValueError):
        raise typer.BadParameter(
            f"{text!r} is no normalization; write quantile:0.995, zscore, zscore:all, minmax, none, or the "
            "rule as JSON"
        ) from None


def import_model(
    reference: Annotated[
        Path, typer.Option(help="Mean training image, or any image as the network reads them (NIfTI or MGH).")
    ],
    model: Annotated[Path | None, typer.Argument(help="ONNX model.", show_default="that of --monai")] = None,
    monai: Annotated[Path | None, typer.Option(help="MONAI bundle, instead of a model.")] = None,
    out: Annotated[Path, typer.Option(help="Model repository; the bundle goes to OUT/NAME/VERSION.")] = Path(
        "imported"
    ),
    name: Annotated[str, typer.Option(help="Of the bundle.", show_default="the file's")] = "",
    version: Annotated[int, typer.Option(min=1, help="Of the bundle.")] = 1,
    input_shape: Annotated[
        str, typer.Option(metavar="X,Y,Z", help="Voxels.", show_default="the reference's")
    ] = "",
    cohort: Annotated[
        Path | None, typer.Option(help="Folder of images as the network reads them, to place results among.")
    ] = None,
    classes: Annotated[
        str,
        typer.Option(
            help="Names in the order of the outputs: CN,AD.", show_default="0,1,… if it ends in a softmax"
        ),
    ] = "",
    normalization: Annotated[
        str,
        typer.Option(
            help="What training did to intensities: quantile:Q, zscore[:all], minmax[:nonzero], none."
        ),
    ] = "quantile:0.995",
    intensity_range: Annotated[
        str,
        typer.Option(
            metavar="LOW,HIGH", help="Model units of what is optimized.", show_default="the images'"
        ),
    ] = "",
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest difference from ONNX Runtime's output that is accepted.")
    ] = TOLERANCE,
    space: Annotated[str, typer.Option(help="Space of the reference, e.g. MNI152NLin2009cAsym.")] = "unknown",
    license_: Annotated[str, typer.Option("--license", help="Terms of the network.")] = UNSTATED,
    intended_use: Annotated[str, typer.Option(help="For the card.")] = UNSTATED,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the bundle if it exists.")] = False,
) -> None:
    """Make a bundle of an ONNX model or a MONAI bundle, checked against ONNX Runtime."""
    source = model or monai
    if source is None or (model and monai):
        raise typer.BadParameter("give either an ONNX model or --monai")
    facts = Facts(
        name=name or _name(source),
        version=version,
        input_shape=_triple(input_shape) if input_shape else None,
        classes=_names(classes),
        normalization=_rule(normalization),
        intensity_range=_pair(intensity_range) if intensity_range else None,
        tolerance=tolerance,
        space=space,
        license=license_,
        intended_use=intended_use,
    )
    make = import_onnx if model else import_monai
    try:
        bundle = make(source, out, facts, reference, cohort, overwrite=overwrite, track=_tracked)
    except (ModelError, ValidationError) as error:
        Console(stderr=True).print(f"error: {_words(error)}", style="bold red", soft_wrap=True, markup=False)
        raise typer.Exit(2) from error
    _print(bundle)


def _tracked(images: Iterable[np.ndarray], what: str, total: int) -> Iterable[np.ndarray]:
    return track(images, what, total=total, console=console, transient=True)


def _words(error: ModelError | ValidationError) -> str:
    if isinstance(error, ModelError):
        return str(error)
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "bundle"
    return f"{field}: {first['msg']}, got {first['input']!r:.80}"


def _print(bundle: Bundle) -> None:
    found = bundle.manifest.imported
    assert found is not None  # it has just been imported
    layers = bundle.layers()
    shape = " x ".join(str(size) for size in bundle.manifest.input.shape)
    console.print(
        f"{bundle.label}: {len(layers)} layers, input {shape}, "
        f"classes {', '.join(bundle.manifest.classes) or 'none'}\n"
        f"outputs differ from ONNX Runtime's by at most {found.agreement:.1e}\n"
        f"wrote {bundle.path} (digest {bundle.digest[:12]})",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
