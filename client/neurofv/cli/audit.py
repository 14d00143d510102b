"""`neurofv audit`: from a model to a report."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Column

from neurofv.cli.console import err, out, reporting
from neurofv.cli.groups import Connection, grouped
from neurofv.cli.options import ModelName
from neurofv.errors import InvalidRequest
from neurofv.requests import split_model

if TYPE_CHECKING:
    from neurofv.audit.progress import Progress

audit = typer.Typer(help="Audit a model: plan, run, report.", no_args_is_help=True)

_COULD_NOT_RUN = 2
_INTERRUPTED = 130
_BUG = "neurofv did not foresee this; please report it with the lines above"
_GO_ON = "interrupted; run the same command again to go on: nothing that is done is lost"


@audit.command()
@grouped
def init(
    bundle: ModelName,
    connection: Connection,
    output: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="Where to; never an older file's place.")
    ] = Path("plan.yaml"),
) -> None:
    """Write a plan to begin with: all classes, some channels, the controls, comments."""
    with _exit_codes(), reporting():
        from neurofv.audit.template import template

        if output.exists():
            raise InvalidRequest("out", str(output), "there is a file of this name; name another")
        name, version = split_model(bundle, "model")
        with connection.opened() as client:
            text = template(client.model(name, version))
        output.write_text(text, encoding="utf-8")
    out.print(f"written to {output}; run it with: neurofv audit run {output} --out audit", soft_wrap=True)


@audit.command()
@grouped
def run(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="YAML, as `neurofv audit init` writes it.")],
    connection: Connection,
    output: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to fill, or to go on with.")
    ] = Path("audit"),
) -> None:
    """Audit a model; 0 if all thresholds hold, 1 if one does not, 2 if it could not run.

    Interrupted, killed or without its server, it goes on when it is run again with the same plan and
    folder, and comes to the same report.
    """
    with _exit_codes(), reporting(lambda: _GO_ON):
        from neurofv.audit.plan import read_plan

        _named(plan, lambda: read_plan(plan))
        with connection.opened() as client, _bar() as show:
            report = _named(plan, lambda: client.audit(plan, output, show))
        for line in report["summary"]:
            out.print(f"· {line}", markup=False, soft_wrap=True)
        out.print(f"the report: {output / 'report.html'}", markup=False, soft_wrap=True)
    if not report["passed"]:
        raise typer.Exit(1)


@audit.command("report")
def write(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="As `neurofv audit run` has filled it.")],
) -> None:
    """Write the page anew, from report.json and the files beside it; asks no server."""
    with _exit_codes(), reporting():
        from neurofv.audit.html import write_html

        page = write_html(folder)
    out.print(str(page), markup=False, soft_wrap=True)


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Leave with 2 whenever an audit could not run, and tell if a part of the client is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        err.print(
            f"error: {error.name} is not installed; install the extra 'audit'", style="red", markup=False
        )
        raise typer.Exit(_COULD_NOT_RUN) from None
    except typer.Exit as error:
        raise typer.Exit(error.exit_code if error.exit_code == _INTERRUPTED else _COULD_NOT_RUN) from None
    except typer.BadParameter:
        # Wrong usage, which has its own words, and code 2.
        raise
    except Exception:
        # Python's own code would be 1: a pipeline would read that a threshold has failed.
        traceback.print_exc()
        err.print(f"error: {_BUG}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(_COULD_NOT_RUN) from None


def _named(plan: Path, call: Callable[[], Any]) -> Any:
    """Call, and say of what a plan has wrong in which file it stands."""
    try:
        return call()
    except InvalidRequest as error:
        given = "is missing" if error.value is None else f"is {error.value!r}"
        err.print(
            f"error: {plan}: {error.field} {given}: {error.remedy}", style="red", markup=False, soft_wrap=True
        )
        raise typer.Exit(_COULD_NOT_RUN) from None


@contextmanager
def _bar() -> Iterator[Callable[["Progress"], None]]:
    """Show one bar for all of an audit; yield what is to be called with its progress."""
    columns = [
        BarColumn(bar_width=16),
        TextColumn("{task.percentage:>3.0f} %", table_column=Column(min_width=5)),
        TextColumn("{task.fields[pictures]}", table_column=Column(min_width=14)),
        TimeElapsedColumn(table_column=Column(min_width=7)),
        TextColumn("{task.fields[left]}", table_column=Column(min_width=10)),
        # What is too long for the line is cut here.
        TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
    ]
    with Bars(*columns, console=err, expand=True) as bars:
        task = bars.add_task("", total=1.0, pictures="", left="")

        def show(progress: "Progress") -> None:
            left = "" if progress.seconds_left is None else f"{_time(progress.seconds_left)} left"
            bars.update(task, left=left, description=escape(progress.doing))
            if progress.share is not None:
                pictures = f"{progress.pictures}/{progress.of} pictures"
                bars.update(task, completed=progress.share, pictures=pictures)

        yield show


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
