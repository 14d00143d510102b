"""Bounds refuse what the method cannot use, and say what it can."""

import math

import pytest

from engine import L1, Adam, Fourier, GaussianBlur, InvalidField, Spec, Term, Transforms
from engine.fields import Bounds


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda v: L1(weight=v), "weight"),
        (lambda v: Fourier(decay=v), "decay"),
        (lambda v: GaussianBlur(fwhm_mm=v), "fwhm_mm"),
        (lambda v: Adam(learning_rate=v), "learning_rate"),
        (lambda v: Transforms(jitter_mm=v), "jitter_mm"),
        (lambda v: Transforms(scale=v), "scale"),
        (lambda v: Term(None, weight=v), "weight"),
    ],
)
def test_bad_numbers_are_refused_by_name(make, field: str, value: float) -> None:
    with pytest.raises(InvalidField) as caught:
        make(value)
    assert caught.value.field == field
    assert caught.value.rule in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("steps", -1), ("seed", -1), ("snapshot_every", -2)]
)
def test_a_spec_checks_its_counts(field: str, value: int) -> None:
    with pytest.raises(InvalidField, match=field):
        Spec(grid=None, objective=None, **{field: value})


def test_bounds_read_as_a_sentence() -> None:
    assert (
        str(Bounds("x", unit="mm", minimum=0, maximum=5)) == "a finite number at least 0 and at most 5 (mm)"
    )
    assert str(Bounds("x", above=0)) == "a finite number above 0"


def test_bounds_are_inclusive_but_for_above() -> None:
    bounds = Bounds("x", minimum=0, maximum=5)
    assert bounds.accepts(0)
    assert bounds.accepts(5)
    assert not Bounds("x", above=0).accepts(0)
