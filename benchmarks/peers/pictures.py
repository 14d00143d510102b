"""Pictures of the same units by every method, made once and kept."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn

import engine
from benchmarks.peers.baselines import Run, b0, b2
from models import ZOO, Bundle, read_bundle
from service.real_images import quantiles, spread

EDGE = 32
SHAPE = (EDGE,) * 3
UNITS, SEEDS = 8, 3
LAYERS = {
    "first": "blocks.0.conv",
    "middle": "blocks.1.conv",
    "last": "blocks.3.conv",
    "logits": "classifier",
}
KEPT = Path(__file__).parent / ".pictures"


@dataclass(frozen=True)
class Subject:
    """The shipped network, the box in the middle of its reference brain, and the units that are looked at.

    The defaults were chosen while watching the study's units. The fresh ones, with
    another seed, played no part in that (the logits are the same: there are no
    others).
    """

    bundle: Bundle
    network: nn.Module
    fresh: bool = False

    @classmethod
    def load(cls, fresh: bool = False) -> "Subject":
        """Load the shipped bundle whose pictures show shapes."""
        bundle = read_bundle(ZOO / "lesion-shapes-robust" / "1")
        return cls(bundle, bundle.network(), fresh)

    @property
    def seeds(self) -> range:
        """Seeds of the pictures of each unit."""
        return range(100, 101) if self.fresh else range(SEEDS)

    @cached_property
    def grid(self) -> engine.Grid:
        """The grid of every picture."""
        return engine.Grid(SHAPE, self.bundle.manifest.input.voxel_size_mm)

    @property
    def bounds(self) -> tuple[float, float]:
        """The intensity range, model units."""
        return self.bundle.manifest.input.intensity_range

    @cached_property
    def reference(self) -> Tensor:
        """The mean brain in the box."""
        volume = np.clip(self.bundle.reference().get_fdata(dtype=np.float32), *self.bounds)
        inside = np.argwhere(self.bundle.prior().mask().numpy())
        first = ((inside.min(0) + inside.max(0)) // 2) - EDGE // 2
        return torch.from_numpy(volume[tuple(slice(n, n + EDGE) for n in first)].copy())

    def units(self, layer: str) -> list[int]:
        """Return the channels that are looked at, drawn by seed; fresh ones are those drawn next."""
        count = self.bundle.layer(layer).channels
        drawn = np.random.default_rng(2026).choice(count, size=min(UNITS, count), replace=False)
        others = np.setdiff1d(np.arange(count), drawn)
        if self.fresh and len(others):
            drawn = np.random.default_rng(2027).choice(others, size=UNITS, replace=False)
        return sorted(int(channel) for channel in drawn)

    def runs(self, layer: str, most: int = SEEDS) -> list[Run]:
        """Return every picture of a layer, from at most so many seeds."""
        return [Run(channel, seed) for channel in self.units(layer) for seed in self.seeds[:most]]

    def objective(self, layer: str, channel: int) -> engine.Objective:
        """Return the objective as the service makes it."""
        kind = engine.ClassLogit if layer == LAYERS["logits"] else engine.Channel
        unit = kind(layer, channel)
        prior = self.bundle.prior()
        known = quantiles(prior, unit)
        real = None if known is None else (tuple(known[1]), tuple(known[0]))
        return engine.Objective((engine.Term(unit, spread=spread(prior, unit), real=real),))


def neurofv(subject: Subject, layer: str, report: Callable[[], None], **choices: object) -> Tensor:
    """Run the default of neurofv, with what `choices` change, on the whole box."""
    prior = subject.bundle.prior()
    first, *rest = [
        engine.Item(subject.objective(layer, run.channel), run.seed) for run in subject.runs(layer)
    ]
    spec = engine.Spec(
        grid=subject.grid,
        objective=first.objective,
        intensity_range=subject.bounds,
        anatomy=engine.Anatomy(
            reference=subject.reference, magnitude=prior.magnitude(subject.grid.fourier_shape)
        ),
        batch=tuple(rest),
        seed=first.seed,
        snapshot_every=0,
        **choices,  # type: ignore[arg-type]
    )
    images = []
    for event in engine.visualize(subject.network, spec):
        if isinstance(event, engine.Progress):
            report()
        elif isinstance(event, engine.Result):
            images.append(event.image)
    return torch.stack(images)


def _baseline(method: Callable[..., Tensor], most: int = SEEDS, **settings: object) -> Callable[..., Tensor]:
    def run(subject: Subject, layer: str, report: Callable[[], None]) -> Tensor:
        # B2's pictures are B1's; without the network's tail they are the same, sooner.
        return method(
            subject.network,
            layer,
            subject.runs(layer, most),
            SHAPE,
            subject.bounds,
            truncate=True,
            report=report,
            **settings,
        )

    return run


METHODS: dict[str, Callable[..., Tensor]] = {
    "neurofv": neurofv,
    "neurofv, decay 1.0": partial(neurofv, parameterization=engine.Fourier(1.0)),
    "B1 and B2, decay 1.5": _baseline(b2, decay=1.5),
    "B1 and B2, decay 1.0": _baseline(b2, decay=1.0),
    "B0": _baseline(b0, most=1),
}
# Its 1500 steps a picture take three times as long as the others': one seed, the logits alone.
_LOGITS_ALONE = ("B0",)


def tasks_of(methods: Sequence[str]) -> list[tuple[str, str]]:
    """Return every method with each layer that it is run on."""
    return [
        (method, layer)
        for method in methods
        for layer in LAYERS.values()
        if method not in _LOGITS_ALONE or layer == LAYERS["logits"]
    ]


def make(subject: Subject, methods: Sequence[str], again: bool = False) -> dict[tuple[str, str], Tensor]:
    """Make the pictures of some methods and every layer, or take those that are kept.

    Parameters
    ----------
    subject : Subject
        Whose units.
    methods : sequence of str
        Names in `METHODS`.
    again : bool
        Whether kept pictures are made again.

    Returns
    -------
    dict of (method, layer) to Tensor
        `(runs, *SHAPE)`, in the order of `Subject.runs`.
    """
    KEPT.mkdir(exist_ok=True)
    tasks = tasks_of(methods)
    missing = [task for task in tasks if again or not _file(*task, subject.fresh).exists()]
    with Progress() as progress, ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        bar = progress.add_task("pictures", total=len(tasks), completed=len(tasks) - len(missing))
        for future in as_completed([pool.submit(_make, *task, subject.fresh) for task in missing]):
            progress.console.print(f"made {future.result()}")
            progress.advance(bar)
    return {task: torch.load(_file(*task, subject.fresh)) for task in tasks}


def _make(method: str, layer: str, fresh: bool = False) -> str:
    torch.set_num_threads(1)
    images = METHODS[method](Subject.load(fresh), layer, lambda: None)
    partial_file = _file(method, layer, fresh).with_suffix(".part")
    torch.save(images, partial_file)
    partial_file.rename(_file(method, layer, fresh))
    return f"{method}: {layer}"


def _file(method: str, layer: str, fresh: bool = False) -> Path:
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{method} {layer}{' fresh' * fresh}")
    return KEPT / f"{name}.pt"
