"""The race is fair and its table says what its JSON says."""

import json
from pathlib import Path

import pytest

from benchmarks.facts import README, RESULTS, into_readme
from benchmarks.peers.baselines import Run, b1
from benchmarks.speed import competitor, linear
from benchmarks.speed.race import Competitor, default_canvas, race, work
from benchmarks.speed.report import table
from models.architectures import build


def test_the_page_is_what_its_json_says() -> None:
    figures = json.loads((RESULTS / "speed.json").read_text())
    assert into_readme(README.read_text(), "speed", table(figures)) == README.read_text()
    assert Path(linear.FIGURE).exists()


def test_competitors_step_in_turn_each_in_a_process_of_its_own() -> None:
    common = ["--network", "sfcn", "--layer", "blocks.1.conv", "--shape", "32x32x32"]
    names = ("ours", "alone", "b1", "b2")
    found = race("small", [Competitor(name, [name, *common]) for name in names], rounds=2)
    assert set(found) == set(names)
    assert all(0 < row["lowest_ms"] <= row["ms"] <= row["highest_ms"] for row in found.values())


def test_a_competitor_that_fails_is_named() -> None:
    lame = Competitor("lame", ["ours", "--network", "sfcn", "--layer", "nowhere", "--shape", "8x8x8"])
    with pytest.raises(RuntimeError, match="lame"):
        race("small", [lame], rounds=1)


@pytest.mark.parametrize(("layer", "convolutions"), [("blocks.0.conv", 1), ("blocks.1.conv", 2)])
def test_operations_are_those_of_the_convolutions_both_ways(layer: str, convolutions: int) -> None:
    edges, widths = (16, 8), (1, 32, 64)
    one_way = sum(2 * 27 * widths[n] * widths[n + 1] * edges[n] ** 3 for n in range(convolutions))
    operations, moved = work("sfcn", layer, (16, 16, 16))
    assert operations == 2 * one_way
    assert moved >= 4 * 4 * 32 * 16**3


def test_the_canvas_is_the_services_own() -> None:
    # Receptive fields of 3 and 8 voxels, half as large again, and 8 mm on either side.
    assert default_canvas("sfcn", "blocks.0.conv", (64, 64, 64), 1.0) == (21, 21, 21)
    assert default_canvas("sfcn", "blocks.1.conv", (64, 64, 64), 1.0) == (28, 28, 28)


def test_b1_tells_of_every_step() -> None:
    steps: list[int] = []
    network = build("sfcn", pooled_blocks=2, widths=(4, 4)).eval()
    b1(network, "blocks.0.conv", Run(0, 0), (16, 16, 16), (0.0, 1.0), 1.5, 3, lambda: steps.append(1))
    assert len(steps) == 3


def test_rates_are_operations_and_bytes_a_second() -> None:
    found = competitor.rates(1.0, 0.5, 2.0)
    assert found["BFLOAT16"] == 2 * found["FLOAT32"] == 4 * 4096**3
    assert found["bytes"] == 2 * 4 * 2**26 / 2


def test_growth_is_a_power() -> None:
    assert linear.slope({"voxels": [1, 10, 100], "ms": [2, 20, 200]}) == pytest.approx(1)
    assert linear.slope({"voxels": [1, 10, 100], "ms": [20, 20, 200]}, least=10) == pytest.approx(1)
