"""The study: `make study`, or `make study-quick` with fewer pictures.

Writes `benchmarks/results/study.json` (or `study-quick.json`), and with all pictures `docs/study.md` and its
figures.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.facts import machine, write
from benchmarks.study import exemplars, growth, report, sex, shapes
from training.cohort import read_cohort

Figures = dict[str, Any]


def main(
    cohort: Annotated[Path, typer.Option(help="BIDS derivative that the networks were trained on.")] = Path(
        "../shared/cohort"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="A few pictures only; needs no cohort.")] = False,
) -> None:
    """Draw the pictures, judge them, and write what was found."""
    began = time.time()
    figures = {"shapes": shapes.quick(), "growth": growth.quick()} if quick else _all(cohort)
    figures |= {"machine": machine(), "minutes": round((time.time() - began) / 60, 1)}
    write("study-quick" if quick else "study", figures)
    if quick:
        _check(figures)
    else:
        report.write_report(figures)


def _all(root: Path) -> Figures:
    found = {"shapes": shapes.study()}
    affine = read_cohort(root, "affinebrain", show=True)
    found["exemplars"] = {name: exemplars.study(name, affine) for name in shapes.TRAINED}
    found["growth"] = growth.study(affine)
    found["sex"] = sex.study(root)
    return found


def _check(figures: Figures) -> None:
    """End with 1 if what the study found no longer holds: for pipelines."""
    right = figures["shapes"]["many_seeds"]["robust"][figures["shapes"]["recommended"]]["right"]
    planted = [found["correlation"] for found in figures["growth"]["ladder"][growth.RECOMMENDED].values()]
    if right < 4 or min(planted) < 0.6:
        raise SystemExit(f"below the study: {right} of 5 shapes named, correlations {planted} with the plant")


if __name__ == "__main__":
    typer.run(main)
