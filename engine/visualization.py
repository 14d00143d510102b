"""The optimization itself."""

import time
from collections.abc import Callable, Iterator, Sequence

from torch import nn

from engine import state
from engine.batch import joint
from engine.events import Event, ItemProgress, Progress, State
from engine.network import Prepared, prepared
from engine.run import Diverged, Run
from engine.spec import Spec
from engine.stopping import Stop

__all__ = ["Diverged", "visualize"]


def visualize(
    network: nn.Module | Prepared,
    spec: Spec,
    should_stop: Callable[[], bool] = lambda: False,
    wants_state: Callable[[], bool] = lambda: False,
    resume: State | None = None,
) -> Iterator[Event]:
    """Optimize inputs until the objectives' units fire.

    The network runs up to the last layer that is read, in evaluation mode,
    without weight gradients, and is left as it was found.

    Parameters
    ----------
    network : nn.Module or Prepared
        Takes `(batch, 1, *shape)`. Prepared, it need not be made ready again.
    spec : Spec
        What to do.
    should_stop : callable
        Asked before every step; True ends the run without a result.
    wants_state : callable
        Asked after every step but the last; True yields all that a later run needs to go on from here.
    resume : State, optional
        What an earlier run of the same spec has yielded. The steps after it come out as they would have
        there: on a CPU, with as many threads, to the bit, also if the volumes were part of a larger batch.

    Yields
    ------
    Progress, Snapshot, State, Result
        A progress after each step, snapshots and states where asked for, the results last, in the batch's
        order.

    Raises
    ------
    Diverged
        A number is no longer finite.
    UnknownLayer, UnitOutOfRange
        An objective names what the network does not have.
    MissingAnatomy
        The method needs a part of the anatomy that was not given.
    StateMismatch
        The state is not one of this spec.
    """
    network = prepared(network)
    runs = [Run(network, part, first) for first, part in joint(spec, network.device)]
    first = _resumed(runs, spec, resume)
    # The time before a break counts as well.
    started = time.perf_counter() - (resume.seconds if resume else 0)
    late = False
    for step in range(first, spec.steps + 1):
        # Those that are resumed finished had only waited for others of their batch.
        if all(run.finished for run in runs):
            break
        if should_stop():
            return
        begin = time.perf_counter()
        late = bool(spec.stopping.seconds) and begin - started >= spec.stopping.seconds
        last = step == spec.steps or late
        items = _step(runs, step, last or step % spec.stopping.look_every == 0)
        yield Progress(step, spec.steps, items, time.perf_counter() - begin)
        if last or all(run.finished for run in runs):
            break
        if spec.snapshot_every and step % spec.snapshot_every == 0:
            for run in runs:
                yield from run.snapshots(step)
        if wants_state():
            held = tuple(item for run in runs for item in state.taken(run))
            yield State(step, time.perf_counter() - started, held)
    for run in runs:
        yield from run.results(Stop.TIME if late else Stop.STEPS)


def _step(runs: Sequence[Run], step: int, look: bool) -> tuple[ItemProgress, ...]:
    """Take a step with what is not finished; return how all volumes stand."""
    for run in runs:
        if not run.finished:
            run.step(step)
            if look:
                run.look(step)
    return tuple(item for run in runs for item in run.standing())


def _resumed(runs: Sequence[Run], spec: Spec, resume: State | None) -> int:
    """Bring runs to where a state was taken; return the step that comes next."""
    if resume is None:
        return 1
    state.check(resume, spec)
    for run in runs:
        state.restore(run, resume.step, resume.items[run.first : run.first + len(run.spec.items)])
    return resume.step + 1
