"""What the command says: results on stdout, progress and errors on stderr."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import isfinite
from statistics import fmean
from types import TracebackType
from typing import Self

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from neurofv.errors import InvalidRequest, NeurofvError
from neurofv.events import Event
from neurofv.v1 import visualization_service_pb2 as vis

# Where no terminal limits the width, tables are written in full.
_WIDTH = None if sys.stdout.isatty() else 160
out = Console(highlight=False, width=_WIDTH)
err = Console(stderr=True, highlight=False)

_LEVELS = "▁▂▃▄▅▆▇█"

CANCELLED = "cancelled; the server stops within one step"

# The library names its arguments, the command its options.
_OPTIONS = {
    "class_name": "--class",
    "position_mm": "--point",
    "canvas_mm": "--canvas",
    "center_mm": "--center",
    "regularizers": "--regularizer",
    "transforms": "--transform",
    "stopping": "--stop",
    "real_images": "--real",
    "path": "--output",
    "model": "MODEL",
    "states": "--state",
    "job": "JOB",
}


@contextmanager
def reporting(interrupted: Callable[[], str] = lambda: CANCELLED) -> Iterator[None]:
    """Turn failures within the block into one readable line and an exit code.

    1 for a failure of the server or of a file, 2 for wrong usage, 130 for Ctrl-C.

    Parameters
    ----------
    interrupted : callable, optional
        Returns what is said after Ctrl-C; by default that the job is cancelled.
    """
    try:
        yield
    except InvalidRequest as error:
        given = "is missing" if error.value is None else f"{error.value!r}"
        raise _failure(f"{_option(error.field)} {given}: {error.remedy}", 2) from None
    except NeurofvError as error:
        raise _failure(str(error), 1) from None
    except OSError as error:
        raise _failure(f"{error.filename or 'a file'}: {error.strerror or error}", 1) from None
    except KeyboardInterrupt:
        raise _failure(interrupted(), 130) from None


def warn(message: str) -> None:
    """Say something that does not end the command."""
    err.print(message, style="yellow", markup=False, soft_wrap=True)


def _option(field: str) -> str:
    """Return an argument's or a field's name in the words of the command."""
    argument, _, rest = field.removeprefix("request.").partition(".")
    return f"{_OPTIONS.get(argument, '--' + argument.replace('_', '-'))} {rest}".strip()


def _failure(message: str, code: int) -> typer.Exit:
    err.print(f"error: {message}" if code != 130 else message, style="red", markup=False, soft_wrap=True)
    return typer.Exit(code)


class _Course:
    """How a run stands: one number, however many volumes there are, and its curve so far."""

    def __init__(self) -> None:
        self._steps: list[float] = []

    def take(self, event: vis.Progress) -> str:
        """Return what is said after a step."""
        each = [event.objective, *(item.objective for item in event.batch)]
        self._steps.append(fmean(each))
        text = f"objective {self._steps[-1]:.2f}"
        if event.batch:
            text = f"mean {text} of {len(each)} volumes"
        return f"{text} {sparkline(self._steps)}" if "utf" in err.encoding.lower() else text


def sparkline(values: Sequence[float], width: int = 16) -> str:
    """Return a curve of one line: the means of as many equal parts of the values as there is room for."""
    edges = [len(values) * part // width for part in range(width + 1)] if len(values) > width else None
    parts = [fmean(values[a:b]) for a, b in pairwise(edges)] if edges else list(values)
    finite = [part for part in parts if isfinite(part)]
    if not finite:
        return ""
    low, span = min(finite), max(finite) - min(finite)
    top = len(_LEVELS) - 1
    return "".join(
        _LEVELS[round(top * (part - low) / span) if span else 0] if isfinite(part) else " " for part in parts
    )


def _state(event: vis.StateChanged) -> str:
    state = vis.JobState.Name(event.state).removeprefix("JOB_STATE_").lower()
    if event.attempt > 1 or event.from_step:
        return f"{state} again, from step {event.from_step}"
    return state


class Display:
    """Progress bars while visualizations run; use it in a `with` statement.

    Parameters
    ----------
    several : int
        How many will be followed; with more than one, a bar shows them all together.
    """

    def __init__(self, several: int = 1) -> None:
        self._several = several
        self._bars = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=err,
        )
        self._overall: TaskID | None = None

    def __enter__(self) -> Self:
        if self._several > 1:
            self._overall = self._bars.add_task(f"all {self._several}", total=None, state="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def follow(self, label: str) -> Callable[[Event], None]:
        """Return what is to be called with the events of a visualization, to show it as a bar."""
        task = self._bars.add_task(escape(label), total=None, state="", visible=False)
        course = _Course()

        def on_event(event: Event) -> None:
            match event:
                case vis.Accepted():
                    # Not earlier: a request that is refused leaves no bar behind.
                    self._bars.start()
                    self._bars.update(task, total=event.request.steps, visible=True)
                    if self._overall is not None:
                        self._bars.update(self._overall, total=event.request.steps * self._several)
                case vis.StateChanged():
                    self._bars.update(task, state=_state(event))
                case vis.Progress():
                    self._bars.update(task, completed=event.step, state=course.take(event))
                    if self._overall is not None:
                        self._bars.advance(self._overall)

        return on_event
