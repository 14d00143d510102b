"""What the training commands share: progress bars, checkpoints, errors, the table at the end."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from models import Bundle, ModelError
from models.manifest import NAME_PATTERN, Interval
from training.checkpoint import Checkpoint, CheckpointRefused
from training.cohort import Cohort, CohortError
from training.export import bundle_path
from training.fit import Phase, Report
from training.recipe import Recipe
from training.task import Task

console = Console()


@contextmanager
def errors_told() -> Iterator[None]:
    """Print what is wrong with the cohort, the checkpoint or the bundle, and exit with 2."""
    try:
        yield
    except (CohortError, CheckpointRefused, ModelError) as error:
        Console(stderr=True).print(f"error: {error}", style="bold red", soft_wrap=True, markup=False)
        raise typer.Exit(2) from error


def check_empty(folder: Path) -> None:
    """Refuse to write into a folder that holds something, or over a file."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CohortError(f"--out: {folder} is not empty; remove it or choose another directory")


def check_free(out: Path, task: Task) -> None:
    """Refuse to write over an existing bundle, before anything is trained."""
    check_empty(bundle_path(out, task))


def check_name(name: str) -> str:
    """Check a bundle's name as the command line gives it; an empty one is left to the command."""
    if name and not re.match(NAME_PATTERN, name):
        raise typer.BadParameter(f"{name!r} must be lower-case letters, digits, '.', '_' and '-'")
    return name


def bundle_name(name: str, **special: bool) -> str:
    """Name a bundle by what is special about its training."""
    return "-".join([name, *(word for word, chosen in special.items() if chosen)])


def keep_run(
    out: Path, task: Task, cohort: Cohort, recipe: Recipe, part: str = "", **more: Any
) -> Checkpoint:
    """Say where a run is kept: beside the bundles, under a name that is none of a bundle.

    Parameters
    ----------
    out : Path
        Model repository.
    task : Task
        What is trained.
    cohort : Cohort
        On what.
    recipe : Recipe
        How.
    part : str
        Which of the task's networks, where it has several.
    **more : object
        What else decides the run, in plain values.
    """
    brains = hashlib.sha256(cohort.brains.tobytes()).hexdigest()
    network = {"architecture": task.architecture, "hyperparameters": task.hyperparameters}
    data = {"subjects": cohort.subjects, "brains": brains, "seed": recipe.seed}
    identity = {**data, **network, **recipe.facts(), **more}
    checkpoint = Checkpoint(out / f".{'.'.join(filter(None, (task.name, part)))}.checkpoint", identity)
    if checkpoint.path.exists():
        console.print(f"going on from {checkpoint.path.name}", highlight=False)
    return checkpoint


def progress_bar() -> Progress:
    """Return a bar with room for running figures."""
    columns = ("{task.description:>10}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[figures]}"), console=console)


def announce(progress: Progress, phase: Phase, where: str = "") -> Report:
    """Open a bar for a phase; its figures are running means, since single batches are small."""
    bar = progress.add_task(f"{where} {phase.name}".strip(), total=phase.steps, figures="")
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
    assert facts is not None  # whoever prints has just measured them
    table = Table(title=f"{bundle.label} on subjects it never saw (chance {facts.chance:.1%})")
    for head in ("what", "value", "95 % interval", "n"):
        table.add_column(head, justify="left" if head == "what" else "right")

    def row(name: str, value: Interval, form: str = ".1%", style: str = "") -> None:
        interval = f"{value.low:{form}} to {value.high:{form}}"
        table.add_row(name, f"{value.estimate:{form}}", interval, str(value.n), style=style)

    row("accuracy of the network", facts.accuracy, style="bold")
    for name, value in facts.per_class.items():
        row(f"  {name}", value)
    for name, value in facts.baselines.items():
        row(f"accuracy of a baseline: {name}", value)
    for name, value in facts.figures.items():
        row(name, value, ".3f")
    console.print(table)
    size = sum(path.stat().st_size for path in bundle.path.iterdir())
    console.print(f"wrote {bundle.path} ({size / 1e6:.2f} MB, digest {bundle.digest[:12]})", highlight=False)
