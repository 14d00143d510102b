"""How far an audit has come, and how long it will take."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from neurofv.audit.tasks import Task
from neurofv.client import Client
from neurofv.errors import NeurofvError
from neurofv.events import Event
from neurofv.v1 import visualization_service_pb2 as vis

_AT_LEAST_SECONDS = 5.0


@dataclass(frozen=True)
class Progress:
    """How far an audit has come.

    Attributes
    ----------
    share : float or None
        Of the cost of pictures and probes, 0 to 1; None where something else is under way.
    pictures, of : int or None
        Those that are there, and all; None likewise.
    doing : str
        What is under way.
    seconds_left : float or None
        Estimated; None while it is not known.
    """

    share: float | None
    pictures: int | None
    of: int | None
    doing: str
    seconds_left: float | None


class Meter:
    """Adds up what an audit costs, and corrects it by what was taken.

    Jobs cost what the service estimates, probes what those before have taken.

    Parameters
    ----------
    tell : callable
        Given a `Progress` whenever something has happened.
    tasks : sequence of Task
        All of the audit.
    there : int
        Pictures that are there already.
    """

    def __init__(self, tell: Callable[[Progress], object], tasks: list[Task], there: int) -> None:
        self._tell, self._there = tell, there
        self._of = sum(len(task.units) for task in tasks)
        self._costs: dict[tuple[str, str, str, str], float] = {}
        self._todo: list[Task] = []
        self._done = self._part = self._share = 0.0
        self._begun: float | None = None
        self._probes = self._probed = self._measured = 0
        self._seconds = 0.0

    def expect(self, probes: int, seconds: float | None = None) -> None:
        """Count in probes, which follow the pictures, or out; `seconds` is what one takes, if known."""
        self._probes += probes
        if seconds is not None:
            self._seconds, self._measured = seconds, 1

    def probed(self, doing: str, seconds: float | None) -> None:
        """Take note of a probe, and of what it took; None if its answer was there already."""
        self._probed += 1
        if seconds is not None:
            self._measured += 1
            self._seconds += (seconds - self._seconds) / self._measured
        self.say(doing)

    def estimate(
        self, client: Client, tasks: list[Task], request: Callable[[Task], vis.VisualizeRequest]
    ) -> None:
        """Ask what the tasks that remain will cost; one that cannot be told counts as the others."""
        self._todo = list(tasks)
        for task in tasks:
            kind = _kind(task)
            if kind not in self._costs:
                self.say(f"estimating {task.label}")
                # What stands in the way of the job itself is told when it is created.
                with suppress(NeurofvError):
                    self._costs[kind] = client.estimate(request(task)).seconds / len(task.units)
        self._begun = time.monotonic()

    def on_event(self, task: Task, event: Event) -> None:
        """Take what a job tells."""
        if isinstance(event, vis.Progress):
            self._part = self._cost(task) * event.step / max(event.steps, 1)
            self.say(task.label)

    def finish(self, task: Task) -> None:
        """Take note that a task is done."""
        self._done, self._part = self._done + self._cost(task), 0.0
        self._there += len(task.units)
        self.say(task.label)

    def say(self, doing: str) -> None:
        """Tell how things stand."""
        ahead = sum(map(self._cost, self._todo))
        done = self._done + self._part
        probing, probed = self._probes * self._seconds, self._probed * self._seconds
        left = None
        if self._begun is not None and (self._costs or not self._todo):
            elapsed = time.monotonic() - self._begun
            pace = elapsed / done if done and elapsed > _AT_LEAST_SECONDS else 1.0
            left = max(0.0, ahead - done) * pace + max(0.0, probing - probed)
        # Pictures that were there before cost as much as the mean of those ahead.
        missing = sum(len(task.units) for task in self._todo)
        before = (self._of - missing) * (ahead / missing) if missing and ahead else 0.0
        whole = ahead + before + probing
        share = (before + done + probed) / whole if whole else float(self._there >= self._of)
        # What turns out to be more than expected takes back nothing that was told.
        self._share = min(1.0, max(self._share, share))
        self._tell(Progress(self._share, self._there, self._of, doing, left))

    def _cost(self, task: Task) -> float:
        known = list(self._costs.values())
        each = self._costs.get(_kind(task), sum(known) / len(known) if known else 1.0)
        return each * len(task.units)


def _kind(task: Task) -> tuple[str, str, str, str]:
    """Return what tasks of one price share."""
    return task.units[0].layer, task.units[0].kind, task.strategy, task.control
