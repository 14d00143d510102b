"""`neurofv audit-log`: take the server's audit log along, and check its chain."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from neurofv.audit_log import read_head, read_lines, verify
from neurofv.cli.console import err, out, reporting
from neurofv.cli.groups import Connection, grouped

audit_log = typer.Typer(help="Export and verify the audit log.", no_args_is_help=True)


@audit_log.command()
@grouped
def export(
    connection: Connection,
    output: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Where to; else standard output.")
    ] = None,
) -> None:
    """Write the server's audit log to a file; for admins."""
    with reporting(), connection.opened() as client:
        if output is None:
            sys.stdout.writelines(f"{line}\n" for line in client.audit_log())
            return
        with output.open("w", encoding="ascii", newline="\n") as file:
            file.writelines(f"{line}\n" for line in client.audit_log())
    err.print(f"written to {output}", markup=False, soft_wrap=True)


@audit_log.command("verify")
@grouped
def check(
    connection: Connection,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="An exported log, or the server's own file.")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="A hash noted earlier, which the log must hold: finds a cut end."),
    ] = None,
) -> None:
    """Check the chain of a file or, without one, of the server; 1 if it is broken."""
    with reporting():
        if file is not None:
            verdict = verify(read_lines(file), head or read_head(file))
        else:
            with connection.opened() as client:
                verdict = verify(client.audit_log(), head)
    if verdict.fault is not None:
        err.print(
            f"error: broken at record {verdict.fault.sequence}: {verdict.fault.what}",
            style="red",
            markup=False,
            soft_wrap=True,
        )
        raise typer.Exit(1)
    out.print(
        f"{verdict.records} records, unbroken; note the head: {verdict.head}", markup=False, soft_wrap=True
    )
