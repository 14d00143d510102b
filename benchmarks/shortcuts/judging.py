"""Limits from one set of networks, rates on another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scipy.stats import binomtest

from benchmarks.shortcuts.plants import SIGNALS
from benchmarks.shortcuts.reading import FAMILIES
from neurofv.audit.shortcuts import ALIKE, LIMIT, Effect, judge

Row = dict[str, Any]
NAMES = {
    "corner": "corner marker",
    "side": "side marker",
    "ringing": "ringing",
    "ghosting": "ghosting",
    "bias": "bias field",
    "noise": "noise",
    "smoothing": "smoothing",
    "intensity": "intensity",
    "cut": "cut edge",
    "spike": "stripes",
}
"""What the audit calls each plant."""
METHODS = ("pictures", "SmoothGrad", "Grad-CAM")
LEARNED = 0.8
"""Least accuracy on held-out images: a network that has not learned its cohort uses nothing."""


def verdict(row: Row) -> list[str]:
    """Return the kinds that the audit finds in a network, the likeliest first."""
    return [found.kind for found in judge([Effect(**each) for each in row["effects"]])]


def limits(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return for each way of making maps the largest figures of the clean networks that only calibrate."""
    clean = [row for row in rows if not SIGNALS[row["kind"]].shortcut]
    return {
        method: {name: max(row["figures"][method][name] for row in clean) for name in FAMILIES}
        for method in METHODS
    }


def read(figures: dict[str, float], limit: dict[str, float]) -> list[str]:
    """Return the kinds that a network's maps may stand for, those furthest above the limit first."""
    above = sorted((n for n in FAMILIES if figures[n] > limit[n]), key=lambda n: -figures[n] / limit[n])
    return [kind for name in above for kind in FAMILIES[name]]


def rate(hits: Sequence[bool]) -> dict[str, float]:
    """Return a share with its 95 % interval (Wilson)."""
    if not hits:
        return {"n": 0}
    found = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return {"n": len(hits), "estimate": sum(hits) / len(hits), "low": found.low, "high": found.high}


def rates(said: dict[str, list[str]]) -> dict[str, Any]:
    """Return detection and false alarms of what a method said of each network, by name `<kind>-<seed>`."""
    kinds = {name: name.rpartition("-")[0] for name in said}
    cheats = {name: found for name, found in said.items() if SIGNALS[kinds[name]].shortcut}
    clean = {name: found for name, found in said.items() if name not in cheats}
    right = {name: NAMES[kinds[name]] in found for name, found in cheats.items()}
    return {
        "detected": rate(list(right.values())),
        "any_alarm": rate([bool(found) for found in cheats.values()]),
        "named_first": rate([found[:1] == [NAMES[kinds[name]]] for name, found in cheats.items()]),
        "false_alarms": rate([bool(found) for found in clean.values()]),
        "missed": sorted(name for name, hit in right.items() if not hit),
        "falsely_accused": sorted(name for name, found in clean.items() if found),
    }


def judged(
    calibration: Sequence[Row], tested: Sequence[Row], maps: dict[str, Row], calibration_maps: Sequence[Row]
) -> dict[str, Any]:
    """Return all figures of the benchmark."""
    names = {f"{row['kind']}-{row['seed']}": row for row in tested}
    learned = {name: row for name, row in names.items() if row["accuracy"] >= LEARNED}
    said = {"audit": {name: verdict(row) for name, row in learned.items()}}
    known = limits(calibration_maps) if calibration_maps else {}
    for method in known:
        said[method] = {
            name: read(maps[name]["figures"][method], known[method]) for name in learned if name in maps
        }
    settled = {
        f"{row['kind']}-{row['seed']}": verdict(row) for row in calibration if row["accuracy"] >= LEARNED
    }
    return {
        "limits": {"effect": LIMIT, "likeness": ALIKE, **known},
        "calibration": rates(settled),
        "not_learned": sorted(set(names) - set(learned)),
        "methods": {method: rates(found) for method, found in said.items()},
        "said": said,
        "networks": {name: {key: row[key] for key in ("accuracy", "effects")} for name, row in names.items()},
    }
