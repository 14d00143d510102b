"""The tables of speed, from their JSON."""

from typing import Any

_RIVALS = ("B1", "B2")


def table(figures: dict[str, Any]) -> str:
    """Return the steps as Markdown: what each costs, beside rivals, the network alone and the limit."""
    limit = figures["limit"]
    lines = [
        "<!-- Written by `make bench-speed`: medians of interleaved repeats, milliseconds a step. -->",
        "| | B1 | B2 | neurofv | times B1 | times B2 | over its own network (with looks) "
        "| network's share of the limit | bfloat16 | peak memory, MB: B1, neurofv |",
        "|" + " --- |" * 10,
    ]
    for title, case in figures["steps"].items():
        own = case["entrants"]
        lines.append(_row(title, own, "neurofv", share(case, limit)))
        if "neurofv, canvas" in own:
            edges = "x".join(map(str, case["canvas"]))
            lines.append(_row(f"the same on its canvas, {edges}", own, "neurofv, canvas", None))
    return "\n".join(lines) + "\n"


def share(case: dict[str, Any], limit: dict[str, float], precision: str = "FLOAT32") -> float:
    """Return at what share of the rate of matrix products the prepared network runs."""
    name = "network alone" if precision == "FLOAT32" else "network alone bfloat16"
    return float(case["operations"] / (case["entrants"][name]["ms"] / 1000) / limit[precision])


def _row(title: str, own: dict[str, Any], name: str, of_limit: float | None) -> str:
    mine = own[name]["ms"]
    cells = [f"{own[rival]['ms']:.0f}" for rival in _RIVALS]
    cells += [f"{mine:.3g}" if mine < 100 else f"{mine:.0f}"]
    cells += [f"{own[rival]['ms'] / mine:.3g}" for rival in _RIVALS]
    if of_limit is None:
        cells += ["", "", ""]
    else:
        alone = own["network alone"]["ms"]
        cells += [
            f"{own[name]['without_look_ms'] / alone:.2f} ({mine / alone:.2f})",
            f"{100 * of_limit:.0f} %",
        ]
        cells += [f"{own['neurofv bfloat16']['ms']:.0f}"]
    # A process that has imported everything has had as much before: a small canvas adds nothing to its peak.
    cells += [f"{own['B1']['peak_mb']}, {own[name]['peak_mb'] or 'not above the import'}"]
    return f"| {title} | " + " | ".join(cells) + " |"
