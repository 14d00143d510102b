"""Figures and verdicts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

import engine.evaluation
from neurofv.audit.agreement import correlation
from neurofv.audit.standings import Figures, Standing
from neurofv.audit.verdicts import judge, leads

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
    words = [each.words for each in judge(Standing("default", own, worse, 0.55, 2), True)]
    assert any(
        "no more stable than the random network's picture (0.50 against 0.60)" in each for each in words
    )
    # More than fully specific nothing can be.
    full = Figures(0.5, 1.0, None, None, None, None)
    assert levels(full, full)["control_selectivity"] == "fair"
    assert leads(own, None) == {}
