"""The study as a page: every number comes from `benchmarks/results/study.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch

from benchmarks.study.matcher import match
from benchmarks.study.networks import Network
from benchmarks.study.recovery import KEPT, picture_name
from benchmarks.study.strategies import LADDER, PLAIN
from training.lesions.shapes import SHAPES

mpl.use("Agg")
from matplotlib import pyplot as plt

DOCS = Path(__file__).parents[2] / "docs"
SHOWN = (
    "voxels alone",
    "Fourier, decay 1.5, transforms",
    "default of neurofv",
    "quiet",
    PLAIN,
    "B1, decay 1.5",
)
"""Strategies that the figures show."""


def write_report(figures: dict[str, Any]) -> None:
    """Write `docs/study.md` and its figures.

    Parameters
    ----------
    figures : dict
        What `benchmarks/results/study.json` holds.
    """
    for name in ("robust", "ordinary"):
        draw(name, DOCS / "images" / f"study-{name}.png")
    (DOCS / "study.md").write_text(page(figures), encoding="utf-8")


def page(figures: dict[str, Any]) -> str:
    """Return the page, Markdown."""
    prose = (Path(__file__).parent / "study.md").read_text(encoding="utf-8")
    parts = {
        "recommended": figures["recommended"],
        "accuracies": _accuracies(figures),
        "many_seeds": _many_seeds(figures["many_seeds"]),
        "by_shape": _by_shape(figures),
        "ladder_robust": _ladder(figures["ladder"]["robust"]),
        "ladder_ordinary": _ladder(figures["ladder"]["ordinary"]),
        "minutes": f"{figures['minutes']:.0f}",
    }
    for name, text in parts.items():
        prose = prose.replace(f"{{{{{name}}}}}", text)
    return prose


def draw(name: str, path: Path) -> None:
    """Draw the pictures of the first seed: rows of strategies, columns of classes, three views of each.

    Parameters
    ----------
    name : str
        The network.
    path : Path
        Where the figure goes.
    """
    figure, axes = plt.subplots(len(SHOWN), 3 * len(SHAPES), figsize=(15, 1.25 * len(SHOWN)))
    for row, strategy in zip(axes, SHOWN, strict=True):
        row[0].set_title(strategy, loc="left", fontsize=9)
        for index, shape in enumerate(SHAPES):
            _views(row[3 * index : 3 * index + 3], name, strategy, shape)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _views(axes: np.ndarray, name: str, strategy: str, shape: str) -> None:
    network = Network(name)
    image = torch.load(KEPT / f"{picture_name(name, strategy, shape)}.pt").numpy()
    start = LADDER[strategy].start(network)
    found = match(image, start.numpy() if isinstance(start, torch.Tensor) else start)
    for axis, panel in enumerate(axes):
        # nibabel's axes run to the right, front and top: the second is drawn upwards.
        plane = np.take(image, found.center[axis], axis=axis).T
        panel.imshow(plane, cmap="gray", vmin=network.bounds[0], vmax=network.bounds[1], origin="lower")
    said = f"{shape}: {found.shape}"
    axes[1].text(0.5, -0.02, said, transform=axes[1].transAxes, ha="center", va="top", fontsize=7)


def _percent(facts: dict[str, Any]) -> str:
    low, high = facts["interval"]
    return f"{facts['accuracy']:.0%} [{low:.0%}, {high:.0%}]"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _accuracies(figures: dict[str, Any]) -> str:
    rows = []
    for name, facts in figures["networks"].items():
        interval = f"{facts['estimate']:.1%} [{facts['low']:.1%}, {facts['high']:.1%}]"
        rows.append([name, interval, f"`{figures['digests'][name][:12]}`"])
    return _table(["network", "accuracy on held-out people", "bundle"], rows)


def _row(name: list[str], facts: dict[str, Any]) -> list[str]:
    return [
        *name,
        f"{facts['right']} of {facts['pictures']}",
        _percent(facts),
        f"{facts['ncc']:.2f} ({facts['ncc_unsmoothed']:.2f})",
        f"{facts['size_error_mm']:.1f}",
        f"{facts['bright']:.0%}",
        f"{facts['times_real']:.1f}",
    ]


_HEAD = [
    "named right",
    "accuracy [95 %]",
    "median NCC (unsmoothed)",
    "size error, mm",
    "bright",
    "times real",
]


def _many_seeds(found: dict[str, dict[str, Any]]) -> str:
    rows = [
        _row([name, strategy], facts)
        for name, strategies in found.items()
        for strategy, facts in strategies.items()
    ]
    return _table(["network", "strategy", *_HEAD], rows)


def _ladder(strategies: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, facts in strategies.items():
        equal = facts["equal"]
        reached = f"{_percent(equal)}, {equal['pictures']} pictures" if equal else "none reached it"
        rows.append([*_row([name], facts), reached])
    return _table(["strategy", *_HEAD, "accuracy at equal activation"], rows)


def _by_shape(figures: dict[str, Any]) -> str:
    rows = []
    for name in ("robust", "ordinary"):
        for shape in SHAPES:
            own = [
                row
                for row in figures["pictures"]
                if (row["network"], row["strategy"], row["shape"]) == (name, figures["recommended"], shape)
            ]
            right = sum(row["named"] == shape for row in own)
            ncc = np.median([row["ncc"] for row in own])
            wrong = sorted({str(row["named"]) for row in own} - {shape})
            rows.append([name, shape, f"{right} of {len(own)}", f"{ncc:.2f}", ", ".join(wrong) or "none"])
    return _table(["network", "shape", "named right", "median NCC", "else named"], rows)
