"""The study: `make study`, or `make study-quick` with fewer pictures.

Writes `benchmarks/results/study.json` (or `study-quick.json`), and with all pictures `docs/study.md` and its
figures.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from benchmarks.facts import machine, write
from benchmarks.study.networks import PLACES, Network
from benchmarks.study.recovery import CHANCE, Row, Task, recover, summarize, tasks
from benchmarks.study.report import write_report
from benchmarks.study.strategies import LADDER, PLAIN

SEEDS, CONTROL_SEEDS, LADDER_SEEDS, RIVAL_SEEDS = 10, 4, 1, 3
TRAINED = ("robust", "ordinary")
CONTROLS = ("shuffled", "untrained")
RIVAL = "B1, decay 1.5"


def main(quick: Annotated[bool, typer.Option("--quick", help="A few pictures only.")] = False) -> None:
    """Draw the pictures, judge them, and write what was found."""
    began = time.time()
    networks = TRAINED if quick else tuple(PLACES)
    wanted = tasks(TRAINED, (PLAIN,), range(1)) if quick else _all_tasks()
    rows = recover(wanted)
    facts = {name: Network(name).bundle for name in networks}
    figures: dict[str, Any] = {
        "machine": machine(),
        "minutes": round((time.time() - began) / 60, 1),
        "chance": CHANCE,
        "recommended": PLAIN,
        "digests": {name: bundle.digest for name, bundle in facts.items()},
        "networks": {name: b.manifest.evaluation.accuracy.model_dump() for name, b in facts.items()},
        "ladder": _summaries(rows, range(LADDER_SEEDS)),
        "many_seeds": _summaries([r for r in rows if r["strategy"] in (PLAIN, RIVAL)]),
        "pictures": rows,
    }
    write("study-quick" if quick else "study", figures)
    if not quick:
        write_report(figures)


def _all_tasks() -> list[Task]:
    return [
        *tasks(TRAINED, (PLAIN,), range(SEEDS)),
        *tasks(TRAINED, LADDER, range(LADDER_SEEDS)),
        *tasks(TRAINED, (RIVAL,), range(RIVAL_SEEDS)),
        *tasks(CONTROLS, (PLAIN,), range(CONTROL_SEEDS)),
    ]


def _summaries(rows: list[Row], seeds: range | None = None) -> dict[str, dict[str, Any]]:
    """Summarize by network and strategy, of all seeds or some."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(str(row["network"]), {}).setdefault(str(row["strategy"]), [])
        if seeds is None or row["seed"] in seeds:
            found[str(row["network"])][str(row["strategy"])].append(row)
    return {
        name: {strategy: {**summarize(own), "equal": _at_equal(own)} for strategy, own in strategies.items()}
        for name, strategies in found.items()
    }


def _at_equal(rows: list[Row]) -> dict[str, Any] | None:
    reached = [{**row, **row["equal"]} for row in rows if row["equal"]]
    return summarize(reached) if reached else None


if __name__ == "__main__":
    typer.run(main)
