"""`python -m training exemplars`: the real images to which the units of a bundle answer most."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from nibabel import io_orientation
from rich.progress import track
from rich.table import Table

from models import Bundle, Layer, read_bundle
from training import options
from training.cohort import Cohort, read_cohort
from training.console import check_empty, console, errors_told
from training.exemplars import Exemplar, ExemplarError, UnitExemplars, find_exemplars
from training.exemplars_picture import Caption, draw_exemplars
from training.model_space import Chosen, choose_subjects, model_images

MOST_UNITS = 64
RESULT = "exemplars.json"


class Subjects(StrEnum):
    """Whose images are looked at."""

    HELD_OUT = "held-out"
    ALL = "all"


def exemplars(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle, NAME/VERSION in its repository.")],
    cohort: options.Cohort,
    out: Annotated[Path, typer.Option(help="New folder for exemplars.json and a picture of each unit.")],
    layer: Annotated[
        str, typer.Option(help="Layer of the units.", show_default="the classifier: its units are classes")
    ] = "",
    unit: Annotated[
        list[int] | None,
        typer.Option(help="Unit of the layer; may be repeated.", show_default=f"all, at most {MOST_UNITS}"),
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=20, help="Images of each unit.")] = 4,
    description: Annotated[
        str, typer.Option(help="BIDS entity desc of the scans; that of the bundle's training.")
    ] = "affinebrain",
    subjects: Annotated[
        Subjects | None,
        typer.Option(help="Whose images.", show_default="held-out if the cohort has such, else all"),
    ] = None,
    threads: options.Threads = 1,
) -> None:
    """Find the real images to which units answer most, and where, and draw them.

    The pictures show persons' brains: share them only as the cohort's terms allow.
    """
    torch.set_num_threads(threads)
    with errors_told():
        check_empty(out)
        read = read_bundle(bundle)
        chosen_layer = read.layer(layer or read.manifest.classifier_layer or read.layers()[-1].name)
        units = _units(chosen_layer, unit)
        brains = read_cohort(cohort, description, show=True)
        chosen = choose_subjects(read, brains, subjects.value if subjects else "")
        console.print(f"looking at {chosen.words}", highlight=False)
        images = model_images(read, brains, chosen.subjects)
        shown = track(images, "images", total=len(chosen.subjects), console=console, transient=True)
        affine = np.array(read.manifest.input.affine)
        found = find_exemplars(read.network(), chosen_layer, units, shown, affine, top)
        out.mkdir(parents=True, exist_ok=True)
        _write(out, read, chosen_layer, brains, description, chosen, found)
    _print(found, read, chosen_layer, out)


def _units(layer: Layer, asked: list[int] | None) -> list[int]:
    """Return the units to look at; those asked for are checked before any image is read."""
    for unit in asked or []:
        if not 0 <= unit < layer.channels:
            raise ExemplarError(f"--unit: is {unit}, but {layer.name} has units 0 to {layer.channels - 1}")
    units = list(dict.fromkeys(asked or range(min(layer.channels, MOST_UNITS))))
    if len(units) > MOST_UNITS:
        raise ExemplarError(f"--unit: names {len(units)} units; at most {MOST_UNITS} are drawn at once")
    if not asked and layer.channels > MOST_UNITS:
        rest = f"the first {MOST_UNITS} of {layer.channels} units of {layer.name}; name others with --unit"
        console.print(rest, highlight=False)
    return units


def _write(
    out: Path,
    bundle: Bundle,
    layer: Layer,
    cohort: Cohort,
    description: str,
    chosen: Chosen,
    found: tuple[UnitExemplars, ...],
) -> None:
    facts = {
        "bundle": bundle.label,
        "digest": bundle.digest,
        "layer": asdict(layer),
        "cohort": {**asdict(cohort.source), "space": cohort.space, "description": description},
        "subjects": {"who": chosen.words, "identifiers": chosen.subjects},
        "units": [_facts(each, bundle, layer) for each in found],
    }
    field_mm = None if layer.whole_input else _along_world(layer.receptive_field_mm, bundle)
    where = f" ({cohort.source.name})" if cohort.source.name else ""
    for each in track(found, "pictures", console=console, transient=True):
        caption = Caption(
            unit=f"{_name(each.unit, bundle, layer)} of {bundle.label}",
            images=f"Highest of {each.images} images{where}",
            field_mm=field_mm,
            intensities=bundle.manifest.input.intensity_range,
        )
        draw_exemplars(each, caption, out / _picture(layer, each.unit))
    text = json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False)
    (out / RESULT).write_text(text + "\n", encoding="utf-8")


def _facts(found: UnitExemplars, bundle: Bundle, layer: Layer) -> dict[str, Any]:
    return {
        "unit": found.unit,
        "name": _name(found.unit, bundle, layer),
        "images": found.images,
        "quantiles": found.quantiles,
        "picture": _picture(layer, found.unit),
        "exemplars": [_exemplar_facts(one, layer) for one in found.exemplars],
    }


def _exemplar_facts(exemplar: Exemplar, layer: Layer) -> dict[str, Any]:
    return {
        "subject": exemplar.subject,
        "image": exemplar.image,
        "activation": exemplar.activation,
        "quantile": exemplar.quantile,
        "position": exemplar.position,
        "center_voxel": exemplar.center_voxel,
        "center_mm": exemplar.center_mm,
        "center_by": exemplar.center_by,
        "receptive_field_mm": layer.receptive_field_mm,
        "tissue": exemplar.tissue,
    }


def _name(unit: int, bundle: Bundle, layer: Layer) -> str:
    if layer.name == bundle.manifest.classifier_layer:
        return f"class {bundle.manifest.classes[unit]}"
    return f"{layer.name}:{unit}"


def _picture(layer: Layer, unit: int) -> str:
    # A layer's name comes from the network's code, but a file's must be one on any system.
    return f"{re.sub(r'[^A-Za-z0-9._-]', '_', layer.name)}-{unit:03d}.png"


def _along_world(edges: tuple[float, ...], bundle: Bundle) -> tuple[float, ...]:
    """Put lengths along the array's axes into the order of the world's."""
    axes = io_orientation(np.array(bundle.manifest.input.affine))[:, 0].astype(int)
    return tuple(edges[int(np.flatnonzero(axes == world)[0])] for world in range(3))


def _print(found: tuple[UnitExemplars, ...], bundle: Bundle, layer: Layer, out: Path) -> None:
    table = Table(title=f"strongest images for {layer.name} of {bundle.label}")
    for head in ("unit", "subject", "activation", "median", "centre, mm"):
        table.add_column(head, justify="left" if head in ("unit", "subject") else "right")
    for each in found:
        best = each.exemplars[0]
        center = ", ".join(f"{value:.0f}" for value in best.center_mm)
        row = (f"{best.activation:.3g}", f"{each.quantiles['0.5']:.3g}", center)
        table.add_row(_name(each.unit, bundle, layer), best.subject, *row)
    console.print(table)
    console.print(f"wrote {RESULT} and {len(found)} pictures to {out}", highlight=False)
