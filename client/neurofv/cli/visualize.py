"""`neurofv visualize` and `submit`: from units to volumes; `neurofv estimate`: what that costs."""

from collections.abc import Callable
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from neurofv.cli.console import CANCELLED, Display, out, reporting
from neurofv.cli.groups import Comparison, Connection, Files, Method, Unit, grouped
from neurofv.cli.options import ModelName
from neurofv.cli.output import save, tell
from neurofv.events import Event
from neurofv.requests import build_request, split_model, volume_count
from neurofv.v1 import visualization_service_pb2 as vis
from neurofv.words import control_name, objective_name


@grouped
def visualize(
    model: ModelName,
    unit: Unit,
    method: Method,
    comparison: Comparison,
    files: Files,
    connection: Connection,
    detach: Annotated[
        bool, typer.Option("--detach", help="Let the job go on after Ctrl-C or a lost connection.")
    ] = False,
) -> None:
    """Make the volume that a class, a channel or a single unit looks for."""
    begun: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, vis.Accepted):
            begun.append(event.job)

    with reporting(lambda: _left(begun) if detach else CANCELLED):
        request = _request(model, unit, method, comparison, files)
        request.detach = detach
        files.check(volume_count(request))
        with connection.opened() as client, Display() as display:
            follow = all_of(note, display.follow(label(request)), files.keep)
            result = client.visualize(request, on_event=follow, keep_snapshots=False)
            rights = files.rights(client, result.provenance.model, result.provenance.version)
        tell(result, save(result, files.output, files.picture, files.bids, rights))


@grouped
def submit(
    model: ModelName,
    unit: Unit,
    method: Method,
    comparison: Comparison,
    connection: Connection,
    every: Annotated[int, typer.Option(min=0, help="Steps between snapshots; 0 for none.")] = 0,
    pin: Annotated[bool, typer.Option("--pin", help="Keep the job beyond its time.")] = False,
    request_id: Annotated[
        str | None, typer.Option(help="Given again within a day, it means the same job.")
    ] = None,
) -> None:
    """Store and queue what `visualize` would make, print the job's name, and leave."""
    with reporting():
        request = _request(model, unit, method, comparison, Files())
        request.snapshot_every, request.request_id = every, request_id or ""
        with connection.opened() as client:
            job = client.create_job(request, pinned=pin)
    out.print(job.name)


@grouped
def estimate(
    model: ModelName, unit: Unit, method: Method, comparison: Comparison, files: Files, connection: Connection
) -> None:
    """Tell what `visualize` with the same options would cost; nothing is made."""
    with reporting():
        request = _request(model, unit, method, comparison, files)
        with connection.opened() as client:
            found = client.estimate(request)
    out.print(_costs(found))


def _request(
    model: str, unit: Unit, method: Method, comparison: Comparison, files: Files
) -> vis.VisualizeRequest:
    name, version = split_model(model, "model")
    choices = unit.choices() | method.choices() | comparison.choices() | files.choices()
    return build_request(name, version=version, **choices)


def _costs(found: vis.EstimateResponse) -> Table:
    """Lay an estimate out."""
    size = found.request.canvas.size_mm
    many = f", {found.volumes} volumes" if found.volumes > 1 else ""
    threads = f", {found.threads} threads" if found.device == "cpu" else ""
    table = Table("", "", box=SIMPLE_HEAD, show_header=False)
    table.add_row("canvas", f"{size.i:g} x {size.j:g} x {size.k:g} mm, {found.voxels:,} voxels{many}")
    table.add_row("one step", f"{1000 * found.step_seconds:.3g} ms on {found.device}{threads}")
    table.add_row("in all", f"{_time(found.seconds)} for {found.request.steps} steps and the figures")
    table.add_row("memory", f"{found.peak_bytes / 1e6:,.0f} MB")
    table.add_row("queue", f"{found.jobs_waiting} waiting" + (", one running" if found.busy else ""))
    return table


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def label(request: vis.VisualizeRequest) -> str:
    """Name what is under way."""
    others = volume_count(request) - 1
    control = f", {name}" if (name := control_name(request)) else ""
    return objective_name(request.objective) + (f" and {others} more" if others else "") + control


def all_of(*takers: Callable[[Event], None]) -> Callable[[Event], None]:
    """Return what hands an event to each of these."""

    def on_event(event: Event) -> None:
        for take in takers:
            take(event)

    return on_event


def go_on(job: str) -> str:
    """Say how a job that goes on can be watched."""
    return f"{job} goes on; see it with: neurofv watch {job}"


def _left(begun: list[str]) -> str:
    return go_on(begun[0]) if begun else CANCELLED
