"""`python -m training lesions`: teach a network artificial lesion shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from models import Bundle, ModelError
from models.manifest import Interval
from training.cohort import Cohort, CohortError, Split, read_cohort, split_subjects
from training.export import Outcome, bundle_path, export
from training.fit import Phase, Report
from training.lesions.baselines import baselines
from training.lesions.brains import paintable
from training.lesions.crops import CropSampler
from training.lesions.images import evaluate
from training.lesions.recipe import PHASES, Recipe
from training.lesions.shapes import CLASSES
from training.lesions.task import LESIONS

console = Console()
BASELINE_DRAWS = 20


def lesions(
    cohort: Annotated[Path, typer.Option(help="BIDS derivative with skull-stripped brains on one grid.")],
    out: Annotated[Path, typer.Option(help="Model repository; the bundle goes to OUT/lesion-shapes/1.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split, the weights and the lesions.")] = 0,
    steps: Annotated[int, typer.Option(min=len(PHASES), help="Training steps in all.")] = Recipe().steps,
    draws: Annotated[int, typer.Option(min=1, help="Held-out images per subject and class.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    description: Annotated[str, typer.Option(help="BIDS entity desc of the scans.")] = "affinebrain",
) -> None:
    """Teach a network artificial lesion shapes on real brains, and write its bundle."""
    torch.set_num_threads(threads)
    try:
        _check_free(out)
        brains = read_cohort(cohort, description, show=True)
        split = split_subjects(brains.subjects, seed)
        recipe = Recipe(seed=seed).scaled(steps)
        outcome = _train(brains, split, recipe, draws)
        bundle = export(out, LESIONS, brains, split, recipe, outcome)
    except (CohortError, ModelError) as error:
        Console(stderr=True).print(f"error: {error}", style="bold red", soft_wrap=True, markup=False)
        raise typer.Exit(2) from error
    _report(bundle)


def _check_free(out: Path) -> None:
    target = bundle_path(out, LESIONS)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CohortError(f"--out: {target} is not empty; remove it or choose another directory")


def _train(cohort: Cohort, split: Split, recipe: Recipe, draws: int) -> Outcome:
    with console.status("finding where lesions fit"):
        train, test = paintable(cohort, split.train), paintable(cohort, split.test)
    sampler = CropSampler(train, recipe.seed, recipe.augmentation)
    with _bar() as progress:
        network = recipe.train(sampler, lambda phase: _announce(progress, phase))
    trials = evaluate(network, test, draws, recipe.seed + 1, show=True)
    with console.status("measuring baselines"):
        informed = baselines(train, test, BASELINE_DRAWS, recipe.seed + 2)
    return Outcome(network, trials, informed)


def _bar() -> Progress:
    columns = ("{task.description:>8}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[figures]}"), console=console)


def _announce(progress: Progress, phase: Phase) -> Report:
    """Open a bar for a phase; its figures are running means, since single batches are small."""
    task = progress.add_task(phase.name, total=phase.steps, figures="")
    mean = {"loss": 0.0, "right": 0.0, "weight": 0.0}

    def report(_step: int, loss: float, right: float) -> None:
        for name, value in (("loss", loss), ("right", right), ("weight", 1.0)):
            mean[name] = 0.97 * mean[name] + 0.03 * value
        figures = f"loss {mean['loss'] / mean['weight']:.3f}, right {mean['right'] / mean['weight']:.1%}"
        progress.update(task, advance=1, figures=figures)

    return report


def _report(bundle: Bundle) -> None:
    facts = bundle.manifest.evaluation
    table = Table(title=f"{bundle.label} on held-out subjects (chance {facts.chance:.1%})")
    for head in ("what", "accuracy", "95 % interval", "images"):
        table.add_column(head, justify="left" if head == "what" else "right")

    def row(name: str, value: Interval, style: str = "") -> None:
        table.add_row(
            name, f"{value.estimate:.1%}", f"{value.low:.1%} to {value.high:.1%}", str(value.n), style=style
        )

    row("network", facts.accuracy, "bold")
    for name in CLASSES:
        row(f"  {name}", facts.per_class[name])
    for name, value in facts.baselines.items():
        row(f"baseline: {name}", value)
    console.print(table)
    size = sum(path.stat().st_size for path in bundle.path.iterdir())
    console.print(f"wrote {bundle.path} ({size / 1e6:.2f} MB, digest {bundle.digest[:12]})", highlight=False)
