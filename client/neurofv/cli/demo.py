"""`neurofv demo`: what every class of a model looks like."""

import re
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from neurofv.cli import options
from neurofv.cli.console import Display, out, reporting
from neurofv.cli.groups import Connection, grouped
from neurofv.cli.output import drawn, save
from neurofv.cli.reading import read_edges, read_setting
from neurofv.client import Client
from neurofv.files import check_writable
from neurofv.recommended import PLAUSIBLE, PLAUSIBLE_STEPS
from neurofv.requests import split_model
from neurofv.results import Visualization
from neurofv.v1 import method_pb2 as method
from neurofv.volumes import SUFFIX


@grouped
def demo(
    connection: Connection,
    model: Annotated[str, typer.Option(help="NAME or NAME/VERSION.")] = "lesion-shapes-robust",
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory for the files.")] = Path(
        "demo-output"
    ),
    steps: options.Steps = None,
    seed: options.Seed = None,
    canvas: options.Canvas = None,
    start: options.Start = None,
    picture: options.Picture = True,
) -> None:
    """Ask for every class of a model, one after the other, and draw an overview."""
    with reporting():
        check_writable(output)
        name, version = split_model(model, "model")
        choices = {
            "version": version,
            "steps": steps or PLAUSIBLE_STEPS,
            "seed": seed,
            "canvas_mm": read_edges(canvas),
            "start": read_setting(start, method.Start(), "--start"),
            "snapshot_every": 0,
            **PLAUSIBLE,
        }
        table, results = _table(), []
        with connection.opened() as client:
            for class_name, result, seconds in _every_class(client, name, choices):
                files = save(result, output / _file_name(class_name), picture)
                table.add_row(class_name, *_row(result, seconds, files[0]))
                results.append(result)
        if picture:
            drawn(lambda: _overview(results, output / "overview.png"))
    out.print(table)
    out.print(f"everything lies in {output}", markup=False)


def _every_class(
    client: Client, name: str, choices: dict[str, Any]
) -> Iterator[tuple[str, Visualization, float]]:
    """Visualize class after class; yield its name and result, and the seconds it took."""
    classes = client.model(name, choices["version"]).classes
    with Display(len(classes)) as display:
        for class_name in classes:
            begun = monotonic()
            follow = display.follow(class_name)
            result = client.visualize(name, on_event=follow, class_name=class_name, **choices)
            yield class_name, result, monotonic() - begun


def _file_name(class_name: str) -> str:
    """Name a class's file; the class's name is the server's and no path."""
    return re.sub(r"[^\w.-]+", "-", class_name) + SUFFIX


def _table() -> Table:
    table = Table("class", box=SIMPLE_HEAD)
    for heading in ("activation", "95 % of real images below", "seconds"):
        table.add_column(heading, justify="right")
    table.add_column("file", overflow="fold")
    return table


def _row(result: Visualization, seconds: float, file: Path) -> list[str]:
    term = result.evaluation.terms[0]
    real = f"{term.real_p95:.2f}" if term.HasField("real_p95") else "unknown"
    return [f"{term.activation:.2f}", real, f"{seconds:.1f}", str(file)]


def _overview(results: list[Visualization], path: Path) -> None:
    # Imported late: nilearn takes seconds, and may be absent.
    from neurofv.picture import contact_sheet

    contact_sheet(results, path)
