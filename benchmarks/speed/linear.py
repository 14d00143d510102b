"""Whether cost grows linearly in voxels, steps and units, and where it does not."""

import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import matplotlib as mpl
import numpy as np

import engine
from benchmarks.speed.climb import CHANNELS, asked, loaded, planned
from benchmarks.speed.competitor import network, spec
from neurofv.v1 import method_pb2

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter

EDGES = (12, 16, 24, 32, 48, 64, 96, 128)
STEPS = (16, 32, 64, 128, 256)
UNITS = (1, 2, 4, 8, 16)
FIGURE = Path(__file__).parents[2] / "docs/images/speed.png"
Points = dict[str, list[float]]


def measure() -> dict[str, Points]:
    """Return all three."""
    return {"voxels": by_voxels(), "steps": by_steps(), "units": by_units()}


def _seconds(network_: engine.Prepared, wanted: engine.Spec) -> list[float]:
    events = engine.visualize(network_, wanted)
    return [event.seconds for event in events if isinstance(event, engine.Progress)]


def _capped(layer: str, edge: int) -> engine.Spec:
    return replace(spec((edge,) * 3, layer, engine.Precision.FLOAT32), steps=9)


def by_voxels() -> Points:
    """Return the median step on cubes of ever more voxels."""
    prepared = engine.prepared(network("lesion-shapes"))
    found: Points = {"voxels": [], "ms": []}
    for edge in EDGES:
        found["voxels"].append(edge**3)
        found["ms"].append(1000 * median(_seconds(prepared, _capped("classifier", edge))))
    return found


def by_steps() -> Points:
    """Return the whole run on the default canvas by steps."""
    model = loaded()
    found: Points = {"steps": [], "ms": []}
    for steps in STEPS:
        wanted = planned(model, asked("blocks.2.conv", 11, False, steps))
        begun = time.perf_counter()
        list(engine.visualize(model.network, wanted))
        found["steps"].append(steps)
        found["ms"].append(1000 * (time.perf_counter() - begun))
    return found


def by_units() -> Points:
    """Return the median step by units of a middle layer in one batch, on the default canvas."""
    model = loaded()
    layer, _ = CHANNELS[0]
    found: Points = {"units": [], "ms": []}
    for units in UNITS:
        request = asked(layer, 0, False, 17)
        for channel in range(1, units):
            request.batch.add().CopyFrom(_objective(layer, channel))
        found["units"].append(units)
        found["ms"].append(1000 * median(_seconds(model.network, planned(model, request))))
    return found


def _objective(layer: str, channel: int) -> method_pb2.Objective:
    return asked(layer, channel, False, 1).objective


def slope(points: Points, least: float = 0) -> float:
    """Return the power with which the cost grows, fitted to the points from `least` on: 1 is linear."""
    (amounts, costs) = (np.array(line, float) for line in points.values())
    kept = amounts >= least
    return float(np.polyfit(np.log(amounts[kept]), np.log(costs[kept]), 1)[0])


def draw(figures: dict[str, Points]) -> None:
    """Draw cost against amount, with a line of slope 1 through the last point."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    titles = ("a step, by voxels", "a run, by steps", "a step, by units of a batch")
    for axis, points, title in zip(axes, figures.values(), titles, strict=True):
        (name, amounts), (_, costs) = points.items()
        amounts, costs = np.array(amounts, float), np.array(costs, float)
        axis.loglog(amounts, costs, "o-", color="#1f4e79", label="measured")
        axis.loglog(amounts, costs[-1] * amounts / amounts[-1], ":", color="grey", label="linear")
        axis.set(title=title, xlabel=name, ylabel="ms")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.legend(frameon=False)
    figure.savefig(FIGURE, dpi=110)
    plt.close(figure)
