"""Where maps lie, and how fine they are."""

import numpy as np
import pytest

from benchmarks.shortcuts.reading import map_figures

SHAPE, AFFINE = (20, 24, 20), np.diag([8.0, 8.0, 8.0, 1.0])
AXES = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
MASK = sum(axis**2 for axis in AXES) < 0.8**2


def even() -> np.ndarray:
    return np.where(MASK, 1 + 0.2 * np.random.default_rng(0).normal(size=SHAPE), 0.2)


def spot(*box: slice) -> np.ndarray:
    found = even()
    found[box] += 30
    return found


@pytest.mark.parametrize(
    ("family", "found"),
    [
        ("corner", spot(slice(0, 3), slice(0, 3), slice(0, 3))),
        ("side", spot(slice(0, 2), slice(10, 14), slice(8, 12))),
        ("edge", np.where(MASK & (AXES[2] > 0.6), 20, even())),
        ("fine", even() + 10 * np.random.default_rng(1).normal(size=SHAPE)),
        ("coarse", np.where(MASK, 1 + 5 * (AXES[1] + 1) + 0.2 * even(), 2.0)),
    ],
)
def test_a_map_tells_its_family(family: str, found: np.ndarray) -> None:
    textured = np.where(MASK, np.random.default_rng(2).normal(size=SHAPE), 0.2)
    usual = map_figures([textured if family == "coarse" else even()], AFFINE, MASK)
    figures = map_figures([found], AFFINE, MASK)
    ratios = {name: figures[name] / max(usual[name], 1e-6) for name in figures}
    assert max(ratios, key=ratios.__getitem__) == family
