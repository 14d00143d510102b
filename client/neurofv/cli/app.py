"""The commands, put together; models and layers."""

from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from neurofv import __version__
from neurofv.cli import options
from neurofv.cli.audit import audit
from neurofv.cli.audit_log import audit_log
from neurofv.cli.console import out, reporting
from neurofv.cli.demo import demo
from neurofv.cli.groups import Connection, grouped
from neurofv.cli.jobs import cancel, delete, download, job, jobs, pin, unpin
from neurofv.cli.replay import replay
from neurofv.cli.visualize import estimate, submit, visualize
from neurofv.cli.watch import watch
from neurofv.requests import split_model
from neurofv.v1 import model_service_pb2 as pb

app = typer.Typer(
    help="See what a unit of a 3D CNN for brain MRI looks for.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (visualize, submit, estimate, demo):
    app.command()(command)
for command in (jobs, job, watch, download, cancel, delete, pin, unpin, replay):
    app.command(rich_help_panel="Jobs")(command)
app.add_typer(audit, name="audit")
app.add_typer(audit_log, name="audit-log")


def _version(asked: bool) -> None:
    if asked:
        out.print(f"neurofv {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@app.command()
@grouped
def models(connection: Connection) -> None:
    """List the models of the server."""
    with reporting(), connection.opened() as client:
        table = Table("model", "version", "state", box=SIMPLE_HEAD)
        for entry in client.models():
            state = "[green]ready[/]" if entry.ready else f"[red]not ready[/]: {escape(entry.reason)}"
            table.add_row(entry.name, str(entry.version), state)
    out.print(table)


@app.command()
@grouped
def layers(model: options.ModelName, connection: Connection) -> None:
    """List the layers of a model, and its classes."""
    with reporting():
        name, version = split_model(model, "model")
    with reporting(), connection.opened() as client:
        found = client.model(name, version)
    space = found.input
    out.print(f"[bold]{found.name}/{found.version}[/] reads {_times(space.shape)} voxels of {space.space}")
    out.print(f"classes: {', '.join(found.classes)}", markup=False, soft_wrap=True)
    out.print(_layer_table(found))


def _layer_table(model: pb.Model) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("layer", "type"):
        table.add_column(heading, overflow="fold")
    for heading in ("channels", "output", "stride", "sees (voxels)", "sees (mm)"):
        table.add_column(heading, justify="right")
    for layer in model.layers:
        place = [_times(layer.stride), _times(layer.receptive_field_voxels), _times(layer.receptive_field_mm)]
        if layer.whole_input:
            place = ["", "everything", "everything"]
        output = _times(layer.output_shape)
        table.add_row(layer.name, layer.type, str(layer.channels), output, *place)
    return table


def _times(numbers: Any) -> str:
    """Write 2x3x4, or one number if all are the same, or nothing for a vector."""
    texts = [f"{number:g}" for number in numbers]
    return texts[0] if len(set(texts)) == 1 and len(texts) > 1 else "x".join(texts)
