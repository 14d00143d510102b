"""The figures of the report: rows of strategies, columns of classes, three views of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from nibabel.affines import apply_affine

from benchmarks.study.growth import Truth
from benchmarks.study.matcher import match
from benchmarks.study.networks import KEPT, Network, read
from benchmarks.study.recovery import picture_name
from benchmarks.study.strategies import LADDER, PLAIN
from benchmarks.study.warps import RECOMMENDED, WAYS, kept, reference
from models import Bundle
from training.lesions.shapes import SHAPES

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

SHOWN = (
    "voxels alone",
    "Fourier, decay 1.5, transforms",
    "default of neurofv",
    "quiet",
    PLAIN,
    "B1, decay 1.5",
)
"""Strategies that the figures of shapes show."""
SIZED = ("Adam, 16 mm", RECOMMENDED, "gradient steps, 24 mm")
"""Ways that the figure of sex shows."""
PLACE = (0.0, -15.0, 8.0)
"""Where the views of sex are cut, mm."""


def draw_shapes(name: str, path: Path) -> None:
    """Draw the pictures of the first seed.

    Parameters
    ----------
    name : str
        The network.
    path : Path
        Where the figure goes.
    """
    figure, axes = _sheet(SHOWN, 3 * len(SHAPES), width=1.0)
    for row, strategy in zip(axes, SHOWN, strict=True):
        for index, shape in enumerate(SHAPES):
            _shape(row[3 * index : 3 * index + 3], name, strategy, shape)
    _save(figure, path)


def draw_growth(path: Path) -> None:
    """Draw what was planted and the warps of both classes, over the reference brain."""
    bundle, maps = read("growth"), kept("growth")
    truth = Truth(bundle)
    place = np.argwhere(truth.distance == truth.distance.min())[0]
    rows = ("planted", *WAYS)
    figure, axes = _sheet(rows, 6, width=1.5)
    for row, way in zip(axes, rows, strict=True):
        for index, (label, sign) in enumerate((("grown", 1), ("unchanged", -1))):
            warp = sign * maps["planted"] if way == "planted" else maps[f"{way}/{label}"]
            _warp(row[3 * index : 3 * index + 3], bundle, warp, place, label)
    _save(figure, path)


def draw_sex(path: Path) -> None:
    """Draw the warps of both classes of both networks, and how the cohort's groups differ."""
    maps = kept("sex")
    rows = ("the cohort: the class minus the other", *SIZED)
    figure, axes = _sheet(rows, 12, width=1.25)
    for row, way in zip(axes, rows, strict=True):
        for index, (name, label) in enumerate((n, c) for n in ("sex-rigid", "sex-affine") for c in "FM"):
            bundle = read(name)
            place = np.rint(apply_affine(np.linalg.inv(bundle.manifest.input.affine), PLACE)).astype(int)
            measured = maps[f"{name}/measured"] * (1 if label == "M" else -1)
            warp = measured if way == rows[0] else maps[f"{name}/{way}/{label}"]
            _warp(row[3 * index : 3 * index + 3], bundle, warp, place, f"{name}, {label}")
    _save(figure, path)


def _sheet(rows: Sequence[str], columns: int, width: float) -> tuple[Figure, np.ndarray]:
    """Lay out square panels of some width, inches, with room for a row's title and its labels."""
    height = (width + 0.45) * len(rows)
    room = {"left": 0.002, "right": 0.998, "top": 1 - 0.25 / height, "bottom": 0.25 / height}
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(width * columns, height),
        gridspec_kw={"wspace": 0.03, "hspace": 0.45 / width, **room},
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for row, title in zip(axes, rows, strict=True):
        row[0].set_title(title, loc="left", fontsize=9)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _shape(axes: np.ndarray, name: str, strategy: str, shape: str) -> None:
    network = Network(name)
    image = torch.load(KEPT / f"{picture_name(name, strategy, shape)}.pt").numpy()
    start = LADDER[strategy].start(network)
    found = match(image, start.numpy() if isinstance(start, torch.Tensor) else start)
    for axis, panel in enumerate(axes):
        # nibabel's axes run to the right, front and top: the second is drawn upwards.
        plane = np.take(image, found.center[axis], axis=axis).T
        panel.imshow(plane, cmap="gray", vmin=network.bounds[0], vmax=network.bounds[1], origin="lower")
    _label(axes, f"{shape}: {found.shape}")


def _warp(axes: np.ndarray, bundle: Bundle, warp: np.ndarray, place: np.ndarray, label: str) -> None:
    """Draw a map of log-Jacobians over the brain: red has grown, blue has shrunk, each to its own scale."""
    brain, head = reference(bundle).numpy(), bundle.prior().mask().numpy()
    most = float(np.quantile(np.abs(warp[head]), 0.995)) or 1.0
    for axis, panel in enumerate(axes):
        under, over = (np.take(volume, place[axis], axis=axis).T for volume in (brain, warp * head))
        panel.imshow(under, cmap="gray", vmin=0, vmax=1.1, origin="lower")
        panel.imshow(over, cmap="RdBu_r", vmin=-most, vmax=most, origin="lower", alpha=0.6)
    _label(axes, f"{label} (to {100 * np.expm1(most):.0f} %)")


def _label(axes: np.ndarray, words: str) -> None:
    axes[1].text(0.5, -0.02, words, transform=axes[1].transAxes, ha="center", va="top", fontsize=7)
