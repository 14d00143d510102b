"""All proofs of reliability at full size: `make soak`.

Writes `benchmarks/results/reliability.json` and the README's table; `--long` kills 1 000 times, not 200.
"""

import json
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from benchmarks.facts import README, RESULTS, into_readme, write
from benchmarks.reliability import cancel, corrupt, fuzz, goals, kills, load, soak, storage_faults
from benchmarks.reliability.report import table

KILLS, KILLS_LONG = 200, 1000


def main(
    parts: Annotated[list[str] | None, typer.Argument(help="Which proofs; all without any.")] = None,
    long: Annotated[bool, typer.Option(help="Kill 1 000 times.")] = False,
) -> None:
    """Run proofs, print each figure beside its goal, and write them."""
    proofs: dict[str, Callable[[], dict[str, object]]] = {
        "failpoints": kills.at_failpoints,
        "kills": lambda: kills.at_random(KILLS_LONG if long else KILLS),
        "fuzz": fuzz.measure,
        "corrupt": corrupt.measure,
        "storage_faults": storage_faults.measure,
        "load": load.measure,
        "soak": soak.measure,
        "cancel": cancel.measure,
    }
    if unknown := set(parts or ()) - set(proofs):
        raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(proofs)}")
    path = RESULTS / "reliability.json"
    figures = json.loads(path.read_text()) if path.exists() and parts else {}
    figures.pop("machine", None)
    for name in parts or proofs:
        figures[name] = proofs[name]()
        # At once: a long run that is broken off keeps what it has measured.
        write("reliability", figures)
    README.write_text(into_readme(README.read_text(), "reliability", table(figures)))
    sys.exit(0 if goals.show(figures) else 1)


if __name__ == "__main__":
    typer.run(main)
