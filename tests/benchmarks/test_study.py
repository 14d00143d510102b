from __future__ import annotations

import numpy as np
import pytest
import torch

import engine
from benchmarks.study.matcher import SIZES, match
from benchmarks.study.networks import EDGE, Network
from benchmarks.study.recovery import judge, summarize, tasks
from benchmarks.study.strategies import LADDER, Strategy
from training.lesions.shapes import GRID, SHAPES, distractor_mask, shape_mask


@pytest.fixture(scope="module")
def ordinary() -> Network:
    return Network("ordinary")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("target", "contrast"), [(1.0, 1), (0.2, -1)])
def test_a_painted_shape_is_named_and_found(shape: str, target: float, contrast: int) -> None:
    """Bright or dark, under as much noise as a quarter of its contrast."""
    ground = np.full((30, 34, 29), 0.6, np.float32)
    picture = ground + np.random.default_rng(0).normal(0, 0.1, ground.shape).astype(np.float32)
    picture[4:21, 9:26, 7:24] += shape_mask(shape) * (target - 0.6)
    found = match(picture, ground)
    assert (found.shape, found.contrast, found.size) == (shape, contrast, 1.0)
    assert np.abs(np.array(found.center) - (12, 17, 15)).max() <= 1
    assert found.ncc == max(found.by_shape.values())
    assert found.ncc > 0.6


def test_correlation_is_that_of_numpy() -> None:
    """On a box of one ball's size, the middle voxel's correlation is Pearson's over the ball."""
    rng = np.random.default_rng(1)
    picture = rng.normal(size=(GRID,) * 3)
    axis = np.arange(GRID) - GRID // 2
    ball = np.sqrt(sum(part**2 for part in np.meshgrid(axis, axis, axis, indexing="ij"))) <= 7.5
    picture[ball] += 5 * shape_mask("sphere")[ball]
    start = picture.copy()
    start[(GRID // 2,) * 3] -= 100  # every place whose ball holds the middle departs as much
    found = match(picture, start, fwhm=0)
    expected = np.corrcoef(picture[ball], shape_mask("sphere")[ball])[0, 1]
    assert found.by_shape["sphere"] >= expected - 1e-6


def test_a_larger_shape_is_found_larger() -> None:
    from scipy import ndimage

    grown = ndimage.zoom(np.pad(shape_mask("cube"), 8), 1.25, order=1)
    assert match(grown + 0.1, 0.1).size == pytest.approx(1.25)
    assert 1.25 in SIZES


def test_what_is_no_shape_fits_badly() -> None:
    rng = np.random.default_rng(2)
    fits = [match(np.pad(distractor_mask(rng), 12), 0.0).ncc for _ in range(4)]
    whole = [match(np.pad(shape_mask(shape), 12), 0.0).ncc for shape in SHAPES]
    assert max(fits) < 0.95 < 0.99 < min(whole)


def test_summaries_count_right_answers_with_wilson_s_interval() -> None:
    base = {
        "shape": "cube",
        "ncc": 0.5,
        "ncc_unsmoothed": 0.4,
        "size_error_mm": -2.0,
        "contrast": 1,
        "times_real": 2.0,
    }
    rows = [{**base, "named": "cube"}] * 8 + [{**base, "named": "cross"}] * 2
    found = summarize(rows)
    assert (found["right"], found["pictures"], found["size_error_mm"]) == (8, 10, 2.0)
    # The closed form of Wilson 1927 for 8 of 10.
    z = 1.959963984540054
    middle, half = (0.8 + z**2 / 20) / (1 + z**2 / 10), z / (1 + z**2 / 10) * (0.016 + z**2 / 400) ** 0.5
    assert found["interval"] == pytest.approx([middle - half, middle + half])


def test_tasks_cover_every_combination_once() -> None:
    found = tasks(("robust", "ordinary"), ("a", "b"), range(3))
    assert len(found) == len(set(found)) == 2 * 2 * 3 * len(SHAPES)


def test_a_strategy_keeps_the_picture_as_it_forms(ordinary: Network) -> None:
    strategy = Strategy({"steps": 24, "regularizers": (engine.regularizer.IntensityClip(0.25, 1.0),)})
    made = strategy.make(ordinary, "cube", seed=0)
    assert made.final.shape == (EDGE,) * 3
    assert len(made.forming) >= 2
    low, high = np.interp([0.25, 1.0], *(part.numpy() for part in ordinary.anatomy.intensities or ()))
    assert isinstance(made.start, torch.Tensor)
    assert made.start.min() == pytest.approx(low, abs=1e-5)
    assert made.start.max() <= high + 1e-5
    assert not torch.equal(made.forming[0], made.final)


def test_a_picture_is_judged_by_the_template_of_its_class(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr("benchmarks.study.recovery.KEPT", tmp_path_factory.mktemp("kept"))
    monkeypatch.setitem(LADDER, "short", Strategy({"steps": 8}))
    threads = torch.get_num_threads()
    try:
        row = judge(("ordinary", "short", "torus", 0))
    finally:
        torch.set_num_threads(threads)
    assert row["named"] in SHAPES
    assert 0 < float(row["ncc"]) <= 1  # type: ignore[arg-type]
    assert row["equal"] is None or row["equal"]["named"] in SHAPES  # type: ignore[index]
