import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models import Manifest
from models.normalization import Quantile


def test_json_is_canonical(manifest: Manifest) -> None:
    data = manifest.to_json()
    again = Manifest.model_validate_json(data)
    assert again == manifest
    assert again.to_json() == data
    text = data.decode()
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def test_a_manifest_cannot_be_changed(manifest: Manifest) -> None:
    anything: Any = manifest
    with pytest.raises(ValidationError, match="frozen"):
        anything.version = 2


@pytest.mark.parametrize("name", ["", "-a", "a/b", "..", "A", "a" * 64, "a b", "a\n", "ä"])
def test_names_that_are_no_folder_names_are_refused(manifest_facts: dict[str, Any], name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        Manifest.model_validate({**manifest_facts, "name": name})


@given(st.lists(st.floats(0.5, 1000), min_size=1, max_size=50), st.floats(0.01, 0.99))
def test_normalization_brings_the_quantile_to_one(values: list[float], quantile: float) -> None:
    image = np.array([0.0, 0.0, *values])
    q = Quantile(quantile=quantile).scale(image)
    model = image / q
    assert np.quantile(model[model != 0], quantile) == pytest.approx(1)
    assert np.allclose(model * q, image)


@pytest.mark.parametrize(
    ("image", "match"),
    [
        ([0.0, 0.0], "zero everywhere"),
        ([], "zero everywhere"),
        ([1.0, np.nan], "NaN"),
        ([-1.0, -2.0], "not positive"),
    ],
)
def test_an_image_without_a_scale_is_refused(image: list[float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Quantile(quantile=0.995).scale(np.array(image))
