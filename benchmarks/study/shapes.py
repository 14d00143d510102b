"""Concept recovery: figures of every network, strategy and seed."""

from __future__ import annotations

from typing import Any

from benchmarks.study.networks import Network
from benchmarks.study.recovery import CHANCE, Row, Task, recover, summarize, tasks
from benchmarks.study.strategies import LADDER, PLAIN

Figures = dict[str, Any]
SEEDS, LADDER_SEEDS = 10, 1
RIVALS = {"B1, decay 1.5": 5, "B1, decay 1": 3}
"""Seeds of the peers' method, which takes four times as long as ours."""
FREE = ("voxels alone", "+ L2", "+ jitter", "default of neurofv")
"""Strategies that hold a picture little, for the network that has never learned."""
TRAINED = ("robust", "ordinary")
CONTROLS = ("shuffled", "untrained")


def study() -> Figures:
    """Draw and judge everything."""
    rivals = [task for name, seeds in RIVALS.items() for task in tasks(TRAINED, (name,), range(seeds))]
    unlike = [name for name in LADDER if name != "B1, decay 1"]  # one of the two is enough for controls
    return _figures(
        [
            *tasks(TRAINED + CONTROLS, (PLAIN,), range(SEEDS)),
            *rivals,
            *tasks(TRAINED, LADDER, range(LADDER_SEEDS)),
            *tasks(("shuffled",), unlike, range(LADDER_SEEDS)),
            *tasks(("untrained",), FREE, range(LADDER_SEEDS)),
        ],
        TRAINED + CONTROLS,
    )


def quick() -> Figures:
    """Draw and judge one picture of every class by the recommended strategy, of both shipped networks."""
    return _figures(tasks(TRAINED, (PLAIN,), range(1)), TRAINED)


def _figures(wanted: list[Task], names: tuple[str, ...]) -> Figures:
    rows = recover(wanted)
    bundles = {name: Network(name).bundle for name in names}
    return {
        "chance": CHANCE,
        "recommended": PLAIN,
        "digests": {name: bundle.digest for name, bundle in bundles.items()},
        "networks": {name: b.manifest.evaluation.accuracy.model_dump() for name, b in bundles.items()},
        "ladder": _summaries(rows, range(LADDER_SEEDS)),
        "many_seeds": _summaries([row for row in rows if row["strategy"] in (PLAIN, *RIVALS)]),
        "pictures": rows,
    }


def _summaries(rows: list[Row], seeds: range | None = None) -> dict[str, dict[str, Any]]:
    """Summarize by network and strategy, of all seeds or some."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        own = found.setdefault(str(row["network"]), {}).setdefault(str(row["strategy"]), [])
        if seeds is None or row["seed"] in seeds:
            own.append(row)
    return {
        name: {strategy: {**summarize(own), "equal": _at_equal(own)} for strategy, own in strategies.items()}
        for name, strategies in found.items()
    }


def _at_equal(rows: list[Row]) -> dict[str, Any] | None:
    reached = [{**row, **row["equal"]} for row in rows if row["equal"]]
    return summarize(reached) if reached else None
