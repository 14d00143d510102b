"""What each proof must show, and whether it did."""

import operator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

_RELATIONS = {"==": operator.eq, "<=": operator.le, "<": operator.lt, ">=": operator.ge}


@dataclass(frozen=True)
class Goal:
    """A figure and what it must be.

    Attributes
    ----------
    part, key : str
        Where the figure stands; dots part nested names.
    relation : str
        One of `==`, `<=`, `<`, `>=`.
    limit : object
        What it is compared with; a list is compared by its length.
    """

    part: str
    key: str
    relation: str
    limit: float

    def value(self, figures: dict[str, Any]) -> float:
        """Return the figure."""
        found: Any = figures[self.part]
        for name in self.key.split("."):
            found = found[name]
        return len(found) if isinstance(found, list) else found

    def met(self, figures: dict[str, Any]) -> bool:
        """Whether it is what it must be."""
        return bool(_RELATIONS[self.relation](self.value(figures), self.limit))


GOALS = (
    Goal("failpoints", "faults", "==", 0),
    Goal("failpoints", "not_reached", "==", 0),
    Goal("failpoints", "checkpoints_left", "==", 0),
    Goal("failpoints", "partial_files_left", "==", 0),
    Goal("kills", "faults", "==", 0),
    Goal("kills", "kills", ">=", 200),
    Goal("kills", "checkpoints_left", "==", 0),
    Goal("kills", "partial_files_left", "==", 0),
    Goal("fuzz", "requests", ">=", 100_000),
    Goal("fuzz", "forbidden", "==", 0),
    Goal("fuzz", "not_serving", "==", 0),
    Goal("fuzz", "growth_mib", "<=", 50),
    Goal("corrupt", "wrong_volumes", "==", 0),
    Goal("corrupt", "not_noticed", "==", 0),
    Goal("storage_faults", "disk_full.faults", "==", 0),
    Goal("storage_faults", "locked.faults", "==", 0),
    Goal("load", "watchers", ">=", 200),
    Goal("load", "queued", ">=", 2000),
    Goal("load", "get_job.n", ">=", 2000),
    Goal("load", "get_job.p99_ms", "<", 50),
    Goal("soak", "fast_executor.jobs", ">=", 10_000),
    Goal("soak", "fast_executor.growth_mib", "<", 50),
    Goal("soak", "fast_executor.leaked", "==", 0),
    Goal("soak", "real_worker.growth_mib_at_10000", "<", 50),
    Goal("soak", "real_worker.leaked", "==", 0),
    Goal("cancel", "by_cancel_job.steps_after_most", "<=", 1),
    Goal("cancel", "by_leaving.steps_after_most", "<=", 1),
    Goal("cancel", "stalled_readers.each_mib", "<=", 16),
)


def show(figures: dict[str, Any]) -> bool:
    """Print every figure that has a goal, missed ones marked; return whether all were met."""
    table = Table("proof", "figure", "measured", "goal", "")
    missed = False
    for goal in GOALS:
        if goal.part in figures:
            met = goal.met(figures)
            missed |= not met
            wanted, value = f"{goal.relation} {goal.limit:g}", f"{goal.value(figures):g}"
            table.add_row(goal.part, goal.key, value, wanted, "met" if met else "[bold red]MISSED[/]")
    Console().print(table)
    return not missed
