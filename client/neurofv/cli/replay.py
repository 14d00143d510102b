"""`neurofv replay`: run a recorded job again and compare the bits."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from neurofv.cli.console import Display, out, reporting
from neurofv.cli.groups import Connection, grouped
from neurofv.cli.jobs import full_name
from neurofv.cli.options import JobName
from neurofv.cli.visualize import label
from neurofv.replays import Compared, compare, differences, replay_request
from neurofv.results import Visualization
from neurofv.v1 import visualization_service_pb2 as vis

_DIGITS = 16


@grouped
def replay(
    name: JobName,
    connection: Connection,
    subject: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="An image that the job was given; once for each."),
    ] = None,
) -> None:
    """Run a recorded job once more and compare every volume's SHA-256; 1 if one differs."""
    with reporting(), connection.opened() as client, Display() as display:
        job = client.job(full_name(name))
        request = replay_request(job, subject or [])
        result = client.visualize(request, on_event=display.follow(label(request)), keep_snapshots=False)
    rows = compare(job.completed.provenance, result.provenance)
    out.print(_table(rows))
    equal = sum(row.equal for row in rows)
    out.print(f"{job.name} and {result.job}: {equal} of {len(rows)} volumes have the same bits", markup=False)
    for line in differences(job.completed, _completed(result)):
        out.print(f"  · {line}", markup=False, soft_wrap=True)
    if equal < len(rows):
        raise typer.Exit(1)


def _table(rows: list[Compared]) -> Table:
    table = Table("volume", "recorded", "now", "", box=SIMPLE_HEAD)
    for row in rows:
        verdict = "[green]equal[/]" if row.equal else "[red]different[/]"
        table.add_row(row.volume, *(each[:_DIGITS] or "none" for each in (row.recorded, row.now)), verdict)
    return table


def _completed(result: Visualization) -> vis.Completed:
    return vis.Completed(evaluation=result.evaluation, provenance=result.provenance)
