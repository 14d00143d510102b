"""`python -m training growth`: teach a network that one region of the brain is larger."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
import typer
from pydantic import JsonValue
from torch import nn

from training import options
from training.cohort import Cohort, CohortError, Split, read_cohort, split_subjects
from training.console import (
    announce,
    bundle_name,
    check_free,
    errors_told,
    keep_run,
    print_figures,
    progress_bar,
)
from training.evaluate import evaluate
from training.export import Outcome, export
from training.fit import Phase
from training.recipe import Recipe
from training.whole.growth import Region
from training.whole.growth_task import growth_task
from training.whole.plants import CLASSES, Planting, PlantSampler, Window, planted_images, total_intensity
from training.whole.volumes import Augmentation

PHASES = (Phase("fit", steps=1500, size=16, edge=0, rate=1e-3),)
ROBUST_PHASES = (Phase("robust", steps=400, size=16, edge=0, rate=5e-4, frozen_norm=True, budget=0.5),)
AUGMENTATION = Augmentation(shift=0)


def growth(
    cohort: options.Cohort,
    out: options.Out,
    description: options.Description = "affinebrain",
    name: options.Name = "",
    center: Annotated[
        tuple[float, float, float], typer.Option(help="Region's centre, mm.")
    ] = Region().center,
    radius: Annotated[float, typer.Option(help="Region's radius, mm.")] = Region().radius,
    reach: Annotated[float, typer.Option(help="Where nothing moves any more, mm.")] = Region().reach,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split, the weights and the plants.")] = 0,
    steps: options.Steps = 0,
    draws: options.Draws = 10,
    threads: options.Threads = 1,
    robust: options.Robust = False,
    shuffled: options.Shuffled = False,
    untrained: options.Untrained = False,
) -> None:
    """Teach a network that one region is 8 to 15 % larger, planted in real brains, and write its bundle.

    An interrupted run goes on where it was when it is called again in the same way.
    """
    torch.set_num_threads(threads)
    chosen = {"robust": robust, "shuffled": shuffled, "untrained": untrained}
    with errors_told():
        planting = Planting(_region(center, radius, reach))
        recipe = _recipe(planting, seed, **chosen).scaled(steps)
        brains = read_cohort(cohort, description, show=True)
        window = Window.around(planting.region, brains)
        small = window.cohort(brains)
        control = "shuffled labels" if shuffled else "random weights" if untrained else ""
        task = growth_task(name or bundle_name("growth", **chosen), planting, small, control)
        check_free(out, task)
        split = split_subjects(brains.subjects, seed)
        checkpoint = keep_run(out, task, brains, recipe)
        train = brains.volumes(split.train)
        sampler = PlantSampler(train, brains.affine, planting, window, seed, AUGMENTATION, shuffled)
        with progress_bar() as bar:
            network = recipe.train(task, sampler, partial(announce, bar), checkpoint)
        outcome = _outcome(network, brains, split, planting, window, draws, seed)
        bundle = export(out, task, small, split, recipe, outcome)
        checkpoint.remove()
    print_figures(bundle)


def _recipe(planting: Planting, seed: int, robust: bool, shuffled: bool, untrained: bool) -> Recipe:
    phases = () if untrained else PHASES + ROBUST_PHASES * robust
    labels = "dealt out anew within each batch" if shuffled else "true"
    notes: dict[str, JsonValue] = {
        "augmentation": AUGMENTATION.facts(),
        "planting": planting.facts(),
        "labels": labels,
    }
    return Recipe(phases, seed=seed, notes=notes)


def _region(center: tuple[float, float, float], radius: float, reach: float) -> Region:
    try:
        return Region(center, radius, reach)
    except ValueError as error:
        raise CohortError(f"--radius, --reach: {error}") from error


def _outcome(
    network: nn.Module,
    cohort: Cohort,
    split: Split,
    planting: Planting,
    window: Window,
    draws: int,
    seed: int,
) -> Outcome:
    images = planted_images(cohort, split.test, planting, window, draws, seed + 1)
    trials = evaluate(network, images, CLASSES, len(split.test) * draws * len(CLASSES), show=True)
    intensity = total_intensity(cohort, split, planting, window, draws, seed + 2)
    return Outcome(network, trials, {"total intensity": intensity})
