"""The study as a page: every number comes from `benchmarks/results/study.json`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.pictures import draw_growth, draw_sex, draw_shapes
from benchmarks.study.strategies import LADDER, Peer
from training.lesions.shapes import SHAPES

DOCS = Path(__file__).parents[2] / "docs"


def write_report(figures: dict[str, Any]) -> None:
    """Write `docs/study.md` and its figures.

    Parameters
    ----------
    figures : dict
        What `benchmarks/results/study.json` holds.
    """
    for name in ("robust", "ordinary"):
        draw_shapes(name, DOCS / "images" / f"study-{name}.png")
    draw_growth(DOCS / "images" / "study-growth.png")
    draw_sex(DOCS / "images" / "study-sex.png")
    (DOCS / "study.md").write_text(page(figures), encoding="utf-8")


def page(figures: dict[str, Any]) -> str:
    """Return the page, Markdown."""
    prose = (Path(__file__).parent / "study.md").read_text(encoding="utf-8")
    shapes, growth, sex = figures["shapes"], figures["growth"], figures["sex"]
    parts = {
        "recommended": shapes["recommended"],
        "accuracies": _accuracies(shapes),
        "many_seeds": _many_seeds(shapes["many_seeds"]),
        "by_shape": _by_shape(shapes),
        "ladder_robust": _ladder(shapes["ladder"]["robust"]),
        "ladder_ordinary": _ladder(shapes["ladder"]["ordinary"]),
        "controls": _controls(shapes),
        "exemplars": _exemplars(figures["exemplars"]),
        "growth_accuracies": _accuracies({**growth, "networks": growth["accuracy"]}),
        "growth_ladder": _growth_ladder(growth["ladder"]),
        "growth_people": _growth_people(growth["people"]),
        "sex_accuracies": _sex_accuracies(sex),
        "sex_compared": _sex_compared(sex),
        "sex_regions": _sex_regions(sex),
        "machine": f"{figures['machine']['cores']} cores, {figures['machine']['processor']}, torch "
        f"{figures['machine']['torch']}",
    }
    for name, text in parts.items():
        prose = prose.replace(f"{{{{{name}}}}}", text)
    return prose


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
        f"{facts['size_error_mm']:.1f}{' or more' if facts['size_error_mm'] > 3.9 else ''}",
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
        missed = "not looked at" if isinstance(LADDER[name], Peer) else "none reached it"
        reached = f"{_percent(equal)}, {equal['pictures']} pictures" if equal else missed
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


def _controls(shapes: dict[str, Any]) -> str:
    """Tabulate what the matcher says of each strategy's pictures of the controls."""
    rows = []
    judged = {picture["strategy"] for picture in shapes["pictures"] if picture["network"] == "shuffled"}
    for strategy in filter(judged.__contains__, LADDER):
        row = [strategy]
        for name in ("shuffled", "untrained"):
            own = [
                picture
                for picture in shapes["pictures"]
                if (picture["network"], picture["strategy"], picture["seed"]) == (name, strategy, 0)
            ]
            said = Counter(picture["named"] for picture in own)
            right = sum(picture["named"] == picture["shape"] for picture in own)
            names = ", ".join(f"{word} {count}" for word, count in said.most_common())
            row.append(f"{right} of {len(own)}: {names}" if own else "not asked")
        rows.append(row)
    return _table(["strategy", "shuffled: right; named", "untrained: right; named"], rows)


def _exemplars(found: dict[str, Any]) -> str:
    rows = [
        [
            name,
            shape,
            f"{facts['right']} of {facts['top']}",
            f"{facts['activation']:.1f}",
            "none" if facts["distance_mm"] is None else f"{facts['distance_mm']:.1f}",
        ]
        for name, shapes in found.items()
        for shape, facts in shapes.items()
    ]
    return _table(
        [
            "network",
            "logit",
            "best images that show it",
            "logit of the last of them",
            "centre to lesion, mm (median)",
        ],
        rows,
    )


def _growth_ladder(found: dict[str, Any]) -> str:
    rows = [
        [
            way,
            label,
            f"{facts['correlation']:.2f}",
            f"{facts['share']:.0%}",
            f"{facts['growth_percent']:+.1f} %",
            f"{facts['far_mm']:.0f}",
        ]
        for way, classes in found.items()
        for label, facts in classes.items()
    ]
    head = [
        "way of asking",
        "class",
        "correlation",
        "top 1 % in the region",
        "region grows by",
        "peak to centre, mm",
    ]
    return _table(head, rows)


def _growth_people(found: dict[str, Any]) -> str:
    rows = []
    for name, classes in found.items():
        for label, facts in classes.items():
            mean = facts["mean"]
            rows.append(
                [
                    name,
                    label,
                    f"{mean['correlation']:.2f}",
                    f"{mean['share']:.0%}",
                    f"{mean['growth_percent']:+.1f} %",
                    _number(facts["correlation"]),
                    _number(facts["share"]),
                    f"{facts['right_way']} of {facts['people']}",
                ]
            )
    head = ["network", "class", "correlation of the mean", "its top 1 % in the region", "region grows by"]
    return _table([*head, "correlation of one", "top 1 % of one", "right way"], rows)


def _sex_accuracies(found: dict[str, Any]) -> str:
    rows = [
        [name, figure, _number(facts), str(facts["n"]), f"`{own['digest'][:12]}`"]
        for name, own in found.items()
        for figure, facts in own["evaluation"].items()
        if "AUC" in figure
    ]
    return _table(["network", "figure", "value [95 %]", "people", "bundle"], rows)


def _sex_compared(found: dict[str, Any]) -> str:
    rows = [
        [
            name,
            str(facts["regions_in_all"]),
            _number(facts["rank_correlation"]),
            _change(facts["overall_wanted"]),
            _change(facts["overall_measured"]),
        ]
        for name, facts in found.items()
    ]
    head = [
        "network",
        "regions",
        "rank correlation [95 %]",
        "pictures: half of men minus women",
        "people: men minus women",
    ]
    return _table(head, rows)


def _sex_regions(found: dict[str, Any]) -> str:
    rows = [
        [name, region["name"], _change(region["measured"]), f"{100 * np.expm1(region['wanted']):+.1f} %"]
        for name, facts in found.items()
        if "shuffled" not in name
        for region in facts["regions"]
    ]
    return _table(["network", "region", "people: men minus women [95 %]", "pictures: half of it"], rows)


def _number(facts: dict[str, Any]) -> str:
    return f"{facts['estimate']:.2f} [{facts['low']:.2f}, {facts['high']:.2f}]"


def _change(facts: dict[str, Any]) -> str:
    """Write a difference of log-Jacobians as a difference of volume."""
    middle, low, high = (100 * np.expm1(facts[name]) for name in ("estimate", "low", "high"))
    return f"{middle:+.1f} % [{low:+.1f}, {high:+.1f}]"
