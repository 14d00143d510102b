"""Shortcuts: whether a model listens to what a scanner or a site adds to an image.

The model is asked about real images and about twins of them, changed by a battery of nuisances
(`neurofv.audit.nuisances`). Nobody says which shortcut to look for. One is there if two things are true:

- It moves the answer. How far is counted in distances between the classes: 1 is as far as from images of one
  class to those of the other.
- The images that the model tells apart differ in the same way (`neurofv.audit.traits`). Without this, a model
  that looks for small lesions would be accused of sharpness, which it minds but does not use.

So the images must be as the model's own cohort has them; in images without the shortcut nothing is found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy

from neurofv.audit.battery import battery
from neurofv.audit.movement import movement
from neurofv.audit.nuisances import Nuisance, Place, Variant
from neurofv.audit.traits import Traits, likeness

Logits = Callable[[np.ndarray], np.ndarray]
"""Answers one image `(X, Y, Z)` with the class logits `(classes,)`, after the model's own normalization."""
LIMIT = 0.25
"""Least effect of a shortcut."""
ALIKE = 0.53
"""Least likeness of a shortcut. It lies between clean networks and cheats that take no part in the figures of
docs/shortcuts.md."""
FEWEST = 2
"""Images that an audit needs, of each of two answers."""
SCREENED = 4
"""Images by which the form of a nuisance is chosen: one of eight corners, one of eighteen fields."""


class Untestable(ValueError):
    """Nothing could be found with these images, whatever the model does."""


@dataclass(frozen=True)
class Effect:
    """How far one kind of nuisance moves a model's answer.

    Attributes
    ----------
    kind, words : str
        The nuisance.
    effect : float
        Median movement over the images of a class, of the form and towards the class that moves most, in
        distances between the two classes.
    form : str
        That form.
    energy : float
        Root mean square of what it changes, in parts of bright tissue.
    moved : float
        Share of those images whose answer changes.
    away, towards : int
        Classes that it moves images from and to.
    likeness : float
        How alike are what it changes in images and what tells the two classes' images apart, -1 to 1.
    """

    kind: str
    words: str
    effect: float
    form: str
    energy: float
    moved: float
    away: int
    towards: int
    likeness: float


@dataclass(frozen=True)
class Finding:
    """A shortcut that a model uses.

    Attributes
    ----------
    kind, words : str
        What it is; a plain sentence with the figure.
    effect : float
        As in `Effect`.
    control : float or None
        Effect of the same nuisance on the network with random weights.
    evidence : dict
        `form`, `energy`, `moved`, `away`, `towards`, `likeness`, and the rank.
    """

    kind: str
    words: str
    effect: float
    control: float | None = None
    evidence: dict[str, object] = field(default_factory=dict)


def measure_effects(
    logits: Logits,
    images: Sequence[np.ndarray],
    affine: np.ndarray,
    mask: np.ndarray,
    nuisances: dict[str, Nuisance] | None = None,
) -> list[Effect]:
    """Measure how far each nuisance moves a model's answers.

    Parameters
    ----------
    logits : callable
        The model. It is asked once an image, for each form of each nuisance about four of them, and for the
        strongest form of each kind all.
    images : sequence of numpy.ndarray
        Real images `(X, Y, Z)` of any scale, as the model's cohort has them; some of each class.
    affine : numpy.ndarray
        Voxel to world in mm, shape `(4, 4)`.
    mask : numpy.ndarray of bool
        Where brains are, on the same grid.
    nuisances : dict, optional
        Instead of the whole battery.

    Returns
    -------
    list of Effect
        One a kind, in the battery's order.

    Raises
    ------
    ValueError
        There are fewer than two images, or their grid is not that of the mask.
    """
    return _show(logits, images, affine, mask).effects(nuisances)


def head_mask(images: Sequence[np.ndarray]) -> np.ndarray:
    """Return where heads are, bool `(X, Y, Z)`: the largest connected part of what half of the images fill.

    So what one of two classes lacks at an edge of the head is part of it, and a marker apart from it is not.
    """
    parts, count = scipy.ndimage.label(np.mean([image != 0 for image in images], axis=0) >= 0.5)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    return np.asarray(parts == 1 + int(np.argmax(sizes)) if count else parts > 0)


def _bright(image: np.ndarray) -> float:
    tissue = image[image != 0]
    if not tissue.size or not np.isfinite(tissue).all():
        raise ValueError("images: one is zero everywhere or holds NaN; give real ones")
    return max(float(np.quantile(tissue, 0.995)), 1e-12)


def _check_images(images: Sequence[np.ndarray], mask: np.ndarray) -> None:
    if len(images) < FEWEST or any(image.shape != mask.shape for image in images):
        shapes = sorted({image.shape for image in images})
        raise ValueError(
            f"images: {len(images)} of shapes {shapes}, mask of {mask.shape}; give at least {FEWEST} on "
            "the mask's grid"
        )


def _check_answers(answers: np.ndarray) -> None:
    counts = np.bincount(answers.argmax(axis=1), minlength=answers.shape[1])
    if np.sum(counts >= FEWEST) < 2:
        told = ", ".join(f"class {index}: {count}" for index, count in enumerate(counts) if count)
        raise Untestable(
            f"the model's answers to the {len(answers)} images are {told}; give images of which it answers "
            f"at least {FEWEST} with each of two classes"
        )


def _show(logits: Logits, images: Sequence[np.ndarray], affine: np.ndarray, mask: np.ndarray) -> _Shown:
    """Show a model the images as they are."""
    _check_images(images, mask)
    place = Place(np.asarray(affine, float), np.asarray(mask, bool))
    scales = [_bright(image) for image in images]
    units = [np.asarray(image, float) / scale for image, scale in zip(images, scales, strict=True)]
    answers = np.stack([logits(np.asarray(image)) for image in images]).astype(float)
    return _Shown(logits, units, scales, answers, place)


class _Shown:
    """Images that were shown to a model, in units of their bright tissue, and what it answered."""

    def __init__(
        self,
        logits: Logits,
        units: Sequence[np.ndarray],
        scales: Sequence[float],
        answers: np.ndarray,
        place: Place,
    ) -> None:
        self.logits, self.units, self.scales, self.place = logits, units, scales, place
        self.answers, self.own = answers, answers.argmax(axis=1)
        self.traits = Traits(place)
        self.described = self.traits(units)

    def effects(self, nuisances: dict[str, Nuisance] | None = None) -> list[Effect]:
        """Measure how far each nuisance, or each of some, moves the answers."""
        chosen = battery(self.place) if nuisances is None else nuisances
        return [self.strongest(nuisance) for nuisance in chosen.values()]

    def ask(self, variant: Variant, rows: Sequence[int]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the logits of some images' changed twins, and the twins with bright tissue at 1 again."""
        twins = [variant.change(self.units[row], place=self.place) for row in rows]
        found = [self.logits(twin * self.scales[row]) for twin, row in zip(twins, rows, strict=True)]
        return np.stack(found).astype(float), [twin / _bright(twin) for twin in twins]

    def strongest(self, nuisance: Nuisance) -> Effect:
        """Choose a form by a few images, and measure it on all."""
        return self._measured(nuisance, self._choose(nuisance), range(len(self.units)))[0]

    def _measured(self, nuisance: Nuisance, form: Variant, rows: Sequence[int]) -> tuple[Effect, np.ndarray]:
        """Return a form's effect on some images, and their new logits."""
        changed, twins = self.ask(form, rows)
        effect, moved, away, towards = movement(self.answers, changed, rows)
        pairs = [(twin, self.units[row]) for twin, row in zip(twins, rows, strict=True)]
        energy = float(np.mean([np.sqrt(np.mean((a - b) ** 2)) for a, b in pairs]))
        here = [place for place, row in enumerate(rows) if self.own[row] == away]
        alike = 0.0
        if here and effect > 0:
            before = self.described[[rows[place] for place in here]]
            after = self.traits([twins[place] for place in here])
            classes = (self.described[self.own == away], self.described[self.own == towards])
            alike = likeness(before, after, *classes)
        found = (nuisance.kind, nuisance.words, effect, form.words, energy, moved, away, towards, alike)
        return Effect(*found), changed

    def _choose(self, nuisance: Nuisance) -> Variant:
        """Return the form that both moves a few images and is like the classes' difference."""
        forms, few = list(nuisance.variants), _few(self.own)
        if len(forms) == 1:
            return forms[0]
        found = [self._measured(nuisance, form, few) for form in forms]
        if nuisance.mix is not None:
            most = max((effect for effect, _ in found), key=lambda effect: effect.effect)
            before, way = self.answers[few], (most.away, most.towards)
            forms.append(nuisance.mix([_step(before, changed, *way) for _, changed in found]))
            found.append(self._measured(nuisance, forms[-1], few))
        scores = [(min(e.effect, 1.0) * max(e.likeness, 0.0), e.effect) for e, _ in found]
        return forms[max(range(len(forms)), key=scores.__getitem__)]


def _step(before: np.ndarray, after: np.ndarray, away: int, towards: int) -> float:
    """Return the mean movement from one class towards another, in logits; below 0 if it is the other way."""
    steps = after - before
    return float(np.mean(steps[:, towards] - steps[:, away]))


def _few(own: np.ndarray) -> list[int]:
    """Take turns among the classes until there are images enough to choose a form by."""
    turns = sorted(range(len(own)), key=lambda row: (int(np.sum(own[:row] == own[row])), row))
    return turns[:SCREENED]


def find_shortcuts(
    logits: Logits,
    images: Sequence[np.ndarray],
    affine: np.ndarray,
    mask: np.ndarray,
    classes: Sequence[str] = (),
    control: Logits | None = None,
    limit: float = LIMIT,
) -> list[Finding]:
    """Find the shortcuts that a model uses.

    Parameters
    ----------
    logits, images, affine, mask
        As in `measure_effects`.
    classes : sequence of str
        Names, for the sentences.
    control : callable, optional
        The network with random weights, whose effects are told beside the model's.
    limit : float
        Least effect that is reported.

    Returns
    -------
    list of Finding
        The likeliest first: by effect, up to 1, times likeness.

    Raises
    ------
    ValueError
        As in `measure_effects`.
    Untestable
        Fewer than two of the images get each of two answers.
    """
    shown = _show(logits, images, affine, mask)
    _check_answers(shown.answers)
    effects = shown.effects()
    beside: dict[str, float] = {}
    if control is not None and judge(effects, limit=limit):
        beside = {each.kind: each.effect for each in measure_effects(control, images, affine, mask)}
    return judge(effects, classes, beside, limit)


def judge(
    effects: Sequence[Effect],
    classes: Sequence[str] = (),
    control: dict[str, float] | None = None,
    limit: float = LIMIT,
) -> list[Finding]:
    """Turn effects into findings; see `find_shortcuts`."""
    found = sorted(
        (each for each in effects if each.effect >= limit and each.likeness >= ALIKE),
        key=lambda each: -min(each.effect, 1.0) * each.likeness,
    )
    return [_finding(rank, effect, classes, control or {}) for rank, effect in enumerate(found, start=1)]


def _finding(rank: int, effect: Effect, classes: Sequence[str], control: dict[str, float]) -> Finding:
    names = [*classes, *(f"class {index}" for index in range(len(classes), effect.towards + effect.away + 1))]
    words = (
        f"The answer follows {effect.words}: {effect.form}, images of {names[effect.away]} move "
        f"{effect.effect:.2f} of the way to {names[effect.towards]}, and {effect.moved:.0%} of them change "
        f"their answer; images of the two differ in that way (likeness {effect.likeness:.2f})."
    )
    evidence: dict[str, object] = {
        "form": effect.form,
        "energy": effect.energy,
        "moved": effect.moved,
        "away": names[effect.away],
        "towards": names[effect.towards],
        "likeness": effect.likeness,
        "rank": rank,
    }
    return Finding(effect.kind, words, effect.effect, control.get(effect.kind), evidence)
