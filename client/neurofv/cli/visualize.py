"""`neurofv visualize`: from units to volumes; `neurofv estimate`: what that costs."""

from collections.abc import Callable

from rich.box import SIMPLE_HEAD
from rich.table import Table

from neurofv.cli.console import Display, out, reporting
from neurofv.cli.groups import Comparison, Connection, Files, Method, Unit, grouped
from neurofv.cli.options import ModelName
from neurofv.cli.output import save, tell
from neurofv.events import Event
from neurofv.requests import build_request, split_model, volume_count
from neurofv.v1 import visualization_service_pb2 as vis
from neurofv.words import objective_name


@grouped
def visualize(
    model: ModelName, unit: Unit, method: Method, comparison: Comparison, files: Files, connection: Connection
) -> None:
    """Make the volume that a class, a channel or a single unit looks for."""
    with reporting():
        request = _request(model, unit, method, comparison, files)
        files.check(volume_count(request))
        with connection.opened() as client, Display() as display:
            follow = _both(display.follow(_label(request)), files.keep)
            result = client.visualize(request, on_event=follow, keep_snapshots=False)
        tell(result, save(result, files.output, files.picture))


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


def _label(request: vis.VisualizeRequest) -> str:
    """Name what is under way."""
    others = volume_count(request) - 1
    return objective_name(request.objective) + (f" and {others} more" if others else "")


def _both(first: Callable[[Event], None], second: Callable[[Event], None]) -> Callable[[Event], None]:
    def on_event(event: Event) -> None:
        first(event)
        second(event)

    return on_event
