"""One competitor in a process of its own: it takes a step when it is told to and says how long it took.

A process each, so that every competitor has the memory, the environment and the peak that it would have by
itself; told in turn, so that the machine's moods meet all alike.
"""

import argparse
import itertools
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median

import torch
from torch import nn

import engine
from benchmarks.peers.baselines import Run, b1, b2
from models import ZOO, Repository
from models.architectures import build

# Looks at the untransformed volume come every eight steps: that many steps hold one.
GROUP = 8
_FOREVER = 10**6
_MATRIX, _COPIED = 4096, 1 << 26


def network(name: str) -> nn.Module:
    """Return a network by name: one of the zoo's models, or an architecture with random weights."""
    torch.manual_seed(0)
    if name == "lesion-shapes":
        return Repository(ZOO).get(name, 1).network()
    return build(name).eval()


def spec(shape: tuple[int, ...], layer: str, precision: engine.Precision) -> engine.Spec:
    """Return the default method on a grid of 1 mm, on an anatomy of noise: values cost no time."""
    torch.manual_seed(1)
    grid = engine.Grid(shape, (1.0,) * len(shape))
    reference = 0.2 + 0.6 * torch.rand(shape)
    anatomy = engine.Anatomy(
        reference=reference,
        magnitude=grid.to_spectrum(reference).abs() + 1e-3,
        window=torch.ones(shape),
    )
    objective = engine.Objective((engine.Term(engine.Channel(layer, 0)),))
    return engine.Spec(
        grid, objective, anatomy=anatomy, steps=_FOREVER, snapshot_every=0, precision=precision
    )


def ours(asked: argparse.Namespace) -> Iterator[tuple[float, float]]:
    """Yield the mean seconds of a step over groups that hold one look each, and their median."""
    precision = engine.Precision[asked.precision]
    events = engine.visualize(network(asked.network), spec(asked.shape, asked.layer, precision))
    for _ in itertools.count():
        begun = time.perf_counter()
        steps = [next(events).seconds for _ in range(GROUP)]
        yield (time.perf_counter() - begun) / GROUP, median(steps)


def alone(asked: argparse.Namespace) -> Iterator[float]:
    """Yield the seconds of the prepared network's own way forward and back."""
    reader = engine.prepared(network(asked.network)).reader(
        [asked.layer], precision=engine.Precision[asked.precision]
    )
    volume = torch.rand(1, 1, *asked.shape, requires_grad=True)
    while True:
        begun = time.perf_counter()
        torch.autograd.grad(reader(volume)[asked.layer][:, 0].mean(), volume)
        yield time.perf_counter() - begun


def peer(asked: argparse.Namespace) -> Iterator[float]:
    """Yield the seconds of steps of B1 or B2, whose loops are their own."""
    begun = [0.0]

    def report() -> None:
        _answer(time.perf_counter() - begun[0])
        begun[0] = time.perf_counter()

    yield from ()
    net, bounds = network(asked.network), (0.0, 1.0)
    begun[0] = time.perf_counter()
    if asked.who == "b1":
        b1(net, asked.layer, Run(0, 0), asked.shape, bounds, 1.5, _FOREVER, report)
    else:
        b2(net, asked.layer, [Run(0, 0)], asked.shape, bounds, 1.5, _FOREVER, report=report)


def limit(_: argparse.Namespace) -> Iterator[float]:
    """Yield, in turn, the seconds of a float32 and a bfloat16 matrix product and of a copy."""
    single = torch.rand(_MATRIX, _MATRIX)
    half = single.bfloat16()
    source = torch.rand(_COPIED)
    target = torch.empty_like(source)
    jobs: tuple[Callable[[], object], ...] = (
        lambda: single @ single,
        lambda: half @ half,
        lambda: target.copy_(source),
    )
    for job in itertools.cycle(jobs):
        begun = time.perf_counter()
        job()
        yield time.perf_counter() - begun


def rates(products: float, halves: float, copies: float) -> dict[str, float]:
    """Return what `limit` measured as operations and bytes a second."""
    return {
        "FLOAT32": 2 * _MATRIX**3 / products,
        "BFLOAT16": 2 * _MATRIX**3 / halves,
        "bytes": 2 * 4 * _COPIED / copies,
    }


def _answer(seconds: float | tuple[float, float]) -> None:
    """Say how long a step took and how much memory there was at most, and wait for the next word."""
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mean, step = seconds if isinstance(seconds, tuple) else (seconds, seconds)
    print(json.dumps({"seconds": mean, "without_look": step, "peak": peak}), flush=True)
    if sys.stdin.readline().strip() != "go":
        sys.exit(0)


def main() -> None:
    """Take steps when told to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("who", choices=["ours", "alone", "b1", "b2", "limit"])
    parser.add_argument("--network", default="")
    parser.add_argument("--layer", default="")
    parser.add_argument("--shape", type=lambda text: tuple(map(int, text.split("x"))), default=())
    parser.add_argument("--precision", default="FLOAT32")
    asked = parser.parse_args()
    engine.Grid((4, 4, 4), (1.0, 1.0, 1.0)).to_spectrum(torch.rand(4, 4, 4))
    # What is in memory before anything was computed.
    _answer(0.0)
    kinds = {"ours": ours, "alone": alone, "b1": peer, "b2": peer, "limit": limit}
    for seconds in kinds[asked.who](asked):
        _answer(seconds)


if __name__ == "__main__":
    main()
