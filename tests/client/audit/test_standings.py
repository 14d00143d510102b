"""Figures and verdicts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

import engine.evaluation
from neurofv.audit.agreement import correlation
from neurofv.audit.figures import apart
from neurofv.audit.plan import read_plan
from neurofv.audit.report import Failure, _summary, _thresholds
from neurofv.audit.standings import Figures, Standing
from neurofv.audit.tasks import Key, Unit
from neurofv.audit.verdicts import judge, leads
from neurofv.v1 import model_service_pb2 as pb

NOTHING = Figures(None, None, None, None, None, None)


def blobs(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((20, 24, 18))
    return ndimage.gaussian_filter(noise, 1.5).astype(np.float32)


def test_agreement_is_the_services_own() -> None:
    one, other = blobs(0), 0.5 * blobs(0) + blobs(1)
    expected = engine.evaluation.agreement(torch.from_numpy(one), torch.from_numpy(other))[0]
    assert correlation(one, other) == pytest.approx(expected, abs=1e-4)


def test_agreement_finds_what_was_moved_and_nothing_where_nothing_is() -> None:
    volume = np.zeros((30, 30, 30), np.float32)
    volume[5:15, 6:14, 8:16] = blobs(2)[:10, :8, :8]
    moved = np.roll(volume, (6, -2, 4), (0, 1, 2))
    assert correlation(volume, moved) == pytest.approx(1, abs=0.01)
    assert correlation(volume, np.zeros_like(volume)) == 0
    assert abs(correlation(blobs(3), blobs(4))) < 0.6


def test_large_volumes_are_halved() -> None:
    large = np.kron(blobs(5), np.ones((3, 3, 3), np.float32))
    assert correlation(large, large) == pytest.approx(1)
    other = np.kron(blobs(6), np.ones((3, 3, 3), np.float32))
    assert correlation(large, other) == pytest.approx(correlation(blobs(5), blobs(6)), abs=0.15)


def levels(own: Figures, random: Figures | None = None, alike: float | None = None) -> dict[str, str]:
    return {each.id: each.level for each in judge(Standing("default", own, random, alike, 2), True)}


def test_verdicts_follow_the_figures() -> None:
    best = levels(Figures(0.9, 1.0, None, 1.0, 0.9, 0.8))
    assert set(best.values()) == {"good"}
    assert set(levels(Figures(0.1, 0.2, None, 0.1, 0.1, 0.0)).values()) == {"warning"}
    assert set(levels(NOTHING).values()) == {"unknown"}
    assert "path" not in levels(NOTHING)


def test_a_unit_without_pictures_is_warned_of() -> None:
    (only,) = judge(Standing("default", NOTHING, None, None, 0), True)
    assert (only.id, only.level) == ("pictures", "warning")


def test_a_picture_that_does_no_better_than_the_random_network_is_warned_of() -> None:
    own = Figures(0.5, 0.9, 0.6, 1.0, 0.9, None)
    better = Figures(0.4, 0.8, 0.1, None, None, None)
    found = levels(own, better, 0.2)
    assert {found[f"control_{name}"] for name in ("seed_agreement", "selectivity", "transfer")} == {"good"}
    assert found["control_likeness"] == "good"
    assert leads(own, better) == pytest.approx({"seed_agreement": 0.1, "selectivity": 0.1, "transfer": 0.5})
    worse = Figures(0.6, 0.9, 0.7, None, None, None)
    found = levels(own, worse, 0.55)
    assert {value for name, value in found.items() if name.startswith("control")} == {"warning"}
    # A hair's breadth is no lead.
    near = levels(own, Figures(0.46, 0.86, 0.56, None, None, None), 0.46)
    assert {value for name, value in near.items() if name.startswith("control")} == {"warning"}
    just = levels(own, Figures(0.45, 0.85, 0.55, None, None, None), 0.45)
    assert {value for name, value in just.items() if name.startswith("control")} == {"good"}
    words = [each.words for each in judge(Standing("default", own, worse, 0.55, 2), True)]
    assert any(
        "not clearly more stable than the random network's picture (0.50 against 0.60)" in each
        for each in words
    )
    # More than fully specific nothing can be.
    full = Figures(0.5, 1.0, None, None, None, None)
    assert levels(full, full)["control_selectivity"] == "fair"
    assert leads(own, None) == {}


def words(**figures: float) -> str:
    own = Figures(**{**vars(NOTHING), **figures})
    return "; ".join(each.words for each in judge(Standing("default", own, None, None, 2), False))


def test_words_are_never_rounded_up_to_a_bound_that_is_missed() -> None:
    assert "few other channels fire more on the picture (stronger than 99.6 % of" in words(selectivity=0.9961)
    assert "hardly fires" in words(held_out=0.2999)
    assert "(keeps 29.9 % of" in words(held_out=0.2999)
    assert "alike in part (correlation 0.49 between" in words(seed_agreement=0.4999)


def test_a_figure_and_its_limit_are_told_apart() -> None:
    assert apart(0.0996, 0.1) == ("0.0996", "0.1000")
    assert apart(0.1, 0.1) == ("0.10", "0.10")
    assert apart(0.61, 0.5) == ("0.61", "0.50")
    assert apart(None, 0.5) == ("-", "0.50")
    assert apart(2, 0) == ("2", "0")


def threshold(own: Figures, random: Figures, kind: str, **choices: object) -> float | None:
    plan = read_plan(
        {"audit": 1, "model": "m", "units": [{"classes": "all"}], "strategies": {"default": choices}}
        | {"thresholds": {"above_random": -1.0}}
    )
    unit = Unit("u", "layer", 0, "cube" if kind == "class" else "")
    (line,) = _thresholds(plan, {unit: [Standing("default", own, random, None, 2)]}, None)
    assert line["passed"] is (line["value"] is not None)
    return line["value"]


def test_a_lead_over_the_random_network_is_unknown_if_a_part_of_it_is() -> None:
    whole, half = Figures(0.5, 0.9, 0.6, None, None, None), Figures(0.5, 0.9, None, None, None, None)
    silent = Figures(None, 0.9, 0.6, None, None, None)
    random = Figures(0.3, 0.4, 0.1, None, None, None)
    assert threshold(whole, random, "class", transfer="other") == pytest.approx(0.2)
    assert threshold(half, random, "class", transfer="other") is None
    assert threshold(half, random, "channel", transfer="other") == pytest.approx(0.2)
    assert threshold(half, random, "class") == pytest.approx(0.2)
    assert threshold(silent, random, "class") is None


def test_the_summary_counts_controls_apart() -> None:
    keys = [Key("u", "default", 0, control) for control in ("none", "random_weights", "random_weights")]
    failed = [Failure(key, "UNIT_DEAD", "dead") for key in keys]
    lines = _summary(pb.Model(name="m", version=1), [], failed, [], None)
    assert "1 picture could not be made" in lines
    assert "2 pictures of the random network could not be made" in lines
