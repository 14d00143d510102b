"""Compare the default of neurofv with the peers' methods: `make bench-peers`.

Same network, units, volume size, seeds and figures for all. Writes
`benchmarks/results/peers.json` and a table beside it. Pictures that were made
before are kept; `--fresh` makes them again.
"""

import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
from rich.progress import track
from torch import Tensor

from benchmarks.facts import RESULTS, write
from benchmarks.peers.baselines import Run, b0, b1, b2
from benchmarks.peers.figures import Figures, judge, real_images
from benchmarks.peers.pictures import LAYERS, METHODS, SEEDS, SHAPE, Subject, make, neurofv, tasks_of

OURS = "neurofv"
RIVALS = ("B1 and B2, decay 1.5", "B1 and B2, decay 1.0", "B0")
_SHOWN = (
    "above_best_real",
    "held_out_mean_in_spreads",
    "held_out_p5_in_spreads",
    "spectrum_distance",
    "total_variation",
    "saturated_share",
    "selectivity_rank",
    "seed_agreement",
)


def per_unit(rows: list[Figures], spreads: dict[int, float]) -> dict[int, Figures]:
    """Return the mean over seeds of each unit's figures; activations also in spreads."""
    found: dict[int, Figures] = {}
    for channel in sorted({int(row["channel"]) for row in rows}):
        own = [row for row in rows if row["channel"] == channel]
        mean = {name: float(np.mean([row[name] for row in own])) for name in own[0] if name != "seed"}
        for name in ("held_out_mean", "held_out_p5"):
            mean[f"{name}_in_spreads"] = mean[name] / spreads[channel]
        found[channel] = mean
    return found


def compare(ours: dict[int, Figures], theirs: dict[int, Figures]) -> dict[str, list[int]]:
    """Return the units on which neurofv is better, by figure, and on all three together."""
    wins: dict[str, Callable[[Figures, Figures], bool]] = {
        "activation_no_lower": lambda a, b: a["activation"] >= b["activation"],
        "held_out_mean_higher": lambda a, b: a["held_out_mean"] > b["held_out_mean"],
        "spectrum_distance_smaller": lambda a, b: a["spectrum_distance"] < b["spectrum_distance"],
    }
    found = {name: [unit for unit in ours if win(ours[unit], theirs[unit])] for name, win in wins.items()}
    found["all_three"] = [unit for unit in ours if all(unit in units for units in found.values())]
    return found


def speeds(subject: Subject) -> dict[str, dict[str, float]]:
    """Return milliseconds a step and volume on the logits: each method as its section specifies it."""
    layer, steps = LAYERS["logits"], 8
    runs = [Run(channel % 6, 0) for channel in range(8)]
    settings = (subject.network, layer)

    def timed(work: Callable[[], object], volumes: int, count: int) -> float:
        seconds = []
        for _ in range(3):
            begin = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - begin)
        return round(1000 * median(seconds) / count / volumes, 1)

    return {
        "B0": {"ms": timed(lambda: b0(*settings, runs[:1], SHAPE, subject.bounds, steps), 1, steps)},
        "B1": {"ms": timed(lambda: b1(*settings, runs[0], SHAPE, subject.bounds, 1.5, steps), 1, steps)},
        "B2": {"ms": timed(lambda: b2(*settings, runs, SHAPE, subject.bounds, 1.5, steps), 8, steps)},
        "neurofv": {
            "ms": timed(lambda: neurofv(subject, layer, lambda: None, steps=steps), 6 * SEEDS, steps)
        },
    }


def same_pictures(subject: Subject) -> dict[str, float]:
    """Return how far B2's picture lies from B1's, whole network and truncated, after two steps."""
    run, layer = Run(subject.units(LAYERS["last"])[0], 1), LAYERS["last"]
    single = b1(subject.network, layer, run, SHAPE, subject.bounds, 1.5, steps=2)
    pair = [Run(0, 0), run]
    return {
        name: float((single - batch[1]).abs().max())
        for name, batch in (
            ("whole", b2(subject.network, layer, pair, SHAPE, subject.bounds, 1.5, steps=2)),
            ("truncated", b2(subject.network, layer, pair, SHAPE, subject.bounds, 1.5, 2, truncate=True)),
        )
    }


def table(medians: dict[str, dict[str, Figures]]) -> str:
    """Return the medians over units as Markdown."""
    lines = [
        "<!-- Written by `make bench-peers`: medians over units, mean over 3 seeds (B0: 1 seed, logits). -->",
        "| layer | method | " + " | ".join(name.replace("_", " ") for name in _SHOWN) + " |",
        "|" + " --- |" * (2 + len(_SHOWN)),
    ]
    for layer, methods in medians.items():
        for method, figures in methods.items():
            cells = " | ".join(f"{figures[name]:.3g}" if name in figures else "-" for name in _SHOWN)
            lines.append(f"| {layer} | {method} | {cells} |")
    return "\n".join(lines) + "\n"


def judge_all(
    subject: Subject, pictures: dict[tuple[str, str], Tensor], methods: Sequence[str]
) -> tuple[dict[str, dict[str, dict[int, Figures]]], dict[str, dict[int, dict[str, float]]]]:
    """Return every method's figures by layer and unit, and the real images' (C0)."""
    real = real_images(subject)
    units: dict[str, dict[str, dict[int, Figures]]] = {layer: {} for layer in LAYERS.values()}
    for method, layer in track(tasks_of(methods), "figures"):
        best = {channel: figures["best"] for channel, figures in real[layer].items()}
        spreads = {channel: subject.objective(layer, channel).terms[0].spread for channel in best}
        rows = judge(subject, layer, pictures[method, layer], best)
        units[layer][method] = per_unit(rows, spreads)
    return units, real


def _medians(units: list[Figures]) -> Figures:
    return {name: median(unit[name] for unit in units) for name in _SHOWN if name in units[0]}


def shares(units: dict[str, dict[str, dict[int, Figures]]], rival: str) -> dict[str, object]:
    """Return on which share of the units neurofv is better than a rival, and on which ones by layer."""
    both = {layer: found for layer, found in units.items() if rival in found}
    by_layer = {layer: compare(found[OURS], found[rival]) for layer, found in both.items()}
    total = sum(len(found[OURS]) for found in both.values())
    names = next(iter(by_layer.values()))
    found: dict[str, object] = {
        name: round(sum(len(better[name]) for better in by_layer.values()) / total, 3) for name in names
    }
    return {"units": total, **found, "by_layer": by_layer}


def main() -> None:
    """Make the pictures, judge them, write the figures."""
    again = "--fresh" in sys.argv
    subject, unseen = Subject.load(), Subject.load(fresh=True)
    pictures = make(subject, list(METHODS), again)
    check = make(unseen, [OURS, RIVALS[0]], again)
    units, real = judge_all(subject, pictures, list(METHODS))
    others, _ = judge_all(unseen, check, [OURS, RIVALS[0]])
    medians = {
        f"{place} ({layer})": {
            method: _medians(list(found.values())) for method, found in units[layer].items()
        }
        for place, layer in LAYERS.items()
    }
    (RESULTS / "peers.md").write_text(table(medians))
    write(
        "peers",
        {
            "share_of_units_on_which_neurofv_is_better": {rival: shares(units, rival) for rival in RIVALS},
            "on_units_that_no_default_was_chosen_on": {RIVALS[0]: shares(others, RIVALS[0])},
            "medians": medians,
            "ms_per_step_and_volume_one_thread": speeds(subject),
            "b2_against_b1": same_pictures(subject),
            "real_images": real,
            "per_unit": units,
        },
    )


if __name__ == "__main__":
    main()
