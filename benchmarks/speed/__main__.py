"""Speed of a step, of a run and of the service: `make bench-speed`.

Writes `benchmarks/results/speed.json`, the README's table and the figure in docs/images.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence

import torch

from benchmarks.facts import README, RESULTS, into_readme, write
from benchmarks.speed import climb, estimates, linear, streams
from benchmarks.speed.race import Competitor, default_canvas, physical_limit, race, work
from benchmarks.speed.report import table
from models import ZOO, Repository
from service.worker.process import ENVIRONMENT

FULL, CUBE = (160, 192, 160), (96, 96, 96)
ROUNDS = 5
Entrant = tuple[str, str, tuple[int, ...], str]


def entrants(network: str, layer: str, chosen: Sequence[Entrant]) -> list[Competitor]:
    """Return competitors from what they are called, who they are, their volume and their numbers."""
    common = ["--network", network, "--layer", layer, "--precision"]
    return [
        Competitor(name, [who, *common, precision, "--shape", "x".join(map(str, shape))])
        for name, who, shape, precision in chosen
    ]


def steps() -> dict[str, dict[str, object]]:
    """Return every case: a network, a layer, and the competitors on it."""
    lesions = Repository(ZOO).get("lesion-shapes", 1)
    whole = lesions.manifest.input.shape
    edge = default_canvas("lesion-shapes", "blocks.3.conv", whole, lesions.manifest.input.voxel_size_mm[0])
    found: dict[str, dict[str, object]] = {}
    for title, network, layer, shape, canvas in (
        ("SFCN logits, 160x192x160", "sfcn", "classifier", FULL, None),
        ("SFCN second block, 160x192x160", "sfcn", "blocks.1.conv", FULL, _canvas("blocks.1.conv")),
        ("SFCN first block, 160x192x160", "sfcn", "blocks.0.conv", FULL, _canvas("blocks.0.conv")),
        ("SFCN logits, 96x96x96", "sfcn", "classifier", CUBE, None),
        ("lesion-shapes logits, 91x109x91", "lesion-shapes", "classifier", whole, edge),
    ):
        chosen: list[Entrant] = [
            ("B1", "b1", shape, "FLOAT32"),
            ("B2", "b2", shape, "FLOAT32"),
            ("neurofv", "ours", shape, "FLOAT32"),
            ("network alone", "alone", shape, "FLOAT32"),
            ("neurofv bfloat16", "ours", shape, "BFLOAT16"),
            ("network alone bfloat16", "alone", shape, "BFLOAT16"),
        ]
        if canvas is not None:
            chosen.append(("neurofv, canvas", "ours", canvas, "FLOAT32"))
        operations, moved = work(network, layer, shape)
        found[title] = {
            "canvas": canvas,
            "operations": operations,
            "bytes": moved,
            "entrants": race(title, entrants(network, layer, chosen), ROUNDS),
        }
    return found


def _canvas(layer: str) -> tuple[int, ...]:
    return default_canvas("sfcn", layer, FULL, 1.0)


def main() -> None:
    """Measure all, or the parts that are named, and write."""
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        # As the service's worker runs.
        command = [sys.executable, "-m", "benchmarks.speed", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | ENVIRONMENT)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    parts: dict[str, Callable[[], object]] = {
        "limit": physical_limit,
        "steps": steps,
        "service": streams.measure,
        "estimate": estimates.measure,
        "growth": linear.measure,
        "to_b1": climb.time_to_b1,
        "precision": climb.precisions,
        "compile": climb.compiled,
    }
    path = RESULTS / "speed.json"
    figures = json.loads(path.read_text()) if path.exists() and sys.argv[1:] else {}
    figures.pop("machine", None)
    for name in sys.argv[1:] or parts:
        figures[name] = parts[name]()
        # At once: a long run that is broken off keeps what it has measured.
        write("speed", figures)
    linear.draw(figures["growth"])
    README.write_text(into_readme(README.read_text(), "speed", table(figures)))


if __name__ == "__main__":
    main()
