"""Every rule does what MONAI's or plain arithmetic does, and survives JSON."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from models.normalization import MinMax, Normalization, Quantile, Unchanged, ZScore

RULES = [
    Quantile(quantile=0.9),
    ZScore(),
    ZScore(voxels="all", clip=(0.01, 0.99), mean=0.4, deviation=0.2),
    MinMax(),
    MinMax(voxels="nonzero", quantiles=(0.05, 0.95)),
    Unchanged(),
]


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.where(rng.random((9, 8, 7)) < 0.3, 0, rng.gamma(3, 100, (9, 8, 7))).astype(np.float32)


@pytest.mark.parametrize("nonzero", [True, False])
def test_zscore_is_monais(image: np.ndarray, nonzero: bool) -> None:
    from monai.transforms import NormalizeIntensity

    theirs = np.asarray(NormalizeIntensity(nonzero=nonzero)(image))
    np.testing.assert_allclose(ZScore(voxels="nonzero" if nonzero else "all").apply(image), theirs, atol=1e-5)


def test_minmax_is_monais(image: np.ndarray) -> None:
    from monai.transforms import ScaleIntensity

    np.testing.assert_allclose(MinMax().apply(image), np.asarray(ScaleIntensity()(image)), atol=1e-6)


def test_figures_become_what_the_rule_says(image: np.ndarray) -> None:
    model = ZScore(voxels="all", clip=(0.01, 0.99), mean=0.4, deviation=0.2).apply(image)
    assert (model.mean(), model.std()) == pytest.approx((0.4, 0.2), abs=1e-4)
    quantile = Quantile(quantile=0.9).apply(image)
    assert np.quantile(quantile[image != 0], 0.9) == pytest.approx(1)
    np.testing.assert_array_equal(Unchanged().apply(image), image)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_a_rule_survives_json_and_speaks_of_itself(rule: Normalization, image: np.ndarray) -> None:
    adapter: TypeAdapter[Normalization] = TypeAdapter(Normalization)
    again = adapter.validate_json(adapter.dump_json(rule))
    assert again == rule
    assert "image" in rule.words
    model = again.apply(image)
    assert model.dtype == np.float32
    assert model.shape == image.shape


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
@pytest.mark.parametrize("values", [[1.0, np.nan], [0.0, 0.0]])
def test_an_image_that_shows_nothing_is_refused(rule: Normalization, values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"NaN|zero everywhere"):
        rule.apply(np.array(values))


@pytest.mark.parametrize("rule", [ZScore(), ZScore(voxels="all"), MinMax()], ids=lambda rule: rule.kind)
def test_a_constant_image_is_refused(rule: Normalization) -> None:
    with pytest.raises(ValueError, match="shows nothing"):
        rule.apply(np.full(5, 2.0))


@pytest.mark.parametrize(
    "bad", [{"kind": "zscore", "clip": [0.9, 0.1]}, {"kind": "minmax", "quantiles": [1, 1]}]
)
def test_ends_in_the_wrong_order_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match="low < high"):
        TypeAdapter(Normalization).validate_python(bad)
