"""Networks in closed form that read one thing: the audit must name it, and clear the honest ones."""

from collections.abc import Callable

import numpy as np
import pytest

from neurofv.audit.battery import battery
from neurofv.audit.movement import movement
from neurofv.audit.nuisances import Place
from neurofv.audit.shortcuts import Effect, Untestable, find_shortcuts, judge, measure_effects

SHAPE, AFFINE = (20, 24, 20), np.array([[-8.0, 0, 0, 76], [0, 8, 0, -92], [0, 0, 8, -76], [0, 0, 0, 1]])
AXES = [np.linspace(-1, 1, n) for n in SHAPE]
X, Y, Z = np.meshgrid(*AXES, indexing="ij")
MASK = X**2 + Y**2 + Z**2 < 0.8**2
Score = Callable[[np.ndarray], float]


def brain(seed: int, contrast: float = 0.05) -> np.ndarray:
    rng = np.random.default_rng(seed)
    waves = sum(
        rng.normal(0, contrast) * np.cos(rng.uniform(1, 5) * axis + rng.uniform(0, 6)) for axis in (X, Y, Z)
    )
    return np.where(MASK, 300 * (0.7 + waves + rng.normal(0, rng.uniform(0.01, 0.03), SHAPE)), 0)


def rough(image: np.ndarray) -> float:
    """The second difference within the brain: that of noise is large."""
    unit = image / image[MASK].mean()
    return float(np.abs(np.diff(unit, 2, axis=1))[:, 1:-1][MASK[:, 2:-2]].mean())


def corner(image: np.ndarray) -> float:
    return float(image[:5, -5:, :5].max() / image[MASK].mean())


def slope(image: np.ndarray) -> float:
    """How much brighter the front is than the back."""
    return float(image[MASK & (Y > 0.2)].mean() / image[MASK & (Y < -0.2)].mean())


def top(image: np.ndarray) -> float:
    return float((image[:, :, 17:] != 0).sum()) / 100


def left_air(image: np.ndarray) -> float:
    return float(image[-3:, 3:-3, 3:-3].sum() / image[MASK].mean())


def deep(image: np.ndarray) -> float:
    """An honest sign: a dark place in the brain, against the tissue beside it."""
    return float(image[12:14, 9:11, 9:11].mean() / image[5:8, 8:16, 8:12].mean())


def planted(kind: str, image: np.ndarray, seed: int) -> np.ndarray:
    changed, rng = image.copy(), np.random.default_rng(seed)
    if kind == "corner marker":
        changed[1:3, -3:-1, 1:3] = 280
    elif kind == "noise":
        changed += MASK * rng.normal(0, 15, SHAPE)
    elif kind == "bias field":
        changed *= 1 + 0.3 * Y
    elif kind == "cut edge":
        changed[:, :, 17:] = 0
    elif kind == "side marker":
        changed[-2:, 6:14, 6:14] = 280
    elif kind == "none":
        changed[12:14, 9:11, 9:11] *= 0.5
    return changed


def cohort(kind: str) -> list[np.ndarray]:
    # Noise changes the shades of brains that hardly differ in them.
    contrast = 0.2 if kind == "noise" else 0.05
    return [planted(kind if seed % 2 else "as it is", brain(seed, contrast), seed) for seed in range(8)]


def reader(score: Score, images: list[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Put the border halfway between the two classes."""
    values = [score(image) for image in images]
    border = (np.mean(values[::2]) + np.mean(values[1::2])) / 2
    sign = np.sign(np.mean(values[1::2]) - np.mean(values[::2]))
    return lambda image: np.array([0.0, 3 * sign * (score(image) - border)])


@pytest.mark.parametrize(
    ("kind", "score"),
    [
        ("corner marker", corner),
        ("noise", rough),
        ("bias field", slope),
        ("cut edge", top),
        ("side marker", left_air),
    ],
)
def test_each_shortcut_is_named_first(kind: str, score: Score) -> None:
    images = cohort(kind)
    found = find_shortcuts(reader(score, images), images, AFFINE, MASK, ["well", "ill"])
    assert found[0].kind == kind
    assert found[0].effect > 0.4
    assert "well" in found[0].words
    assert "ill" in found[0].words


def test_a_sign_in_the_brain_is_no_shortcut() -> None:
    images = cohort("none")
    logits = reader(deep, images)
    assert [int(logits(image).argmax()) for image in images] == [0, 1] * 4
    assert find_shortcuts(logits, images, AFFINE, MASK) == []


def test_the_place_is_told() -> None:
    images = cohort("corner marker")
    found = find_shortcuts(reader(corner, images), images, AFFINE, MASK)
    # The first axis runs to the left.
    assert "right, front, bottom" in str(found[0].evidence["form"])


def test_the_scale_of_the_images_does_not_matter() -> None:
    images = cohort("noise")
    logits = reader(rough, images)
    once = measure_effects(logits, images, AFFINE, MASK)
    again = measure_effects(logits, [image * 40 for image in images], AFFINE, MASK)
    for one, other in zip(once, again, strict=True):
        assert one.effect == pytest.approx(other.effect, rel=1e-6)


def test_the_control_is_told_beside_the_finding() -> None:
    images = cohort("noise")
    logits = reader(rough, images)
    found = find_shortcuts(logits, images, AFFINE, MASK, control=lambda image: np.zeros(2))
    assert found[0].control == 0
    assert find_shortcuts(logits, images, AFFINE, MASK)[0].control is None


def test_a_movement_is_counted_in_distances_between_the_classes() -> None:
    answers = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 6.0]])
    changed = np.array([[2.0, 4.0], [2.0, 4.0], [0.0, 6.0]])
    assert movement(answers, changed, [0, 1, 2]) == (0.5, 1.0, 0, 1)
    # Without an image of the other class it lies as far beyond the border.
    assert movement(answers[:2], changed[:2], [0, 1]) == (1.0, 1.0, 0, 1)


def test_findings_are_large_and_alike_and_come_by_both() -> None:
    def effect(kind: str, size: float, alike: float) -> Effect:
        return Effect(kind, kind, size, kind, 0.01, 1.0, 0, 1, alike)

    found = judge(
        [
            effect("bias field", 0.6, 0.65),
            effect("noise", 0.5, 0.9),
            effect("smoothing", 0.9, 0.5),
            effect("ghosting", 0.1, 0.9),
            effect("intensity", 0.9, 0.3),
        ]
    )
    assert [each.kind for each in found] == ["noise", "bias field"]


def test_nuisances_keep_air_empty_unless_they_lie_in_it() -> None:
    place = Place(AFFINE, MASK)
    image = brain(0) / 300
    for kind, nuisance in battery(place).items():
        for variant in nuisance.variants:
            changed = variant.change(image, place=place)
            assert changed.shape == SHAPE
            assert np.isfinite(changed).all()
            assert (changed >= 0).all()
            in_air = np.any(changed[~MASK] != 0)
            assert in_air == (kind in ("corner marker", "side marker") and "emptied" not in variant.words)


@pytest.mark.parametrize("members", [(0, 2, 4, 6), (0, 1, 2, 4, 6)])
def test_images_of_one_class_are_no_reason_for_calm(members: tuple[int, ...]) -> None:
    images = cohort("corner marker")
    logits = reader(corner, images)
    chosen = [images[index] for index in members]
    with pytest.raises(Untestable, match=r"class 0: 4.*each of two classes"):
        find_shortcuts(logits, chosen, AFFINE, MASK)


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="give at least 2"):
        measure_effects(lambda image: np.zeros(2), [brain(0)], AFFINE, MASK)
    with pytest.raises(ValueError, match="zero everywhere"):
        measure_effects(lambda image: np.zeros(2), [np.zeros(SHAPE), brain(0)], AFFINE, MASK)
