"""`neurofv visualize`: from units to volumes."""

from collections.abc import Callable

from neurofv.cli.console import Display, reporting
from neurofv.cli.groups import Comparison, Connection, Files, Method, Unit, grouped
from neurofv.cli.options import ModelName
from neurofv.cli.output import save, tell
from neurofv.client import Client
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
        name, version = split_model(model, "model")
        choices = unit.choices() | method.choices() | comparison.choices() | files.choices()
        request = build_request(name, version=version, **choices)
        files.check(volume_count(request))
        with Client(connection.server, deadline_seconds=connection.deadline) as client, Display() as display:
            client.wait_until_ready(connection.wait)
            follow = _both(display.follow(_label(request)), files.keep)
            result = client.visualize(request, on_event=follow, keep_snapshots=False)
        tell(result, save(result, files.output, files.picture))


def _label(request: vis.VisualizeRequest) -> str:
    """Name what is under way."""
    others = volume_count(request) - 1
    return objective_name(request.objective) + (f" and {others} more" if others else "")


def _both(first: Callable[[Event], None], second: Callable[[Event], None]) -> Callable[[Event], None]:
    def on_event(event: Event) -> None:
        first(event)
        second(event)

    return on_event
