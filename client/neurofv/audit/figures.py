"""Figures of a report in the words and marks of its page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

LEVELS = {"good": "Good", "fair": "Fair", "warning": "Warning", "unknown": "Not known"}
_GRAVITY = ("warning", "unknown", "fair", "good")
NONE = "-"

THRESHOLDS = {
    "seed_agreement": ("Agreement between seeds, the least of all units", "at least"),
    "above_random": ("Lead over the network with random weights, the least of all units", "at least"),
    "shortcuts": ("Kinds of shortcut found", "at most"),
}

READING = (
    (
        "Above real images",
        "Share of real held-out images on which the unit fires less than on the picture. 100 % says that the "
        "picture drives the unit harder than any of them, not that the unit means what it shows.",
    ),
    (
        "Seeds agree",
        "Correlation of what was changed, between runs that began from different noise: 1 is the same "
        "picture, 0 another one. What differs between seeds is the optimizer's doing, not the unit's.",
    ),
    (
        "Random weights",
        "The same network with its weights shuffled, visualized in the same way (Adebayo et al. 2018). A "
        "picture like its pictures, or no more stable than they are, tells nothing of what was learned.",
    ),
    ("Others fire less", "Share of the layer's other units that fire less on the unit's own picture."),
    ("Times the best", "The activation in relation to the highest one on a real held-out image."),
    ("Rank", "Place of the unit among those of its layer on this picture; 1 is the strongest."),
    (
        "When moved",
        "Mean activation over 64 shifts up to 6 mm, turns up to 15 degrees and 10 % of size, none of them "
        "used to make the picture. One that survives them is no trick of single voxels.",
    ),
    ("Worst 5 %", "The 5th percentile of the activation over the same moves."),
    ("Spectrum", "Distance of its spatial frequencies from those of real brains, decades; 0 is none."),
    ("At bounds", "Share of the brain's voxels at the lowest or highest intensity allowed."),
)

_COLUMNS = (
    ("Above real images", "percentile"),
    ("Activation", "activation"),
    ("Times the best", "ratio_to_best"),
    ("Rank", "selectivity_rank"),
    ("When moved", "held_out_mean"),
    ("Worst 5 %", "held_out_p5"),
    ("Spectrum", "spectrum_distance"),
    ("At bounds", "saturated_share"),
)
COLUMNS = tuple(name for name, _ in _COLUMNS)


def picture_name(picture: Mapping[str, Any]) -> str:
    """Return what tells a picture of a unit from its others."""
    name = f"{picture['strategy'].capitalize()}, seed {picture['seed']}"
    if picture["control"] == "none":
        return name
    return f"{name}, {picture['control'].replace('_', ' ')}"


def number(value: float | None) -> str:
    """Write a figure with about three digits that count; a dash for none."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0 or isinstance(value, int):
        return f"{value:.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 2) if abs(value) >= 0.01 else 3}f}"


def percent(share: float | None) -> str:
    """Write a share; never rounded up to all."""
    if share is None or not math.isfinite(share):
        return NONE
    return f"{math.floor(1000 * share + 1e-9) / 10:g} %"


def floored(value: float) -> str:
    """Write a correlation or similarity with two digits; never rounded up to a bound that it misses."""
    return f"{math.floor(100 * value + 1e-9) / 100:.2f}"


def apart(value: float | None, limit: float) -> tuple[str, str]:
    """Write a figure and its limit with as many digits as tell them apart; a dash for none."""
    if value is None or value == limit or not math.isfinite(value):
        return number(value), number(limit)
    texts = number(value), number(limit)
    digits = 3
    while float(texts[0]) == float(texts[1]) and digits < 16:
        texts = f"{value:.{digits}f}", f"{limit:.{digits}f}"
        digits += 1
    return texts


def picture_values(evaluation: Mapping[str, Any]) -> list[str]:
    """Return a picture's figures in the order of `COLUMNS`."""
    return [_value(key, evaluation) for _, key in _COLUMNS]


def _value(key: str, evaluation: Mapping[str, Any]) -> str:
    value = evaluation.get(key)
    if key in ("percentile", "saturated_share"):
        return percent(value)
    if key == "selectivity_rank" and value is not None:
        units = evaluation.get("layer_units")
        return f"{value} of {units}" if units else f"{value}"
    return number(value)


def activation_bars(pictures: Sequence[tuple[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the bars that set a unit's activations beside those of real images.

    Parameters
    ----------
    pictures : sequence of (str, mapping)
        Name and evaluation of each picture of the trained network.

    Returns
    -------
    list of dict
        `name`, `value`, `kind` (`real` or `own`), and in percent of the width `start`, `width` and `zero`;
        empty if nothing is known of real images.
    """
    known = [(name, figures) for name, figures in pictures if figures.get("activation") is not None]
    bars = [(name, "real", value) for name, value in _of_real_images([figures for _, figures in known])]
    if not bars:
        return []
    bars += [(name, "own", float(figures["activation"])) for name, figures in known]
    low, high = min(0.0, *(value for *_, value in bars)), max(0.0, *(value for *_, value in bars))
    span = high - low or 1.0
    return [
        {
            "name": name,
            "kind": kind,
            "value": number(value),
            "start": round(100 * (min(value, 0) - low) / span, 2),
            "width": round(100 * abs(value) / span, 2),
            "zero": round(100 * -low / span, 2),
        }
        for name, kind, value in bars
    ]


def _of_real_images(evaluations: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Return what is known of the activation on real images, from the first picture that knows."""
    bars = []
    below = next((each["real_p95"] for each in evaluations if each.get("real_p95") is not None), None)
    if below is not None:
        bars.append(("95 % of real images stay below", float(below)))
    for each in evaluations:
        best = each.get("real_maximum")
        if best is None and each.get("ratio_to_best"):
            best = each["activation"] / each["ratio_to_best"]
        if best is not None:
            return [*bars, ("Best real image", float(best))]
    return bars


def by_gravity(verdicts: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Return verdicts in the order in which a reviewer should read them: the gravest first."""
    return sorted(verdicts, key=lambda each: _GRAVITY.index(each["level"]))


def thresholds(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the thresholds as lines of a table, those that failed first."""
    table = []
    for line in sorted(lines, key=lambda each: bool(each["passed"])):
        name, bound = THRESHOLDS.get(line["id"], (line["id"].replace("_", " ").capitalize(), "limit"))
        kind = "passed" if line["passed"] else "failed"
        found, limit = apart(line["value"], line["limit"])
        table.append(
            {
                "name": name,
                "limit": f"{bound} {limit}",
                "value": found,
                "kind": kind,
                "outcome": kind.capitalize(),
            }
        )
    return table


def outcome(report: Mapping[str, Any]) -> dict[str, str]:
    """Return whether the audit was passed, in words."""
    lines = report["thresholds"]
    if not lines and report["passed"]:
        return {"kind": "open", "words": "No threshold was set"}
    if report["passed"]:
        return {
            "kind": "passed",
            "words": f"✓ Passed: all {len(lines)} thresholds are kept" if len(lines) > 1 else "✓ Passed",
        }
    missed = sum(not line["passed"] for line in lines)
    return {
        "kind": "failed",
        "words": f"✗ Failed: {missed} of {len(lines)} thresholds" if missed else "✗ Failed",
    }


def shortcuts(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the box on shortcuts: found, none found, not to be tested, or not looked for."""
    section = report["shortcuts"]
    if section is None:
        heading = "Shortcuts were not looked for"
        return {
            "kind": "",
            "heading": heading,
            "found": [],
            "tested": "The plan asks for no probes, or names no images.",
        }
    if "untestable" in section:
        words = f"{section['untestable']}. Whether there are any is not known."
        return {"kind": "", "heading": "Shortcuts could not be tested", "found": [], "tested": words}
    tested = f"Tested: {', '.join(section['tested'])}."
    if not section["found"]:
        kinds = len(section["tested"])
        heading = f"No shortcut found among {kinds} kind{'s' if kinds != 1 else ''}"
        more = " What is not in this list was not looked for."
        return {"kind": "quiet", "heading": heading, "found": [], "tested": tested + more}
    found = [
        {
            "kind": each["kind"],
            "words": each["words"],
            "figures": _effect(each),
        }
        for each in section["found"]
    ]
    kinds = len({each["kind"] for each in found})
    heading = f"The model takes {'a shortcut' if kinds == 1 else f'{kinds} shortcuts'}"
    return {"kind": "alarm", "heading": heading, "found": found, "tested": tested}


def _effect(found: Mapping[str, Any]) -> str:
    """Say how large a shortcut's effect is, and on the network with random weights if that is known."""
    if found["effect"] is None:
        return ""
    text = f"Effect {number(found['effect'])}"
    if found["control"] is not None:
        text += f", on the network with random weights {number(found['control'])}"
    return f"{text}."
