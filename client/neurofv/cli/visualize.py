"""`neurofv visualize`: one unit, one volume."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from neurofv.cli import options
from neurofv.cli.console import Display, reporting
from neurofv.cli.output import save, tell
from neurofv.client import Client
from neurofv.errors import InvalidRequest
from neurofv.events import Event
from neurofv.files import check_writable
from neurofv.volumes import Volume, target_path


def visualize(
    model: options.ModelName,
    class_name: options.ClassName = None,
    layer: options.LayerName = None,
    channel: options.Channel = None,
    voxel: options.VoxelIndices = None,
    point: options.Point = None,
    contrast: options.Contrast = False,
    output: options.Output = None,
    steps: options.Steps = None,
    seed: options.Seed = None,
    canvas: options.Canvas = None,
    center: options.Center = None,
    start: options.Start = None,
    parameterization: options.Parameterization = None,
    regularizer: options.Regularizers = None,
    no_regularizers: options.NoRegularizers = False,
    transform: options.Transforms = None,
    optimizer: options.Optimizer = None,
    schedule: options.Schedule = None,
    snapshots: options.Snapshots = None,
    every: options.Every = None,
    picture: options.Picture = True,
    server: options.Server = options.SERVER,
    wait: options.Wait = options.DEFAULT_WAIT,
    deadline: options.Deadline = None,
) -> None:
    """Make the volume that a class, a channel or a single unit looks for."""
    unit = {"class_name": class_name, "contrast": contrast or None, "layer": layer, "channel": channel}
    place = {"voxel": voxel, "position_mm": point, "center_mm": center}
    run = {"steps": steps, "seed": seed, "schedule": schedule}
    with reporting():
        # A name that cannot be used shall not be noticed after minutes of work.
        check_writable(target_path(output or Path(), "volume").parent)
        if snapshots:
            check_writable(snapshots)
        name, version = options.split_model(model)
        choices = {
            "version": version,
            "canvas_mm": options.read_edges(canvas),
            "start": options.read_setting(start, "--start"),
            "parameterization": options.read_setting(parameterization, "--parameterization"),
            "regularizers": _regularizers(regularizer, no_regularizers),
            "transforms": options.read_settings(transform, "--transform"),
            "optimizer": options.read_settings(optimizer, "--optimizer"),
            "snapshot_every": _snapshot_every(snapshots, every),
        }
        with Client(server, deadline_seconds=deadline) as client, Display() as display:
            client.wait_until_ready(wait)
            follow = _follow(display.follow(class_name or f"{layer}:{channel}"), snapshots)
            everything: Any = {**unit, **place, **run, **choices}
            result = client.visualize(name, on_event=follow, keep_snapshots=False, **everything)
        tell(result, save(result, output or Path(), picture))


def _regularizers(chosen: list[str] | None, none_at_all: bool) -> dict[str, Any] | None:
    if chosen and none_at_all:
        raise InvalidRequest("no_regularizers", True, "leave it out, or leave out --regularizer")
    return {} if none_at_all else options.read_settings(chosen, "--regularizer")


def _snapshot_every(snapshots: Path | None, every: int | None) -> int | None:
    """Return the steps between snapshots: none without a directory, else the server's default."""
    if every and not snapshots:
        raise InvalidRequest("snapshots", None, "name the directory for what --every asks for")
    return every if snapshots else 0


def _follow(show: Callable[[Event], None], snapshots: Path | None) -> Callable[[Event], None]:
    """Show each event, and write each snapshot as it comes."""

    def on_event(event: Event) -> None:
        show(event)
        if snapshots and isinstance(event, Volume) and not event.final:
            event.save(snapshots / event.file_name)

    return on_event
