"""The study of sizes: planted growth, sex, and the registration that both are held against."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.affines import apply_affine

from benchmarks.facts import RESULTS
from benchmarks.study import growth, report, sex
from benchmarks.study.morphometry import log_jacobian
from benchmarks.study.networks import read
from benchmarks.study.parallel import mapped
from benchmarks.study.warps import RECOMMENDED, WAYS, Way, reference
from training.cohort import find_scan, normalize, read_participants
from training.whole.growth import Region, plant, planted_log_jacobian
from training.whole.volumes import halve, halved_affine


@pytest.fixture(scope="module")
def truth() -> growth.Truth:
    return growth.Truth(read("growth"))


def test_what_was_planted_is_judged_perfect(truth: growth.Truth) -> None:
    found = truth.judge(truth.log_jacobian, "grown")
    assert found["correlation"] == pytest.approx(1)
    assert found["share"] == 1
    assert found["right_way"]
    assert found["growth_percent"] == pytest.approx(100 * truth.growth, abs=0.5)
    assert truth.judge(-truth.log_jacobian, "unchanged")["correlation"] == pytest.approx(1)
    wrong = truth.judge(truth.log_jacobian, "unchanged")
    assert wrong["correlation"] == pytest.approx(-1)
    assert not wrong["right_way"]
    assert wrong["share"] == 0


def test_noise_is_judged_by_chance(truth: growth.Truth) -> None:
    noise = np.random.default_rng(0).normal(size=truth.head.shape)
    found = truth.judge(noise, "grown")
    assert abs(found["correlation"]) < 0.05
    assert found["share"] < 0.2


@pytest.mark.parametrize("label", ["grown", "unchanged"])
def test_the_shipped_network_shows_the_region(truth: growth.Truth, label: str) -> None:
    bundle = read("growth")
    found = truth.judge(WAYS[RECOMMENDED].warp(bundle, label, reference(bundle)), label)
    assert found["correlation"] >= 0.6
    assert found["share"] >= 0.5
    assert found["right_way"]


def test_a_modest_warp_is_smaller() -> None:
    bundle = read("growth")
    modest, far = (Way(modest=modest).warp(bundle, "grown", reference(bundle)) for modest in (True, False))
    assert np.abs(modest).max() < np.abs(far).max()


def test_registration_finds_a_planted_growth(cohort_dir: Path) -> None:
    scan = nibabel.load(find_scan(cohort_dir, read_participants(cohort_dir)[0], "affinebrain"))
    before = normalize(scan.get_fdata(dtype=np.float32))
    small = [normalize(halve(brain)) for brain in (before, plant(before, scan.affine, Region(), 0.3))]
    measured = log_jacobian(*small)
    planted = planted_log_jacobian(Region(), 0.3, measured.shape, halved_affine(scan.affine))
    head = small[0] > 0
    assert np.corrcoef(measured[head], planted[head])[0, 1] > 0.5
    assert measured[head & (planted > 0.2)].mean() > 0.1
    assert np.abs(log_jacobian(small[0], small[0])).max() < 0.02


@pytest.fixture(scope="module")
def atlas() -> sex.Atlas:
    return sex.Atlas(read("sex-affine"))


def test_regions_lie_where_they_are_called(atlas: sex.Atlas) -> None:
    assert len(atlas.regions) > 100
    affine = np.array(atlas.bundle.manifest.input.affine)
    for name, mask in atlas.regions.items():
        x = apply_affine(affine, np.argwhere(mask))[:, 0].mean()
        if name.endswith("_L") or name.endswith("_R"):
            assert (x < 0) == name.endswith("_L"), name


def test_a_network_that_wants_what_differs_correlates(atlas: sex.Atlas) -> None:
    rng = np.random.default_rng(1)
    shape = atlas.bundle.manifest.input.shape
    codes = np.repeat([0, 1], 10)
    pattern = np.zeros(shape, np.float32)
    for mask in atlas.regions.values():
        pattern[mask] = rng.normal(0, 0.05)
    measured = codes[:, None, None, None] * pattern + rng.normal(0, 0.02, (20, 1, 1, 1))
    same = sex.compare(atlas, np.stack([pattern, pattern]), measured, codes)
    assert same["rank_correlation"]["estimate"] > 0.95
    other = np.zeros((2, *shape), np.float32)
    for mask in atlas.regions.values():
        other[:, mask] = rng.normal(0, 0.05)
    unlike = sex.compare(atlas, other, measured, codes)
    assert abs(unlike["rank_correlation"]["estimate"]) < 0.4
    largest = unlike["regions"][0]
    assert largest["measured"]["low"] <= largest["measured"]["estimate"] <= largest["measured"]["high"]


def test_results_come_in_the_items_order() -> None:
    assert mapped(abs, [-3, 2, -1], "numbers") == [3, 2, 1]


def test_the_page_is_what_its_json_says() -> None:
    figures = json.loads((RESULTS / "study.json").read_text())
    page = Path(__file__).parents[2] / "docs" / "study.md"
    assert report.page(figures) == page.read_text(encoding="utf-8")
    figures["shapes"]["digests"]["robust"] = "0123456789abcdef"
    assert "`0123456789ab`" in report.page(figures)
