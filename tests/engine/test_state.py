"""A run that is broken off and resumed ends as if it had not been: to the bit."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest

import pytest
import torch
from torch import Tensor, nn

from engine import (
    L1,
    L2,
    ActivationCeiling,
    Adam,
    Anatomy,
    BrainMask,
    Channel,
    Decay,
    Deformation,
    Diversity,
    Event,
    FeatureDistance,
    Fourier,
    GaussianBlur,
    GradientBlur,
    Grid,
    ImageDistance,
    IntensityClip,
    Item,
    ItemState,
    LaplacianPyramid,
    Maco,
    Neuron,
    Noise,
    Objective,
    Patch,
    Progress,
    ReferenceBrain,
    Result,
    Schedule,
    Sgd,
    Snapshot,
    Spec,
    SpectrumMatch,
    State,
    StateMismatch,
    Stop,
    Stopping,
    Term,
    TotalVariation,
    Transforms,
    Voxels,
    visualize,
)
from engine.optimizer import OPTIMIZERS
from engine.parameterization import PARAMETERIZATIONS
from engine.regularizer import REGULARIZERS
from tests.engine.stages import image

SHAPE, STEPS = (8, 11), 7
LEVELS = torch.tensor([0.0, 0.5, 1.0])
SETS = [
    (TotalVariation(), L1(), SpectrumMatch()),
    (L2(), GaussianBlur(3.0), Decay(0.1)),
    (IntensityClip(0.1, 0.9), BrainMask(), GradientBlur(3.0)),
    (ImageDistance(), FeatureDistance("0")),
    (Diversity("0"), ActivationCeiling()),
]


@dataclass(frozen=True)
class Case:
    """A network and a spec, both made anew each time."""

    spec: Callable[[], Spec]
    network: Callable[[], nn.Module]

    def events(self, resume: State | None = None, states: bool = False, **changes: object) -> Iterator[Event]:
        spec = replace(self.spec(), **changes)
        return visualize(self.network(), spec, wants_state=lambda: states, resume=resume)


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1))


def saturating() -> nn.Module:
    """Channel 0 has no slope beyond 1.2, and no ReLU that could be opened."""
    body = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Hardtanh(-1.2, 1.2), nn.AvgPool2d(2))
    nn.init.constant_(body[0].weight, 2.0)
    return body


def shut() -> nn.Module:
    """Channel 0 opens after a while, channel 1 never does: its weights are zero."""
    body = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.AvgPool2d(2))
    with torch.no_grad():
        body[0].weight.copy_(torch.tensor([1.0, 0.0])[:, None, None, None])
        body[0].bias.copy_(torch.tensor([-0.97, -1.0]))
    return body


def case(
    units: tuple = (Channel("2", 0),),
    seeds: tuple[int, ...] = (5,),
    net: Callable[[], nn.Module] = network,
    **changes: object,
) -> Case:
    def spec() -> Spec:
        grid = Grid(SHAPE, (2.0, 1.5))
        real = LEVELS, torch.tensor([-0.1, 0.0, 0.01])
        first, *rest = [
            Item(Objective((Term(unit, real=real),)), seed) for unit, seed in zip(units, seeds, strict=True)
        ]
        mask = torch.zeros(SHAPE, dtype=torch.bool)
        mask[1:-1, 2:-2] = True
        anatomy = Anatomy(
            reference=image(grid, 9),
            mask=mask,
            magnitude=1 / (1 + grid.frequencies.float()),
            intensities=(LEVELS, torch.tensor([0.1, 0.5, 0.9])),
            brains=torch.stack([image(grid, seed) for seed in (1, 2, 3)]),
        )
        method = {
            "start": ReferenceBrain(0.1),
            "transforms": Transforms(jitter_mm=2, noise=0.02, gamma=0.1, crop_last=0.8, copies=2),
            "stopping": Stopping(look_every=2),
            "regularizers": (L2(0.1),),
            "steps": STEPS,
            "snapshot_every": 2,
        }
        batch = {"objective": first.objective, "seed": first.seed, "batch": tuple(rest)}
        return Spec(grid=grid, anatomy=anatomy, **{**batch, **method, **changes})

    return Case(spec, net)


TWO = {"units": (Channel("2", 0), Neuron("2", 1)), "seeds": (5, 6)}
SAMPLES = {"units": (Channel("2", 0),) * 3, "seeds": (5, 6, 7)}
PLAIN = Transforms(jitter_mm=0, rotation_degrees=0, scale=0)
CASES = {
    **{
        f"{name}-{optimizer}": case(parameterization=kind(), optimizer=OPTIMIZERS[optimizer](), **TWO)
        for name, kind in PARAMETERIZATIONS.items()
        for optimizer in OPTIMIZERS
    },
    **{
        "+".join(r.name for r in chosen): case(regularizers=chosen, schedule=Schedule.COSINE, **SAMPLES)
        for chosen in SETS
    },
    "noise": case(parameterization=Maco(), start=Noise(0.3), **SAMPLES),
    "no momentum": case(parameterization=Voxels(), optimizer=Sgd(10.0, momentum=0)),
    "bias and flips": case(transforms=Transforms(flip=0.5, bias_field=0.3, gain=0.1, copies=3), **SAMPLES),
    # The first volume ends early, in a batch that is computed jointly and in one that is not.
    "early, joint": case(stopping=Stopping(look_every=1, activation=0.0), **TWO),
    "early, single": case(
        stopping=Stopping(look_every=1, activation=0.0), parameterization=LaplacianPyramid(), **TWO
    ),
    "plateau": case(stopping=Stopping(look_every=1, plateau_looks=3, plateau_gain=0.5), steps=12, **TWO),
    "worse": case(stopping=Stopping(look_every=1), parameterization=Deformation(), optimizer=Sgd(1e4), **TWO),
    "worse patch": case(
        stopping=Stopping(look_every=1), parameterization=Patch(6.0, 3.0), optimizer=Sgd(1e3), **TWO
    ),
    # Below 0 all the way: a mark at nought would never be passed.
    "climbing": case(
        stopping=Stopping(look_every=1, plateau_looks=2, plateau_gain=0.0),
        transforms=PLAIN,
        regularizers=(TotalVariation(30.0),),
        **TWO,
    ),
    "saturated": case(
        (Channel("2", 0),),
        net=saturating,
        steps=14,
        parameterization=Voxels(),
        transforms=PLAIN,
        optimizer=Adam(1.0),
        regularizers=(),
    ),
    "dead": case(
        (Channel("1", 0), Channel("1", 1)),
        (5, 6),
        shut,
        steps=12,
        transforms=PLAIN,
        parameterization=Voxels(),
        regularizers=(),
    ),
}


def bits(event: Event) -> tuple:
    """Everything that an event says, but how long it took."""
    if isinstance(event, Progress):
        return event.step, event.steps, event.items
    assert isinstance(event, Snapshot)
    said: tuple = type(event), event.step, event.item, event.image.numpy().tobytes()
    if isinstance(event, Result):
        extras = {name: extra.numpy().tobytes() for name, extra in event.extras.items()}
        said += extras, event.stopped, event.redirected_steps, event.recomputed
    return said


def parted(events: Iterator[Event]) -> tuple[list[tuple], dict[int, tuple[State, int]]]:
    """Return the events, and by step each state with how many events came before it."""
    said, states = [], {}
    for event in events:
        if isinstance(event, State):
            states[event.step] = event, len(said)
        else:
            said.append(bits(event))
    return said, states


@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_goes_on_to_the_bit(name: str) -> None:
    chosen = CASES[name]
    whole = [bits(event) for event in chosen.events()]
    said, states = parted(chosen.events(states=True))
    assert said == whole, "taking states changed the run"
    last = max(said_[0] for said_ in said if not isinstance(said_[0], type))
    assert list(states) == list(range(1, last)), "a state after each step but the last"
    for state, before in states.values():
        assert [bits(event) for event in chosen.events(state)] == whole[before:], state.step


def test_the_cases_hold_every_part_of_the_method() -> None:
    specs = [chosen.spec() for chosen in CASES.values()]
    assert {spec.parameterization.name for spec in specs} == set(PARAMETERIZATIONS)
    assert {spec.optimizer.name for spec in specs} == set(OPTIMIZERS)
    assert {r.name for spec in specs for r in spec.regularizers} == set(REGULARIZERS)


def test_the_cases_end_as_they_are_meant_to() -> None:
    ends = {
        name: [event.stopped for event in CASES[name].events() if isinstance(event, Result)]
        for name in ("early, joint", "early, single", "plateau", "saturated", "dead")
    }
    assert ends["early, joint"] == ends["early, single"] == [Stop.ACTIVATION, Stop.STEPS]
    assert Stop.PLATEAU in ends["plateau"]
    assert ends["saturated"] == [Stop.STEPS]
    assert ends["dead"] == [Stop.STEPS, Stop.DEAD]


@pytest.mark.parametrize("name", ["fourier-adam", "patch-nadam", "maco-sgd", "early, single"])
def test_a_batch_that_is_computed_in_one_goes_on_as_well(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where the optimizer moves all volumes' numbers as one tensor."""
    for module in ("itemwise", "batch", "transform"):
        monkeypatch.setattr(f"engine.{module}.separate", lambda device: False)
    chosen = CASES[name]
    whole, states = parted(chosen.events(states=True))
    for state, before in states.values():
        assert [bits(event) for event in chosen.events(state)] == whole[before:], state.step


@pytest.mark.parametrize("name", ["fourier-adam", "laplacian_pyramid-nadam", "patch-sgd", "early, joint"])
def test_a_volume_goes_on_alone(name: str) -> None:
    chosen = CASES[name]
    _, states = parted(chosen.events(states=True))
    for number, item in enumerate(chosen.spec().items):
        alone = {"objective": item.objective, "seed": item.seed, "batch": ()}
        whole = [bits(event) for event in chosen.events(**alone)]
        for state, _ in states.values():
            own = replace(state, items=(state.items[number],))
            after = [bits(event) for event in chosen.events(own, **alone)]
            # One that had ended before has its result left to tell.
            assert after == whole[-max(len(after), 1) :]
            assert len(after) == 1 or after[0][0] == state.step + 1


def _changed(state: State, number: int, **changes: object) -> State:
    items = list(state.items)
    items[number] = replace(items[number], **changes)
    return replace(state, items=tuple(items))


def _mutations(state: State) -> Iterator[tuple[str, State]]:
    """Yield the state with one thing of one volume at nought, and the thing's name."""
    for number, item in enumerate(state.items):
        for name, tensor in item.tensors.items():
            if tensor.any():
                zeroed = {**item.tensors, name: torch.zeros_like(tensor)}
                yield name, _changed(state, number, tensors=zeroed)
        for name, value in item.numbers.items():
            if value:
                yield name, _changed(state, number, numbers={**item.numbers, name: type(value)(0)})


def _kind(name: str) -> str:
    return "progress.penalties" if name.startswith("progress.penalties.") else name


def _differs(chosen: Case, state: State, expected: list[tuple]) -> bool:
    """Whether a run from a state is refused or tells anything else; the first difference ends it."""
    try:
        return any(one != other for one, other in zip_longest(map(bits, chosen.events(state)), expected))
    except (StateMismatch, ArithmeticError):
        return True


def test_nothing_in_a_state_could_be_left_out() -> None:
    """Whatever is set to nought is noticed or changes what comes, in one of the cases at least.

    But `recomputed`, of which the next test tells.
    """
    names, found = set(), set()
    # The last cases are those in which the rarest things tell.
    for chosen in reversed(CASES.values()):
        spec = chosen.spec()
        whole, states = parted(chosen.events(states=True))
        for state, before in list(states.values())[1::4]:
            for name, mutated in _mutations(state):
                key = spec.parameterization.name, spec.optimizer.name, name
                key = key if name.startswith(("free", "optimizer")) else (_kind(name),)
                names.add(key)
                if key not in found and _differs(chosen, mutated, whole[before:]):
                    found.add(key)
    assert names - found == set()
    seen = {name for *_, name in names}
    assert {"alive", "generator", "saliency", "best.image", "best.extras.jacobian"} <= seen
    assert {"watch.idle", "watch.mark", "watch.redirected_steps", "balance.feature_distance"} <= seen
    assert {"optimizer.0.mu_product", "optimizer.0.momentum_buffer", "optimizer.0.step"} <= seen


def deep() -> nn.Module:
    torch.manual_seed(3)
    blocks = [nn.Sequential(nn.Conv2d(width, 4, 3, padding=1), nn.ReLU()) for width in (1, 4, 4, 4)]
    return nn.Sequential(*blocks)


def test_a_result_tells_of_activations_that_were_recomputed_before_the_break() -> None:
    chosen = case((Channel("3.0", 0),), net=deep)
    _, states = parted(chosen.events(states=True, memory=1))
    *_, result = chosen.events(states[3][0])
    assert isinstance(result, Result)
    assert result.recomputed
    assert not list(chosen.events())[-1].recomputed


def _dropped(item: ItemState) -> Iterator[tuple[str, dict[str, object]]]:
    for name in item.tensors:
        yield name, {"tensors": {key: value for key, value in item.tensors.items() if key != name}}
    for name in item.numbers:
        yield name, {"numbers": {key: value for key, value in item.numbers.items() if key != name}}


@pytest.mark.parametrize("name", ["patch-nadam", "deformation-adam", "image_distance+feature_distance"])
def test_a_state_that_lacks_something_is_refused(name: str) -> None:
    """But the penalties of the step, which change at the next one."""
    chosen = CASES[name]
    _, states = parted(chosen.events(states=True))
    state, _ = states[4]
    for number, item in enumerate(state.items):
        for lost, changes in _dropped(item):
            if not lost.startswith("progress.penalties."):
                with pytest.raises(StateMismatch, match=lost.replace(".", r"\.")):
                    next(chosen.events(_changed(state, number, **changes)))


def test_the_penalties_of_a_volume_that_has_ended_are_told_again() -> None:
    chosen = CASES["early, joint"]
    whole, states = parted(chosen.events(states=True))
    state, before = states[4]
    (name,) = [name for name in state.items[0].numbers if name.startswith("progress.penalties.")]
    numbers = {key: value for key, value in state.items[0].numbers.items() if key != name}
    assert _differs(chosen, _changed(state, 0, numbers=numbers), whole[before:])


def _with(item: ItemState, name: str, tensor: Tensor) -> dict[str, object]:
    return {"tensors": {**item.tensors, name: tensor}}


def test_a_state_of_another_spec_is_refused() -> None:
    chosen = CASES["fourier-adam"]
    _, states = parted(chosen.events(states=True))
    state, _ = states[3]
    first = state.items[0]
    free, wide = first.tensors["free.0"], torch.zeros(3, 3)
    wrong = {
        "State.items has 1 volumes, but the spec 2": replace(state, items=(first,)),
        "State.items.seed is 6, but the spec's is 5": replace(state, items=state.items[::-1]),
        "State.step is 7, but must be from 1 to 6": replace(state, step=STEPS),
        "State.step is 0": replace(state, step=0),
        r"free.0 is \(3, 3\)": _changed(state, 0, **_with(first, "free.0", wide)),
        "torch.float64, but must be": _changed(state, 0, **_with(first, "free.0", free.double())),
        r"has \['more'\] too many": _changed(state, 0, **_with(first, "more", wide)),
        "no state of a generator": _changed(
            state, 0, **_with(first, "generator", torch.zeros_like(first.tensors["generator"]))
        ),
    }
    for words, state_ in wrong.items():
        with pytest.raises(StateMismatch, match=words):
            next(chosen.events(state_))
    for other in ("voxels-adam", "fourier-sgd", "patch-adam", "l2+gaussian_blur+decay"):
        with pytest.raises(StateMismatch, match="resume with the spec"):
            next(CASES[other].events(state))


def test_the_time_before_a_break_counts() -> None:
    chosen = case(parameterization=Fourier(), steps=1000, stopping=Stopping(seconds=100.0))
    state = next(event for event in chosen.events(states=True) if isinstance(event, State))
    assert 0 < state.seconds < 100
    *_, result = chosen.events(replace(state, seconds=100.0))
    assert (result.stopped, result.step) == (Stop.TIME, state.step + 1)


def test_states_are_copies_on_the_cpu_and_plain() -> None:
    _, states = parted(CASES["fourier-adam"].events(states=True))
    for state, _ in states.values():
        for item in state.items:
            assert all(type(number) in (int, float, bool) for number in item.numbers.values())
            for tensor in item.tensors.values():
                assert tensor.device.type == "cpu"
                assert tensor.is_contiguous()
                assert not tensor.requires_grad
                assert tensor.untyped_storage().nbytes() == tensor.nbytes
