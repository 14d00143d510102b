"""`python -m training lesions`: teach a network artificial lesion shapes."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from models.manifest import NAME_PATTERN
from training import options
from training.checkpoint import Checkpoint
from training.cohort import Cohort, CohortError, Split, read_cohort, split_subjects
from training.console import (
    announce,
    bundle_name,
    check_free,
    console,
    errors_told,
    keep_run,
    print_figures,
    progress_bar,
)
from training.export import Outcome, export
from training.lesions.baselines import baselines
from training.lesions.brains import paintable
from training.lesions.catalog import Catalog, read_catalog
from training.lesions.crops import CropSampler
from training.lesions.images import evaluate
from training.lesions.recipe import AUGMENTATION, lesion_recipe
from training.lesions.task import LESIONS, lesion_task
from training.recipe import Recipe
from training.task import Task

BASELINE_DRAWS = 20


def lesions(
    cohort: options.Cohort,
    out: options.Out,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split, the weights and the lesions.")] = 0,
    shapes: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of lesion masks (.nii, .nii.gz): one more class, named after it. Repeatable."
        ),
    ] = None,
    robust: options.Robust = False,
    shuffled: options.Shuffled = False,
    untrained: options.Untrained = False,
    name: options.Name = "",
    steps: options.Steps = 0,
    draws: options.Draws = 5,
    threads: options.Threads = 1,
    description: options.Description = "affinebrain",
) -> None:
    """Teach a network artificial lesion shapes on real brains, and write its bundle.

    An interrupted run goes on where it was when it is called again in the same way.
    """
    torch.set_num_threads(threads)
    chosen = {"robust": robust, "shuffled": shuffled, "untrained": untrained}
    with errors_told():
        catalog = _read_catalog(shapes or [])
        recipe = lesion_recipe(seed, **chosen, catalog=catalog).scaled(steps)
        task = lesion_task(catalog)
        task = replace(task, name=name or _default_name(catalog, chosen))
        check_free(out, task)
        brains = read_cohort(cohort, description, show=True)
        split = split_subjects(brains.subjects, seed)
        checkpoint = keep_run(out, task, brains, recipe, **_identity(catalog))
        outcome = _train(task, brains, split, recipe, draws, shuffled, catalog, checkpoint)
        bundle = export(out, task, brains, split, recipe, outcome)
        checkpoint.remove()
    print_figures(bundle)


def _read_catalog(folders: list[Path]) -> Catalog:
    catalog = read_catalog(folders, show=True)
    for folder in catalog.folders:
        left_out = f"; {folder.found - folder.used} too long" if folder.used < folder.found else ""
        console.print(
            f"{folder.name}: {folder.used} of {folder.found} masks used{left_out}; license: {folder.license}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    return catalog


def _default_name(catalog: Catalog, chosen: dict[str, bool]) -> str:
    name = "-".join([bundle_name(LESIONS.name, **chosen), *(folder.name for folder in catalog.folders)])
    if not re.match(NAME_PATTERN, name):
        raise CohortError(f"--shapes: the bundle's name {name!r} is too long; give a shorter one with --name")
    return name


def _identity(catalog: Catalog) -> dict[str, str]:
    """Tell runs with real masks apart; a run without them is what it was before there were any."""
    return {"masks": catalog.digest()} if catalog.folders else {}


def _train(
    task: Task,
    cohort: Cohort,
    split: Split,
    recipe: Recipe,
    draws: int,
    shuffled: bool,
    catalog: Catalog,
    checkpoint: Checkpoint,
) -> Outcome:
    with console.status("finding where lesions fit"):
        train, test = paintable(cohort, split.train), paintable(cohort, split.test)
    sampler = CropSampler(train, recipe.seed, AUGMENTATION, shuffled, catalog)
    with progress_bar() as progress:
        network = recipe.train(task, sampler, partial(announce, progress), checkpoint)
    trials = evaluate(network, test, draws, recipe.seed + 1, show=True, catalog=catalog)
    with console.status("measuring baselines"):
        informed = baselines(train, test, BASELINE_DRAWS, recipe.seed + 2, catalog)
    return Outcome(network, trials, informed)
