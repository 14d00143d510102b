"""What a run holds between two steps, by name: taken from it, and given to another.

What a spec determines is not in it: transforms, the scene and a latent's fixed
parts are made again from the spec and the seeds. A state is that of one volume
each, so that it does not matter with which others a volume is computed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from engine.events import ItemProgress, ItemState, State
from engine.run import Run
from engine.spec import Spec
from engine.stopping import Stop

_PENALTY = "progress.penalties."
_IMAGE, _EXTRA = "best.image", "best.extras."
# Of the watch, what is a number; the leading underscore is the attribute's own affair.
_WATCHED = {name: name.lstrip("_") for name in ("score", "step", "redirected_steps", "_idle", "_mark")}


class StateMismatch(ValueError):
    """A state does not fit the spec.

    Parameters
    ----------
    field : str
        What does not fit.
    rule : str
        What it is, and what it must be.
    """

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field} {rule}; resume with the spec that the state was taken from")
        self.field = field


def taken(run: Run) -> Iterator[ItemState]:
    """Yield the state of each volume of a run, after a step."""
    for index in range(len(run.spec.items)):
        held = {name: part.detach().cpu().clone().contiguous() for name, part in _tensors(run, index)}
        yield ItemState(held, dict(_numbers(run, index)))


def check(state: State, spec: Spec) -> None:
    """Check what a state says of the batch as a whole.

    Raises
    ------
    StateMismatch
        It is not one of this spec.
    """
    if len(state.items) != len(spec.items):
        raise StateMismatch("State.items", f"has {len(state.items)} volumes, but the spec {len(spec.items)}")
    if not 1 <= state.step < spec.steps:
        raise StateMismatch("State.step", f"is {state.step}, but must be from 1 to {spec.steps - 1}")


@torch.no_grad()
def restore(run: Run, step: int, items: Sequence[ItemState]) -> None:
    """Bring a run that has taken no step to where its volumes' states were taken.

    Parameters
    ----------
    run : Run
        It is changed in place.
    step : int
        Steps done.
    items : sequence of ItemState
        One for each of its volumes.

    Raises
    ------
    StateMismatch
        A state lacks something, has something else, or has another shape.
    """
    for index, item in enumerate(items):
        _fill_numbers(run, index, step, item.numbers)
        _make_watch(run, index)
        # What stands in the run has every tensor's name and shape, once the watch has its own.
        found = dict(_tensors(run, index))
        _same_names("tensors", item.tensors, found)
        for name, here in found.items():
            _fill(name, here, item.tensors[name])
        _set_generator(run.generators[index], item.tensors["generator"])
    run.progress = tuple(_progress(item.numbers) for item in items)
    run.steps_taken = max(int(item.numbers["steps_taken"]) for item in items)
    run.recomputed = run.recomputed or any(item.numbers["recomputed"] for item in items)


def _tensors(run: Run, index: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a volume by name; all but the generator's lie where the run has them."""
    for number, free in enumerate(run.latent.free):
        yield f"free.{number}", free[index]
        for name, value in run.slots[_place(run, number, index)].items():
            own = value if value.ndim == 0 else value[index if len(value) > 1 else 0]
            yield f"optimizer.{number}.{name}", own
    yield "generator", run.generators[index].get_state()
    yield "saliency", run.saliency[index]
    watch = run.watches[index]
    if watch.image is not None:
        yield _IMAGE, watch.image
        for name, extra in watch.extras.items():
            yield _EXTRA + name, extra


def _numbers(run: Run, index: int) -> Iterator[tuple[str, float]]:
    """Yield the numbers of a volume by name."""
    watch, progress = run.watches[index], run.progress[index]
    yield "seed", run.spec.items[index].seed
    yield "alive", bool(run.alive[index])
    for name, factor in run.balance.items():
        yield f"balance.{name}", float(factor[index])
    for attribute, name in _WATCHED.items():
        yield f"watch.{name}", getattr(watch, attribute)
    yield "watch.stopped", watch.stopped.value if watch.stopped else 0
    yield "steps_taken", run.steps_taken
    yield "recomputed", run.recomputed
    yield "progress.objective", progress.objective
    for name, penalty in progress.penalties.items():
        yield _PENALTY + name, penalty


def _fill_numbers(run: Run, index: int, step: int, numbers: Mapping[str, float]) -> None:
    # Which penalties there are shows at a step only.
    run.progress = (ItemProgress(0.0, {}),) * len(run.spec.items)
    known = {r.name for r in run.spec.regularizers} | set(run.latent.penalties())
    named = {_PENALTY + name for name in known}
    _same_names("numbers", set(numbers) - named, [name for name, _ in _numbers(run, index)])
    if numbers["seed"] != run.spec.items[index].seed:
        rule = f"is {numbers['seed']}, but the spec's is {run.spec.items[index].seed}"
        raise StateMismatch("State.items.seed", rule)
    if not 1 <= numbers["steps_taken"] <= step:
        rule = f"is {numbers['steps_taken']}, but must be from 1 to State.step, {step}"
        raise StateMismatch("State.items.steps_taken", rule)
    run.alive[index] = bool(numbers["alive"])
    for name, factor in run.balance.items():
        factor[index] = numbers[f"balance.{name}"]
    for attribute, name in _WATCHED.items():
        setattr(run.watches[index], attribute, numbers[f"watch.{name}"])
    run.watches[index].stopped = Stop(numbers["watch.stopped"]) if numbers["watch.stopped"] else None


def _make_watch(run: Run, index: int) -> None:
    """Make the best look's tensors, if there was one."""
    watch = run.watches[index]
    if watch.step:
        watch.image = torch.empty(run.spec.grid.shape)
        names = [*run.latent.extras(), *(["gradient"] if run.latent.in_place else [])]
        watch.extras = {name: torch.empty(run.spec.grid.shape) for name in names}


def _place(run: Run, number: int, index: int) -> int:
    """Return where what the optimizer moves of a volume's free numbers stands: its own, or on a GPU all's."""
    parts = len(run.moved) // len(run.latent.free)
    return number * parts + (index if parts > 1 else 0)


def _fill(name: str, here: Tensor, value: Tensor) -> None:
    if (value.shape, value.dtype) != (here.shape, here.dtype):
        is_, must = (f"{tuple(tensor.shape)} of {tensor.dtype}" for tensor in (value, here))
        raise StateMismatch(f"State.items.{name}", f"is {is_}, but must be {must}")
    here.copy_(value)


def _set_generator(generator: torch.Generator, value: Tensor) -> None:
    try:
        generator.set_state(value)
    except RuntimeError as error:
        raise StateMismatch("State.items.generator", f"is no state of a generator: {error}") from None


def _progress(numbers: Mapping[str, float]) -> ItemProgress:
    named = {name.removeprefix(_PENALTY): value for name, value in numbers.items() if _PENALTY in name}
    return ItemProgress(numbers["progress.objective"], named)


def _same_names(field: str, given: Iterable[str], wanted: Iterable[str]) -> None:
    given, wanted = set(given), set(wanted)
    if given != wanted:
        lacks, more = sorted(wanted - given), sorted(given - wanted)
        raise StateMismatch(f"State.items.{field}", f"lacks {lacks} and has {more} too many")
