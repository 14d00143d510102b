"""Plant shortcuts, train networks on them, and ask who notices: `make bench-shortcuts`.

What was made is kept in `benchmarks/shortcuts/.kept`, so that an interrupted run goes on; `--fresh` makes all
of it again.
"""

from __future__ import annotations

import shutil
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.facts import write
from benchmarks.shortcuts.asking import asked
from benchmarks.shortcuts.cohorts import Case
from benchmarks.shortcuts.judging import judged
from benchmarks.shortcuts.plants import SIGNALS
from benchmarks.shortcuts.report import write_page
from benchmarks.study.parallel import mapped as spread

KEPT = Path(__file__).parent / ".kept"
DEVELOPMENT = (0, 1)
"""Seeds of the networks that the rule grew on, and that limits are fixed on."""
FIRST, SECOND = 10, 100
"""First seed of the networks that figures come from, and how far a second clean network's is from it."""


def calibrating() -> list[Case]:
    """Return the networks that limits are fixed on: every shortcut, and every clean twin."""
    return [Case(kind, seed) for seed in DEVELOPMENT for kind in SIGNALS]


def examined(seeds: int) -> list[Case]:
    """Return the networks that figures come from: each shortcut, and two clean twins of each kind.

    They take turns, so that an interrupted run has some of both.
    """
    found: list[Case] = []
    for seed in range(FIRST, FIRST + seeds):
        cheats = [Case(kind, seed) for kind, each in SIGNALS.items() if each.shortcut]
        clean = [
            Case(kind, seed + first)
            for first in (0, SECOND)
            for kind, each in SIGNALS.items()
            if not each.shortcut
        ]
        turns = zip_longest(cheats, clean)
        found += [case for turn in turns for case in turn if case is not None]
    return found


def main(
    cohort: Annotated[Path, typer.Option(help="Real brains, a BIDS derivative.")] = Path("../shared/cohort"),
    seeds: Annotated[
        int, typer.Option(min=1, help="Networks of each shortcut; of each clean twin twice as many.")
    ] = 4,
    fresh: Annotated[bool, typer.Option(help="Train everything again.")] = False,
    only_kept: Annotated[bool, typer.Option(help="Judge what an interrupted run left.")] = False,
) -> None:
    """Train, ask, judge, and write the page."""
    if fresh:
        shutil.rmtree(KEPT, ignore_errors=True)
    first, second = calibrating(), examined(seeds)
    if only_kept:
        first, second = ([case for case in cases if _is_kept(case)] for cases in (first, second))
    found = spread(partial(asked, cohort, KEPT), [*first, *second], "networks")
    settled, judged_on = found[: len(first)], found[len(first) :]
    maps = {case.name: row for case, (_, row) in zip(second, judged_on, strict=True)}
    figures = judged(
        [row for row, _ in settled], [row for row, _ in judged_on], maps, [row for _, row in settled]
    )
    write("shortcuts", figures)
    write_page(figures)


def _is_kept(case: Case) -> bool:
    return all((KEPT / each / f"{case.name}.json").exists() for each in ("probes", "maps"))


if __name__ == "__main__":
    typer.run(main)
