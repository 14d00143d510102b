"""`python -m training sex`: a label of the participants' table, cross-validated."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from pydantic import JsonValue

from models.architectures import IMPORTED, REGISTRY
from training import options
from training.checkpoint import Checkpoint
from training.cohort import Cohort, Split, read_cohort
from training.console import (
    announce,
    bundle_name,
    check_free,
    errors_told,
    keep_run,
    print_figures,
    progress_bar,
)
from training.export import Outcome, export
from training.fit import Phase
from training.folds import stratified_folds
from training.participants import Labels, read_labels
from training.recipe import Recipe
from training.task import Task, Wording
from training.whole.crossvalidation import Fold, Labelled, network_answers, train_fold, volume_answers
from training.whole.volumes import Augmentation, coarse, framed

PHASES = (Phase("fit", steps=600, size=8, edge=0, rate=3e-3),)
ROBUST_PHASES = (Phase("robust", steps=100, size=8, edge=0, rate=1e-3, frozen_norm=True, budget=1.0),)
ARCHITECTURES = sorted(REGISTRY.keys() - {IMPORTED})


def _check_architecture(name: str) -> str:
    if name not in ARCHITECTURES:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(ARCHITECTURES)}")
    return name


def sex(
    cohort: options.Cohort,
    out: options.Out,
    description: options.Description = "rigidbrain",
    column: Annotated[str, typer.Option(help="Column of participants.tsv with two values.")] = "sex",
    name: options.Name = "",
    folds: Annotated[int, typer.Option(help="Folds of the cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the folds, the weights and the batches.")] = 0,
    steps: options.Steps = 0,
    architecture: Annotated[
        str, typer.Option(help=f"One of {', '.join(ARCHITECTURES)}.", callback=_check_architecture)
    ] = "volume-net",
    threads: options.Threads = 1,
    robust: options.Robust = False,
    shuffled: options.Shuffled = False,
    untrained: options.Untrained = False,
) -> None:
    """Teach a network sex, or another label with two classes, and write its bundle with honest figures.

    An interrupted run goes on where it was when it is called again in the same way.
    """
    torch.set_num_threads(threads)
    chosen = {"robust": robust, "shuffled": shuffled, "untrained": untrained}
    recipe = _recipe(seed, folds, **chosen).scaled(steps)
    with errors_told():
        labels = read_labels(cohort, column)
        name = name or _name(column, description, architecture, chosen)
        task = sex_task(name, labels, description, shuffled, untrained)
        check_free(out, task)
        brains = read_cohort(cohort, description, show=True)
        if shuffled:
            labels = replace(labels, codes=np.random.default_rng((seed, 1)).permutation(labels.codes))
        splits = stratified_folds(brains.subjects, labels, folds, seed)
        labelled = Labelled(coarse(framed(brains)), labels)
        task = replace(task, **_network(architecture, labelled.cohort))
        checkpoints = _checkpoints(out, task, labelled, splits, recipe)
        trained = _train(task, labelled, splits, recipe, checkpoints)
        bundle = export(out, task, labelled.cohort, splits[-1], recipe, _outcome(brains, labels, trained))
        for checkpoint in checkpoints:
            checkpoint.remove()
    print_figures(bundle)


def _name(column: str, description: str, architecture: str, chosen: dict[str, bool]) -> str:
    parts = [column.lower(), description.removesuffix("brain").lower()]
    parts += [architecture] if architecture != "volume-net" else []
    return bundle_name("-".join(parts), **chosen)


def _network(architecture: str, cohort: Cohort) -> dict[str, Any]:
    """Say which network of two classes reads a cohort: with the sizes that the architecture suggests."""
    hyperparameters: dict[str, JsonValue] = {"classes": 2}
    if architecture == "volume-net":
        hyperparameters |= {"widths": [8, 16, 32, 64], "pooled_blocks": 3}
    if architecture.startswith("ukb"):
        hyperparameters["shape"] = list(cohort.brains.shape[1:])
    return {"architecture": architecture, "hyperparameters": hyperparameters}


def _checkpoints(
    out: Path, task: Task, labelled: Labelled, splits: list[Split], recipe: Recipe
) -> list[Checkpoint]:
    return [
        keep_run(
            out,
            task,
            labelled.cohort,
            recipe,
            f"fold-{number}",
            labels=labelled.labels.codes.tolist(),
            held_out=split.test,
        )
        for number, split in enumerate(splits, 1)
    ]


def _train(
    task: Task, labelled: Labelled, splits: list[Split], recipe: Recipe, checkpoints: list[Checkpoint]
) -> list[Fold]:
    with progress_bar() as bar:
        return [
            train_fold(
                task, labelled, split, recipe, partial(announce, bar, where=f"fold {number}"), checkpoint
            )
            for number, (split, checkpoint) in enumerate(zip(splits, checkpoints, strict=True), 1)
        ]


def _recipe(seed: int, folds: int, robust: bool, shuffled: bool, untrained: bool) -> Recipe:
    phases = () if untrained else PHASES + ROBUST_PHASES * robust
    return Recipe(phases, seed=seed, notes=_notes(folds, shuffled, untrained))


def _notes(folds: int, shuffled: bool, untrained: bool) -> dict[str, JsonValue]:
    notes: dict[str, JsonValue] = {"folds": folds, "augmentation": Augmentation().facts()}
    if shuffled:
        notes["control"] = "labels dealt out anew among the subjects"
    if untrained:
        notes["control"] = "weights left random" + (", labels dealt out anew" if shuffled else "")
    return notes


def _outcome(brains: Cohort, labels: Labels, folds: list[Fold]) -> Outcome:
    found = network_answers(folds)
    alone = volume_answers(brains, labels, [fold.split for fold in folds])
    return Outcome(
        network=folds[-1].network,
        trials=folds[-1].trials,
        baselines={"brain volume": alone.accuracy()},
        accuracy=found.accuracy(),
        per_class=found.per_class(labels.classes),
        figures={**found.figures("network"), **alone.figures("brain volume")},
        chance=max(labels.counts().values()) / len(labels.codes),
    )


def sex_task(name: str, labels: Labels, description: str, shuffled: bool, untrained: bool) -> Task:
    """Say what such a bundle is for, and what not.

    Parameters
    ----------
    name : str
        The bundle's.
    labels : Labels
        The classes and their members.
    description : str
        BIDS entity `desc` of the scans.
    shuffled, untrained : bool
        Which control it is, if any.

    Returns
    -------
    Task
        For `training.export`.
    """
    # Braces would be taken for places to fill in.
    members = " and ".join(
        f"{count} {member.translate({ord('{'): '(', ord('}'): ')'})}"
        for member, count in labels.counts().items()
    )
    control = " and ".join(
        words for given, words in ((shuffled, "shuffled labels"), (untrained, "random weights")) if given
    )
    return Task(
        name=name,
        classes=labels.classes,
        architecture="volume-net",
        hyperparameters={"classes": 2},
        intended_use=(
            "Testing, demonstrating and auditing feature visualization on a network of real anatomy"
            + (", beside the trained network as what must show nothing." if control else ".")
        ),
        not_for=(
            "Any statement about a person. It says nothing about identity, ability or health, does not "
            "measure how the brains of the classes differ, and must not sort, select or describe people. "
            "Its pictures show what this network uses, which may be head size, age, scanner or chance."
        ),
        wording=_wording(labels, members, description, control),
        packages=("monai", "scikit-learn"),
    )


def _wording(labels: Labels, members: str, description: str, control: str) -> Wording:
    purpose = f"was fitted to the column `{labels.column}` of a cohort's participants ({members})"
    if control:
        purpose = f"is a control with {control}: nothing taught it the column `{labels.column}`"
    return Wording(
        purpose=purpose,
        division=(
            f"Scans `desc-{description}`, averaged over 2 x 2 x 2 voxels. Classes: {members}, as the table "
            "says; nothing is known about how it was asked. Each subject was held out once (folds with equal "
            "shares of the classes, seed {seed}), and each fold has a network of its own. The weights here "
            "are the last fold's: {train} subjects trained them and {test} did not. The lists are in "
            "`bundle.json`."
        ),
        evaluation=(
            "Cross-validated: accuracies, AUC and intervals come from all folds, so they describe the recipe "
            "and not these weights alone. The quantiles of logits come from the last fold's held-out "
            "subjects. Accuracy with its {level} interval ({method}); always naming the larger class would "
            "reach {chance}. Brain volume alone is the baseline: the volume of the skull-stripped brain as "
            "it lies in the scan, cut halfway between the classes' means in the training subjects."
        ),
        limits=(
            "An AUC no better than that of brain volume is no sign that the network saw anything but size. "
            "The intervals take the subjects as drawn at random and the folds' networks as independent, "
            "which they are not quite. All subjects come from one data set: elsewhere, and at other ages, "
            "the figures can be much worse. Nothing was done against confounding by age or diagnosis."
        ),
        images="subjects",
    )
