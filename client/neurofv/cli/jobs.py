"""What can be done with jobs: list, look at, cancel, delete, pin, download."""

import time
from collections.abc import Iterator
from typing import Annotated

import grpc
import typer
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from neurofv.cli.console import out, reporting
from neurofv.cli.groups import Connection, grouped
from neurofv.cli.options import JobName
from neurofv.cli.visualize import label
from neurofv.client import Client
from neurofv.errors import NeurofvError
from neurofv.listing import STATES, state_name
from neurofv.v1 import job_service_pb2 as pb

_COLORS = {"succeeded": "green", "failed": "red", "running": "cyan"}


def full_name(name: str) -> str:
    """Return a job's resource name; its id alone will do."""
    return name if "/" in name else f"jobs/{name}"


@grouped
def jobs(
    connection: Connection,
    state: Annotated[
        list[str] | None, typer.Option(help=f"Only in this state; may be repeated: {', '.join(STATES)}.")
    ] = None,
    model: Annotated[str, typer.Option(metavar="NAME", help="Only of this model.")] = "",
    owner: Annotated[str, typer.Option(metavar="NAME", help="Only of this owner, for admins.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Most jobs.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print all that is known, one job a line.")] = False,
) -> None:
    """List the jobs, newest first."""
    with reporting(), connection.opened() as client:
        listed = client.jobs(states=state or (), model=model, owner=owner, limit=limit)
        found = list(_details(client, listed))
    if json:
        for each in found:
            typer.echo(_json(each))
        return
    table = Table("job", "state", "model", "unit", "step", "age", box=SIMPLE_HEAD)
    for each in found:
        request = each.request
        step = f"{each.step}/{request.steps}"
        row = [f"{request.model}/{request.version}", escape(label(request)), step, _age(each.create_time)]
        table.add_row(each.name, _state(each), *row)
    out.print(table)


@grouped
def job(
    name: JobName,
    connection: Connection,
    json: Annotated[bool, typer.Option("--json", help="Print all that is known.")] = False,
) -> None:
    """Tell all about a job."""
    with reporting(), connection.opened() as client:
        found = client.job(full_name(name))
    if json:
        typer.echo(_json(found))
        return
    request = found.request
    table = Table("", "", box=SIMPLE_HEAD, show_header=False)
    table.add_row("job", found.name)
    table.add_row("state", _state(found))
    table.add_row("model", f"{request.model}/{request.version}")
    table.add_row("unit", escape(label(request)))
    table.add_row("owner", escape(found.owner))
    table.add_row("step", f"{found.step} of {request.steps}, attempt {found.attempt or 'none yet'}")
    table.add_row("events", str(found.last_sequence))
    for heading, stamp in _times(found):
        table.add_row(heading, stamp)
    table.add_row("stored", f"{found.stored_bytes / 1e6:,.1f} MB")
    for begin in found.volumes:
        table.add_row(f"volume {begin.id}", f"{begin.bytes:,} bytes, SHA-256 {begin.sha256}")
    if found.HasField("error"):
        table.add_row("error", escape(f"{found.error.message} [{found.error.reason}]"))
    out.print(table)


@grouped
def cancel(name: JobName, connection: Connection) -> None:
    """Stop a job: at once if it waits, within one step if it runs."""
    with reporting(), connection.opened() as client:
        found = client.cancel_job(full_name(name))
    out.print(f"{found.name} is {state_name(found)}")


@grouped
def delete(name: JobName, connection: Connection) -> None:
    """Remove a job that has ended, with all its volumes."""
    with reporting(), connection.opened() as client:
        client.delete_job(full_name(name))
    out.print(f"{full_name(name)} is deleted", markup=False)


@grouped
def pin(name: JobName, connection: Connection) -> None:
    """Keep a job beyond its time."""
    with reporting(), connection.opened() as client:
        found = client.pin_job(full_name(name))
    out.print(f"{found.name} is kept until it is unpinned")


@grouped
def unpin(name: JobName, connection: Connection) -> None:
    """Let a job expire after all."""
    with reporting(), connection.opened() as client:
        found = client.pin_job(full_name(name), pinned=False)
    expires = f"at {_local(found.expire_time)}" if found.HasField("expire_time") else "in its time"
    out.print(f"{found.name} is removed {expires}")


@grouped
def download(
    name: JobName,
    connection: Connection,
    volume: Annotated[str, typer.Option(metavar="ID", help="Which one, as `job` lists them.")] = "final",
    output: Annotated[
        str,
        typer.Option("-o", "--output", "--out", metavar="PATH", help="FILE.nii.gz, or a directory."),
    ] = ".",
) -> None:
    """Write one of a job's volumes; called again after a break, it goes on where it was."""
    with reporting(), connection.opened() as client:
        path = client.download(full_name(name), volume, output)
    out.print(str(path), markup=False, soft_wrap=True)


def _details(client: Client, listed: Iterator[pb.Job]) -> Iterator[pb.Job]:
    """Fetch what a list leaves out; who was deleted meanwhile is passed over."""
    for each in listed:
        try:
            yield client.job(each.name)
        except NeurofvError as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise


def _json(found: pb.Job) -> str:
    return json_format.MessageToJson(found, preserving_proto_field_name=True, indent=None)


def _state(found: pb.Job) -> str:
    state = state_name(found)
    shown = f"[{_COLORS[state]}]{state}[/]" if state in _COLORS else state
    return f"{shown}, pinned" if found.pinned else shown


def _times(found: pb.Job) -> list[tuple[str, str]]:
    stamps = {
        "created": "create_time",
        "started": "start_time",
        "ended": "end_time",
        "is removed": "expire_time",
    }
    return [
        (heading, _local(getattr(found, field))) for heading, field in stamps.items() if found.HasField(field)
    ]


def _local(stamp: Timestamp) -> str:
    return stamp.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC")


def _age(stamp: Timestamp) -> str:
    seconds = max(0.0, time.time() - stamp.ToSeconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
