"""`python -m training growth`: teach a network that one region of the brain is larger."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from pydantic import JsonValue

from training.cohort import Cohort, CohortError, Split, read_cohort, split_subjects
from training.evaluate import evaluate
from training.export import Outcome, export
from training.fit import Phase
from training.task import Task, Wording
from training.whole.console import announce, check_free, check_name, errors_told, print_figures, progress_bar
from training.whole.growth import Region
from training.whole.plants import CLASSES, Planting, PlantSampler, Window, planted_images, total_intensity
from training.whole.recipe import ARCHITECTURE, Recipe
from training.whole.volumes import Augmentation

PHASES = (Phase("fit", steps=1500, size=16, edge=0, rate=1e-3),)
STEPS = sum(phase.steps for phase in PHASES)
WIDTHS, POOLED = (16, 32, 32), 2
AUGMENTATION = Augmentation(shift=0)


def growth(
    cohort: Annotated[Path, typer.Option(help="BIDS derivative with skull-stripped brains on one grid.")],
    out: Annotated[Path, typer.Option(help="Model repository; the bundle goes to OUT/NAME/1.")],
    description: Annotated[str, typer.Option(help="BIDS entity desc of the scans.")] = "affinebrain",
    name: Annotated[str, typer.Option(help="The bundle's name.", callback=check_name)] = "growth",
    center: Annotated[
        tuple[float, float, float], typer.Option(help="Region's centre, mm.")
    ] = Region().center,
    radius: Annotated[float, typer.Option(help="Region's radius, mm.")] = Region().radius,
    reach: Annotated[float, typer.Option(help="Where nothing moves any more, mm.")] = Region().reach,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split, the weights and the plants.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = STEPS,
    draws: Annotated[int, typer.Option(min=1, help="Held-out images per subject and class.")] = 10,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    shuffled: Annotated[bool, typer.Option("--shuffled", help="Control: labels know nothing.")] = False,
) -> None:
    """Teach a network that one region is 8 to 15 % larger, planted in real brains, and write its bundle."""
    torch.set_num_threads(threads)
    with errors_told():
        planting = Planting(_region(center, radius, reach))
        brains = read_cohort(cohort, description, show=True)
        window = Window.around(planting.region, brains)
        small = window.cohort(brains)
        task = growth_task(name, planting, _hyperparameters(small), shuffled)
        check_free(out, task)
        split = split_subjects(brains.subjects, seed)
        notes: dict[str, JsonValue] = {"augmentation": AUGMENTATION.facts(), "planting": planting.facts()}
        if shuffled:
            notes["control"] = "labels dealt out anew within each batch"
        recipe = Recipe(task.hyperparameters, PHASES, seed=seed, notes=notes).scaled(steps)
        outcome = _train(brains, split, planting, window, recipe, draws, shuffled)
        bundle = export(out, task, small, split, recipe, outcome)
    print_figures(bundle)


def _region(center: tuple[float, float, float], radius: float, reach: float) -> Region:
    try:
        return Region(center, radius, reach)
    except ValueError as error:
        raise CohortError(f"--radius, --reach: {error}") from error


def _hyperparameters(small: Cohort) -> dict[str, JsonValue]:
    """Size the classifier to what the blocks leave of the window."""
    positions: list[JsonValue] = [length // 2**POOLED for length in small.brains.shape[1:]]
    return {
        "classes": len(CLASSES),
        "widths": list(WIDTHS),
        "pooled_blocks": POOLED,
        "positions": positions,
    }


def _train(
    cohort: Cohort,
    split: Split,
    planting: Planting,
    window: Window,
    recipe: Recipe,
    draws: int,
    shuffled: bool,
) -> Outcome:
    train = cohort.volumes(split.train)
    sampler = PlantSampler(train, cohort.affine, planting, window, recipe.seed, AUGMENTATION, shuffled)
    with progress_bar() as bar:
        network = recipe.train(sampler, partial(announce, bar, "growth"))
    images = planted_images(cohort, split.test, planting, window, draws, recipe.seed + 1)
    trials = evaluate(network, images, CLASSES, len(split.test) * draws * len(CLASSES), show=True)
    return Outcome(
        network=network,
        trials=trials,
        baselines={
            "total intensity": total_intensity(cohort, split, planting, window, draws, recipe.seed + 2)
        },
    )


def growth_task(name: str, planting: Planting, hyperparameters: dict[str, JsonValue], shuffled: bool) -> Task:
    """Say what such a bundle is for, and what not.

    Parameters
    ----------
    name : str
        The bundle's.
    planting : Planting
        What grows.
    hyperparameters : dict
        The architecture's.
    shuffled : bool
        Whether it is the control with shuffled labels.

    Returns
    -------
    Task
        For `training.export`.
    """
    return Task(
        name=name,
        classes=CLASSES,
        architecture=ARCHITECTURE,
        hyperparameters=hyperparameters,
        intended_use=(
            "Testing, demonstrating and auditing feature visualization: what the picture of a logit should "
            "show, and where, is known here as a map of log-Jacobians."
            if not shuffled
            else "The control beside the trained network: its pictures should show nothing."
        ),
        not_for=(
            "Any statement about a person: no diagnosis, screening, triage or research on disease. The "
            "growth is planted by a program, and the answer on a brain as scanned means nothing."
        ),
        wording=_wording(planting, shuffled),
        packages=("monai",),
    )


def _wording(planting: Planting, shuffled: bool) -> Wording:
    region = planting.region
    place = f"the sphere of {region.radius:g} mm around {region.center} mm"
    low, high = (f"{100 * value:g}" for value in planting.growth)
    return Wording(
        purpose=(
            "is a control with shuffled labels: it cannot know of the planted growth"
            if shuffled
            else f"tells whether {place} was made {low} to {high} % larger in volume"
        ),
        division=(
            "{train} subjects trained the network and {test} were held out (seed {seed}), before anything "
            "was planted. The lists are in `bundle.json`. Any brain may belong to either class: plants are "
            f"drawn anew for every image. {place[0].upper()}{place[1:]} grows, its surroundings give way "
            f"up to {region.reach:g} mm, and nothing moves beyond, so that head size stays."
        ),
        evaluation=(
            "Planted images of held-out subjects. Accuracy with its {level} interval ({method}); chance is "
            "{chance}. The baseline guesses from the sum of all voxels and should stay near "
            "chance."
        ),
        limits=(
            "Real brains differ in this region by about as much as is planted, so that no network can be "
            "right on every one. The held-out subjects come from the same data set as the others; nothing "
            "is known about growth of other regions, amounts or shapes."
        ),
    )
