"""Shortcuts are planted as said, and limits come from other networks than figures."""

import json

import numpy as np
import pytest

from benchmarks.facts import RESULTS
from benchmarks.shortcuts.__main__ import calibrating, examined
from benchmarks.shortcuts.cohorts import Case, Sampler
from benchmarks.shortcuts.judging import NAMES, rates
from benchmarks.shortcuts.plants import SIGNALS
from benchmarks.shortcuts.report import PAGE, page
from neurofv.audit.battery import battery
from neurofv.audit.nuisances import Place

SHAPE = (16, 20, 16)
LINES = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
MASK = sum(line**2 for line in LINES) < 0.7


def brain() -> np.ndarray:
    texture = np.random.default_rng(0).uniform(0.4, 0.8, SHAPE)
    return np.where(MASK, texture, 0).astype(np.float32)


def test_the_page_is_what_its_json_says() -> None:
    figures = json.loads((RESULTS / "shortcuts.json").read_text())
    assert page(figures) == PAGE.read_text()


@pytest.mark.parametrize("kind", SIGNALS)
def test_a_plant_changes_what_it_says(kind: str) -> None:
    case = Case(kind, 3)
    control, planted = (case.image(brain(), label, np.random.default_rng(1)) for label in (0, 1))
    assert control.shape == planted.shape == SHAPE
    assert np.abs(control - planted).max() > 0.02
    assert bool(planted[~MASK].any()) == (kind in ("corner", "side"))


def test_any_brain_may_be_of_either_class() -> None:
    volumes, labels = Sampler(Case("noise", 0), brain()[None]).batch(0, 4)
    assert volumes.shape == (4, 1, *SHAPE)
    assert sorted(labels.tolist()) == [0, 0, 1, 1]


def test_every_plant_has_a_name_in_the_audit() -> None:
    assert set(NAMES) == {kind for kind, signal in SIGNALS.items() if signal.shortcut}
    assert set(NAMES.values()) == set(battery(Place(np.eye(4), MASK)))


def test_limits_come_from_other_networks() -> None:
    first, second = {case.name for case in calibrating()}, {case.name for case in examined(5)}
    assert not first & second
    assert len(second) == 5 * (10 + 8)


def test_rates_tell_who_is_missed_and_who_is_accused() -> None:
    said = {"noise-0": ["stripes", "noise"], "cut-0": [], "lesions-0": ["ringing"], "ventricles-0": []}
    found = rates(said)
    assert found["detected"]["estimate"] == found["any_alarm"]["estimate"] == 0.5
    assert found["named_first"]["estimate"] == 0
    assert (found["missed"], found["falsely_accused"]) == (["cut-0"], ["lesions-0"])
    assert found["detected"]["low"] < 0.5 < found["detected"]["high"]
