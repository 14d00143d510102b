"""The study: `make study`, or `make study-quick` with fewer pictures.

Writes `benchmarks/results/study.json` (or `study-quick.json`), and with all pictures `docs/study.md` and its
figures.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.facts import RESULTS, machine, write
from benchmarks.study import exemplars, growth, report, sex, shapes
from training.cohort import read_cohort

Figures = dict[str, Any]
PARTS = ("shapes", "exemplars", "growth", "sex")


def main(
    cohort: Annotated[Path, typer.Option(help="BIDS derivative that the networks were trained on.")] = Path(
        "../shared/cohort"
    ),
    part: Annotated[
        list[str] | None, typer.Option(help=f"Do this part anew, keep the others: {', '.join(PARTS)}.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few pictures only; needs no cohort.")] = False,
) -> None:
    """Draw the pictures, judge them, and write what was found."""
    if quick:
        began = time.time()
        figures = {"shapes": shapes.quick(), "growth": growth.quick()}
        write("study-quick", {**figures, "minutes": round((time.time() - began) / 60, 1)})
        _check(figures)
        return
    wanted = part or list(PARTS)
    if unknown := set(wanted) - set(PARTS):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: choose among {', '.join(PARTS)}")
    kept = RESULTS / "study.json"
    figures = json.loads(kept.read_text()) if part else {}
    figures |= {name: _study(name, cohort) for name in wanted}
    figures["machine"] = machine()
    write("study", figures)
    report.write_report(figures)


def _study(part: str, root: Path) -> Figures:
    if part == "shapes":
        return shapes.study()
    if part == "sex":
        return sex.study(root)
    affine = read_cohort(root, "affinebrain", show=True)
    if part == "growth":
        return growth.study(affine)
    return {name: exemplars.study(name, affine) for name in shapes.TRAINED}


def _check(figures: Figures) -> None:
    """End with 1 if what the study found no longer holds: for pipelines."""
    found = figures["shapes"]["many_seeds"]
    right = {name: found[name][figures["shapes"]["recommended"]]["right"] for name in shapes.TRAINED}
    planted = [judged["correlation"] for judged in figures["growth"]["ladder"][growth.RECOMMENDED].values()]
    if right["robust"] < 4 or right["ordinary"] < 3 or min(planted) < 0.6:
        raise SystemExit(f"below the study: of 5 shapes named {right}, correlations {planted} with the plant")


if __name__ == "__main__":
    typer.run(main)
