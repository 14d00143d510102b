"""Competitors step by step in turn."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from statistics import median

import torch
from rich.progress import Progress
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.competitor import network, rates
from models.layers import layer_table
from service.jobs.plan import MARGIN
from service.volumes.canvas import FADE_MM
from service.worker.process import ENVIRONMENT


@dataclass
class Competitor:
    """A process that takes steps.

    Parameters
    ----------
    name : str
        As in the results.
    arguments : sequence of str
        Of `benchmarks.speed.competitor`.
    """

    name: str
    arguments: Sequence[str]
    seconds: list[float] = field(default_factory=list)
    without_look: list[float] = field(default_factory=list)
    base: int = 0
    peak: int = 0

    def start(self, stack: ExitStack) -> None:
        """Start the process; the peers' have a plain environment, as a user would have."""
        own = {} if self.arguments[0] in ("b1", "b2") else ENVIRONMENT
        command = [sys.executable, "-m", "benchmarks.speed.competitor", *self.arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        plain = {
            name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "OMP_"))
        }
        self._process = subprocess.Popen(command, text=True, env=plain | own, **pipes)  # type: ignore[call-overload]
        stack.callback(self._stop)
        self.base = self._hear()["peak"]

    def step(self, count: bool = True) -> float:
        """Let it take a step; return its seconds."""
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        heard = self._hear()
        self.peak = heard["peak"]
        if count:
            self.seconds.append(heard["seconds"])
            self.without_look.append(heard["without_look"])
        return float(heard["seconds"])

    def _hear(self) -> dict[str, int]:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} has died")
        return json.loads(line)  # type: ignore[no-any-return]

    def _stop(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def found(self) -> dict[str, float]:
        """Return the median step and the memory beyond what importing took."""
        return {
            "ms": round(1000 * median(self.seconds), 2),
            "without_look_ms": round(1000 * median(self.without_look), 2),
            "lowest_ms": round(1000 * min(self.seconds), 2),
            "highest_ms": round(1000 * max(self.seconds), 2),
            "peak_mb": round((self.peak - self.base) / 1e6),
        }


def race(title: str, entrants: Sequence[Competitor], rounds: int) -> dict[str, dict[str, float]]:
    """Let competitors step in turn, after one step each that does not count."""
    with ExitStack() as stack, Progress(transient=True) as progress:
        task = progress.add_task(title, total=(rounds + 1) * len(entrants))
        for entrant in entrants:
            entrant.start(stack)
        for number in range(rounds + 1):
            for entrant in entrants:
                entrant.step(count=number > 0)
                progress.advance(task)
    return {entrant.name: entrant.found() for entrant in entrants}


def physical_limit(rounds: int = 5) -> dict[str, float]:
    """Return operations a second of matrix products, and bytes a second of a copy, both read and written."""
    with ExitStack() as stack:
        machine = Competitor("limit", ["limit"])
        machine.start(stack)
        times = [machine.step() for _ in range(3 * (rounds + 1))][3:]
    return rates(*(median(times[kind::3]) for kind in range(3)))


def work(name: str, layer: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Return the operations and the least bytes of one way forward and back up to a layer.

    Operations are torch's count, gradients on the input alone. Bytes: every convolution's and pooling's
    output is written and read once on the way forward, its gradient once on the way back.
    """
    net = network(name).to("meta").requires_grad_(False)
    volume = torch.empty(1, 1, *shape, device="meta", requires_grad=True)
    moved, answer = 0, volume

    def note(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal moved, answer
        if isinstance(module, torch.nn.Conv3d | torch.nn.MaxPool3d | torch.nn.AvgPool3d):
            moved += 4 * output.nbytes
        if module is net.get_submodule(layer):
            answer = output
            raise _Reached

    for module in net.modules():
        module.register_forward_hook(note)
    with FlopCounterMode(display=False) as counter:
        with suppress(_Reached):
            net(volume)
        answer.sum().backward()
        return float(counter.get_total_flops()), float(moved)


class _Reached(Exception):
    """The layer has answered."""


def default_canvas(name: str, layer: str, shape: tuple[int, ...], voxel_mm: float) -> tuple[int, ...]:
    """Return the edges that the service would choose for a local layer."""
    table = layer_table(network(name), shape, (voxel_mm,) * 3)
    (field_of,) = (row.receptive_field for row in table if row.name == layer)
    return tuple(-int(-(MARGIN * size + 2 * FADE_MM / voxel_mm) // 1) for size in field_of)
