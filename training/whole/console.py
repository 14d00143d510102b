"""What the commands of whole volumes share: progress bars, errors, the table at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from models import Bundle, ModelError
from models.manifest import NAME_PATTERN, Interval
from training.cohort import CohortError
from training.export import bundle_path
from training.fit import Phase, Report
from training.task import Task

console = Console()


@contextmanager
def errors_told() -> Iterator[None]:
    """Print what is wrong with the cohort or the bundle, and exit with 2."""
    try:
        yield
    except (CohortError, ModelError) as error:
        Console(stderr=True).print(f"error: {error}", style="bold red", soft_wrap=True, markup=False)
        raise typer.Exit(2) from error


def check_free(out: Path, task: Task) -> None:
    """Refuse to write over an existing bundle, before anything is trained."""
    target = bundle_path(out, task)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CohortError(f"--out: {target} is not empty; remove it or choose another directory")


def progress_bar() -> Progress:
    """Return a bar with room for running figures."""
    columns = ("{task.description:>10}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[figures]}"), console=console)


def announce(progress: Progress, where: str, phase: Phase) -> Report:
    """Open a bar for a phase; its figures are running means, since single batches are small."""
    bar = progress.add_task(f"{where} {phase.name}", total=phase.steps, figures="")
    mean = {"loss": 0.0, "right": 0.0, "weight": 0.0}

    def report(_step: int, loss: float, right: float) -> None:
        for name, value in (("loss", loss), ("right", right), ("weight", 1.0)):
            mean[name] = 0.97 * mean[name] + 0.03 * value
        figures = f"loss {mean['loss'] / mean['weight']:.3f}, right {mean['right'] / mean['weight']:.1%}"
        progress.update(bar, advance=1, figures=figures)

    return report


def print_figures(bundle: Bundle) -> None:
    """Print a bundle's figures and where it lies."""
    facts = bundle.manifest.evaluation
    table = Table(title=f"{bundle.label} on subjects it never saw (chance {facts.chance:.1%})")
    for head in ("what", "value", "95 % interval", "n"):
        table.add_column(head, justify="left" if head == "what" else "right")

    def row(name: str, value: Interval) -> None:
        table.add_row(name, f"{value.estimate:.3f}", f"{value.low:.3f} to {value.high:.3f}", str(value.n))

    row("accuracy", facts.accuracy)
    for name, value in facts.per_class.items():
        row(f"  {name}", value)
    for name, value in facts.figures.items():
        row(name, value)
    for name, value in facts.baselines.items():
        row(f"baseline accuracy: {name}", value)
    console.print(table)
    size = sum(path.stat().st_size for path in bundle.path.iterdir())
    console.print(f"wrote {bundle.path} ({size / 1e6:.2f} MB, digest {bundle.digest[:12]})", highlight=False)


def check_name(name: str) -> str:
    """Check a bundle's name as the command line gives it."""
    import re

    if not re.match(NAME_PATTERN, name):
        raise typer.BadParameter(f"{name!r} must be lower-case letters, digits, '.', '_' and '-'")
    return name
