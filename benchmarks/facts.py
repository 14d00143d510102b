"""Where a figure was measured, and how it is written down."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"


def machine() -> dict[str, object]:
    """Return what a reader must know of the machine."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model[0].partition(":")[2].strip() if model else platform.processor(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "grpcio": version("grpcio"),
        "load_at_the_end": os.getloadavg()[0],
        "date": datetime.now(UTC).date().isoformat(),
    }


def summary(seconds: list[float]) -> dict[str, float]:
    """Return the count, median, 99th percentile and maximum, in milliseconds."""
    values = 1000 * np.array(seconds)
    return {
        "n": len(values),
        "median_ms": round(float(np.median(values)), 2),
        "p99_ms": round(float(np.percentile(values, 99)), 2),
        "max_ms": round(float(values.max()), 2),
    }


def write(name: str, figures: dict[str, object]) -> None:
    """Write figures to `benchmarks/results/<name>.json` and show them."""
    text = json.dumps({"machine": machine(), **figures}, indent=2)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)


def into_readme(page: str, mark: str, text: str) -> str:
    """Return the README with a table between its marks."""
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    before, rest = page.split(begin)
    return f"{before}{begin}\n{text}{end}{rest.split(end)[1]}"


def interval(estimate: float, drawn: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Return an estimate with the 95 % percentile interval of what a bootstrap drew."""
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"estimate": float(estimate), "low": float(low), "high": float(high)}
