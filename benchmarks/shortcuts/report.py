"""The page docs/shortcuts.md, written from the figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.shortcuts.judging import LEARNED, NAMES
from benchmarks.shortcuts.plants import SIGNALS

PAGE = Path(__file__).parents[2] / "docs" / "shortcuts.md"
TEXT = Path(__file__).with_name("shortcuts.md")


def write_page(figures: dict[str, Any]) -> None:
    """Write the page anew."""
    PAGE.write_text(page(figures))


def page(figures: dict[str, Any]) -> str:
    """Return the page: the text beside this module, with its tables filled in."""
    text = TEXT.read_text()
    for name, make in (("rates", _rates), ("kinds", _kinds), ("missed", _missed)):
        text = text.replace(f"{{{name}}}", make(figures))
    limit = figures["limits"]
    for name in ("effect", "likeness"):
        text = text.replace(f"{{{name}}}", f"{limit[name]:g}")
    return text


def _share(facts: dict[str, float]) -> str:
    if not facts["n"]:
        return "-"
    return f"{facts['estimate']:.0%} ({facts['low']:.0%} to {facts['high']:.0%}), n = {facts['n']}"


def _rates(figures: dict[str, Any]) -> str:
    lines = [
        "| method | right kind among the findings | right kind first | any alarm on a cheat | false alarms |",
        "| --- | --- | --- | --- | --- |",
    ]
    for method, found in figures["methods"].items():
        cells = [_share(found[each]) for each in ("detected", "named_first", "any_alarm", "false_alarms")]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _kinds(figures: dict[str, Any]) -> str:
    said = figures["said"]
    lines = [
        f"| cohort | networks | {' | '.join(said)} |",
        "| --- | --- |" + " --- |" * len(said),
    ]
    for kind, signal in SIGNALS.items():
        names = [name for name in said["audit"] if name.rpartition("-")[0] == kind]
        if not names:
            continue
        cells = []
        for found in said.values():
            own = [found[name] for name in names if name in found]
            hits = sum(NAMES[kind] in each if signal.shortcut else bool(each) for each in own)
            cells.append(f"{hits} of {len(own)} {'found' if signal.shortcut else 'accused'}")
        lines.append(f"| {signal.words} | {len(names)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _missed(figures: dict[str, Any]) -> str:
    lines = []
    for name in figures["methods"]["audit"]["missed"]:
        own = NAMES[name.rpartition("-")[0]]
        effect = next(e for e in figures["networks"][name]["effects"] if e["kind"] == own)
        said = ", ".join(figures["said"]["audit"][name]) or "nothing"
        lines.append(
            f"- `{name}`: {own} has effect {effect['effect']:.2f} and likeness {effect['likeness']:.2f}; "
            f"found instead: {said}."
        )
    for name in figures["methods"]["audit"]["falsely_accused"]:
        lines.append(f"- `{name}` is clean and accused of: {', '.join(figures['said']['audit'][name])}.")
    for name in figures["not_learned"]:
        accuracy = figures["networks"][name]["accuracy"]
        lines.append(
            f"- `{name}` is left out: it is right on {accuracy:.0%} of held-out images, below {LEARNED:.0%}."
        )
    seen = {name.rpartition("-")[0] for name in figures["networks"]}
    absent = [signal.words for kind, signal in SIGNALS.items() if kind not in seen]
    if absent:
        lines.append(f"- Not measured yet, for the run was cut short: {', '.join(absent)}.")
    return "\n".join(lines) or "- Nothing."
