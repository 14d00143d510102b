"""What an audit's figures mean, in plain words."""

from dataclasses import dataclass
from typing import Any

from neurofv.audit.figures import floored, percent
from neurofv.audit.standings import Figures, Standing

GOOD, FAIR, WARNING, UNKNOWN = "good", "fair", "warning", "unknown"
# Least figure for `good` and for `fair`; what is below is a warning.
_AGREEMENT = (0.5, 0.25)
_HELD_OUT = (0.6, 0.3)
_PERCENTILE = (0.95, 0.5)
_SELECTIVITY = (1.0, 0.9)
_PATH = (0.5, 0.1)
# A lead over the random network that is less may be chance: most often it is that of one pair of seeds.
MARGIN = 0.05


@dataclass(frozen=True)
class Verdict:
    """A plain sentence on a unit.

    Attributes
    ----------
    id : str
        What it is about.
    strategy : str
        Of which pictures.
    level : str
        `good`, `fair`, `warning` or `unknown`.
    words : str
        The sentence, with the figure.
    """

    id: str
    strategy: str
    level: str
    words: str

    def content(self, named: bool) -> dict[str, Any]:
        """Return it as the report has it; `named` puts the strategy in front of the words."""
        words = f"{self.strategy}: {self.words}" if named else self.words
        return {"id": self.id, "strategy": self.strategy, "level": self.level, "words": words}


def judge(found: Standing, is_class: bool) -> list[Verdict]:
    """Judge a unit's pictures under one strategy.

    Parameters
    ----------
    found : Standing
        Their figures.
    is_class : bool
        Whether the unit is a class.
    """
    if not found.pictures:
        words = "no picture could be made: the report lists why under what failed"
        return [Verdict("pictures", found.strategy, WARNING, words)]
    said = [
        _agreement(found),
        _held_out(found.own),
        _percentile(found.own),
        _selectivity(found.own, is_class),
    ]
    if found.own.path is not None:
        said.append(_path(found.own.path))
    if found.random is not None:
        said += _against_random(found.own, found.random)
        said.append(_likeness(found))
    return [Verdict(name, found.strategy, level, words) for name, level, words in said]


def leads(own: Figures, random: Figures | None) -> dict[str, float]:
    """Return by how much pictures are more stable, selective and transferable than the random network's.

    Parameters
    ----------
    own : Figures
        Of the network.
    random : Figures or None
        Of the random network.

    Returns
    -------
    dict
        Differences by name; what is not known of both is left out.
    """
    found = {}
    for name in ("seed_agreement", "selectivity", "transfer"):
        mine, theirs = getattr(own, name), getattr(random, name, None)
        if mine is not None and theirs is not None:
            found[name] = mine - theirs
    return found


_Said = tuple[str, str, str]


def _agreement(found: Standing) -> _Said:
    value = found.own.seed_agreement
    if value is None:
        return "seed_agreement", UNKNOWN, "one seed alone does not tell whether chance made the picture"
    level = _level(value, _AGREEMENT)
    meaning = {
        GOOD: "other seeds give the same picture",
        FAIR: "other seeds give a picture that is alike in part",
        WARNING: "other seeds give another picture: do not read details",
    }[level]
    return "seed_agreement", level, f"{meaning} (correlation {floored(value)} between seeds)"


def _held_out(own: Figures) -> _Said:
    value = own.held_out
    if value is None:
        words = "how well the picture bears being moved is not known, for its activation is not above 0"
        return "held_out", UNKNOWN, words
    level = _level(value, _HELD_OUT)
    meaning = {
        GOOD: "the unit still fires when the picture is moved",
        FAIR: "the unit fires less when the picture is moved",
        WARNING: "the unit hardly fires when the picture is moved: it answers to exact places or to noise",
    }[level]
    return "held_out", level, f"{meaning} (keeps {percent(value)} of its activation)"


def _percentile(own: Figures) -> _Said:
    value = own.percentile
    if value is None:
        return "real_images", UNKNOWN, "the bundle does not say how strongly the unit fires on real images"
    level = _level(value, _PERCENTILE)
    place = f"stronger than {percent(value)} of real held-out images"
    meaning = {
        GOOD: "the picture drives the unit as the strongest real images do, or more",
        FAIR: "many real images drive the unit more than the picture",
        WARNING: "most real images drive the unit more than the picture: it shows little of its pattern",
    }[level]
    return "real_images", level, f"{meaning} ({place})"


def _selectivity(own: Figures, is_class: bool) -> _Said:
    value, kind = own.selectivity, "class" if is_class else "channel"
    if value is None:
        return "selectivity", UNKNOWN, f"how the other {_plural(kind)} answer to the picture is not known"
    level = _level(value, _SELECTIVITY)
    if level == GOOD:
        return "selectivity", level, f"no other {kind} fires as strongly on the picture"
    fewer = f"stronger than {percent(value)} of the other {_plural(kind)}"
    if level == FAIR:
        return "selectivity", level, f"few other {_plural(kind)} fire more on the picture ({fewer})"
    return (
        "selectivity",
        level,
        f"other {_plural(kind)} fire more on the picture: it is not specific ({fewer})",
    )


def _path(value: float) -> _Said:
    level = _level(value, _PATH)
    meaning = {
        GOOD: "the network processes the picture as it does real images of the class",
        FAIR: "the network processes the picture in part as it does real images of the class",
        WARNING: "the network processes the picture otherwise than real images of the class: what it "
        "shows may play no part in them",
    }[level]
    return "path", level, f"{meaning} (similarity {floored(value)}, mean over layers)"


def _against_random(own: Figures, random: Figures) -> list[_Said]:
    said = []
    for name, quality in (
        ("seed_agreement", "stable"),
        ("selectivity", "specific"),
        ("transfer", "transferable"),
    ):
        mine, theirs = getattr(own, name), getattr(random, name)
        if mine is None or theirs is None:
            continue
        figures = f"({floored(mine)} against {floored(theirs)})"
        if _leads(mine, theirs):
            words, level = f"more {quality} than the random network's picture {figures}", GOOD
        elif mine == theirs == 1:
            words, level = f"as {quality} as the random network's picture, and both fully {figures}", FAIR
        else:
            words = f"not clearly more {quality} than the random network's picture {figures}: "
            words, level = words + "architecture and method alone give as much", WARNING
        said.append((f"control_{name}", level, words))
    return said


def _likeness(found: Standing) -> _Said:
    name, value, own = "control_likeness", found.own_vs_random, found.own.seed_agreement
    if value is None or own is None:
        return (
            name,
            UNKNOWN,
            "two seeds and the random network's pictures would tell what the weights contribute",
        )
    figures = f"(correlation {floored(own)} with another seed's, {floored(value)} with the random network's)"
    if _leads(own, value):
        return name, GOOD, f"more like another seed's picture than like the random network's {figures}"
    words = f"not clearly more like another seed's picture than like the random network's {figures}: "
    return name, WARNING, words + "it owes little to what was learned"


def _level(value: float, least: tuple[float, float]) -> str:
    return GOOD if value >= least[0] else FAIR if value >= least[1] else WARNING


def _leads(mine: float, theirs: float) -> bool:
    # What a difference of floats leaves over must not decide.
    return mine - theirs >= MARGIN - 1e-9


def _plural(kind: str) -> str:
    return "classes" if kind == "class" else "channels"
