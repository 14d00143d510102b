"""The report of an audit: all that was found, in one JSON document without times, paths and names of jobs."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import neurofv
from neurofv.audit import figures
from neurofv.audit.folder import REFERENCE, Folder
from neurofv.audit.images import RealImage, digest_of
from neurofv.audit.plan import Plan
from neurofv.audit.standings import Standing, is_dead, keys_of, picture, standing
from neurofv.audit.tasks import NO_CONTROL, RANDOM_WEIGHTS, Key, Unit, strategies_for
from neurofv.audit.verdicts import WARNING, judge, leads
from neurofv.v1 import model_service_pb2 as pb

VERSION = 1


@dataclass(frozen=True)
class Failure:
    """A picture that could not be made.

    Attributes
    ----------
    key : Key
        Which.
    reason : str
        As docs/reference/errors.md lists them.
    words : str
        What happened.
    """

    key: Key
    reason: str
    words: str

    def content(self) -> dict[str, Any]:
        """Return it as the report has it."""
        return {**vars(self.key), "reason": self.reason, "words": self.words}


def make_report(
    plan: Plan,
    model: pb.Model,
    units: Sequence[Unit],
    folder: Folder,
    images: Sequence[RealImage],
    exemplars: Mapping[str, list[dict[str, Any]]],
    failures: Iterable[Failure],
    shortcuts: dict[str, Any] | None = None,
    transfers: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Put a report together.

    Parameters
    ----------
    plan : Plan
        What was asked for.
    model : Model
        Of what.
    units : sequence of Unit
        What was visualized.
    folder : Folder
        Has the pictures.
    images : sequence of RealImage
        What was at hand to compare with.
    exemplars : mapping
        Of them, those that drive each unit most, by its id.
    failures : iterable of Failure
        What could not be made.
    shortcuts : dict, optional
        What the search for shortcuts has found, if there was one.
    transfers : mapping, optional
        The second models, by strategy.

    Returns
    -------
    dict
        As `report.schema.json` describes it.
    """
    standings = {unit: _standings(folder, plan, unit) for unit in units}
    told = [
        {**_unit(folder, plan, unit, standings[unit]), "exemplars": exemplars.get(unit.id, [])}
        for unit in units
    ]
    failed = sorted([*failures, *_dead(folder)], key=lambda failure: failure.key)
    thresholds = _thresholds(plan, standings, shortcuts)
    return {
        "report": VERSION,
        "neurofv": neurofv.__version__,
        "plan": plan.content,
        "plan_sha256": plan.sha256,
        "model": _model(model),
        "transfers": dict(transfers or {}),
        "reference": REFERENCE,
        "reference_sha256": folder.reference_sha256,
        "images": _images(images),
        "units": told,
        "shortcuts": shortcuts,
        "thresholds": thresholds,
        "failed": [failure.content() for failure in failed],
        "summary": _summary(model, told, failed, thresholds, shortcuts),
        "passed": all(threshold["passed"] for threshold in thresholds),
    }


def _standings(folder: Folder, plan: Plan, unit: Unit) -> list[Standing]:
    """Return how a unit stands under each strategy, also where no picture could be made."""
    return [standing(folder, plan, unit, strategy) for strategy in strategies_for(plan, unit.kind)]


def _unit(folder: Folder, plan: Plan, unit: Unit, standings: Sequence[Standing]) -> dict[str, Any]:
    keys = chain.from_iterable(
        keys_of(folder, plan, unit, strategy, control)
        for strategy in plan.strategies
        for control in (NO_CONTROL, RANDOM_WEIGHTS)
    )
    is_class, several = unit.kind == "class", len(plan.strategies) > 1
    said = chain.from_iterable(judge(each, is_class) for each in standings)
    return {
        "id": unit.id,
        "name": unit.name,
        "kind": unit.kind,
        "layer": unit.layer,
        "channel": unit.channel,
        "class_name": unit.class_name or None,
        "pictures": [picture(folder, key) for key in keys],
        "figures": {each.strategy: each.own.content() for each in standings},
        "seed_agreement": {
            each.strategy: {"median": each.own.seed_agreement, "pairs": each.pairs} for each in standings
        },
        "control": {
            each.strategy: {**each.random.content(), "own_vs_random": each.own_vs_random}
            for each in standings
            if each.random is not None
        },
        "verdicts": [verdict.content(several) for verdict in said],
    }


def _model(model: pb.Model) -> dict[str, Any]:
    space = model.input
    return {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "classes": list(model.classes),
        "classifier_layer": model.classifier_layer,
        "input": {
            "shape": list(space.shape),
            "voxel_size_mm": list(space.voxel_size_mm),
            "affine": list(space.affine),
            "orientation": space.orientation,
            "space": space.space,
            "intensity_range": [space.intensity_low, space.intensity_high],
        },
        "license": model.license,
        "card": model.card,
        "layers": [
            {
                "name": layer.name,
                "type": layer.type,
                "channels": layer.channels,
                "output_shape": list(layer.output_shape),
                "receptive_field_mm": list(layer.receptive_field_mm),
                "whole_input": layer.whole_input,
            }
            for layer in model.layers
        ],
    }


def _images(images: Sequence[RealImage]) -> dict[str, Any] | None:
    """Say what was compared with, by numbers and a digest; whose images they are stays where they are."""
    if not images:
        return None
    classes = Counter(image.class_name for image in images if image.class_name)
    return {"count": len(images), "sha256": digest_of(images), "classes": dict(sorted(classes.items()))}


def _dead(folder: Folder) -> list[Failure]:
    words = "the unit has no gradient, not even when it is let through shut ReLUs"
    return [Failure(key, "UNIT_DEAD", words) for key in folder.pictures if is_dead(folder, key)]


def _thresholds(
    plan: Plan, standings: Mapping[Unit, Sequence[Standing]], shortcuts: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """Hold the figures against the plan's limits; what is not known fails: nothing shows that it holds."""
    every = [(unit, each) for unit, several in standings.items() for each in several]
    known: dict[str, float | None] = {
        "seed_agreement": _least(each.own.seed_agreement for _, each in every),
        "shortcuts": _kinds(shortcuts),
        "above_random": _least(_lead(plan, unit, each) for unit, each in every),
    }
    return [
        {"id": name, "limit": limit, "value": known.get(name), "passed": _holds(name, known.get(name), limit)}
        for name, limit in sorted(plan.thresholds.items())
    ]


def _kinds(shortcuts: dict[str, Any] | None) -> int | None:
    """Return how many kinds of shortcut were found; None if none could be looked for."""
    if shortcuts is None or "untestable" in shortcuts:
        return None
    return len({each["kind"] for each in shortcuts["found"]})


def _lead(plan: Plan, unit: Unit, found: Standing) -> float | None:
    """Return the least lead over the random network; None if one that must be known is not."""
    known = leads(found.own, found.random)
    needed = {"seed_agreement"}
    if unit.kind == "class" and plan.strategies[found.strategy].get("transfer"):
        needed.add("transfer")
    return min(known.values()) if needed <= known.keys() else None


def _least(values: Iterable[float | None]) -> float | None:
    """Return the least of some figures; None if one is not known."""
    found = list(values)
    return None if None in found else min((value for value in found if value is not None), default=None)


def _holds(name: str, value: float | None, limit: float) -> bool:
    if value is None:
        return False
    return value <= limit if name == "shortcuts" else value >= limit


def _summary(
    model: pb.Model,
    units: Sequence[dict[str, Any]],
    failed: Sequence[Failure],
    thresholds: Sequence[dict[str, Any]],
    shortcuts: dict[str, Any] | None,
) -> list[str]:
    """Say in a few sentences what was found."""
    pictures = sum(len(unit["pictures"]) for unit in units)
    lines = [
        f"{_counted(pictures, 'picture')} of {_counted(len(units), 'unit')} of {model.name}/{model.version}"
    ]
    warned: dict[str, list[str]] = {}
    for unit in units:
        for verdict in unit["verdicts"]:
            if verdict["level"] == WARNING and unit["name"] not in warned.setdefault(verdict["id"], []):
                warned[verdict["id"]].append(unit["name"])
    for about, names in warned.items():
        lines.append(f"{_ABOUT[about]}: {_listed(names)}")
    if not warned:
        lines.append("no unit gave cause for a warning")
    lines += _on_shortcuts(shortcuts)
    own = sum(failure.key.control == NO_CONTROL for failure in failed)
    if own:
        lines.append(f"{_counted(own, 'picture')} could not be made")
    if len(failed) > own:
        lines.append(f"{_counted(len(failed) - own, 'picture')} of the random network could not be made")
    for threshold in thresholds:
        value, limit = figures.apart(threshold["value"], threshold["limit"])
        value = "unknown" if threshold["value"] is None else value
        verb = "holds" if threshold["passed"] else "FAILS"
        lines.append(f"threshold {threshold['id']} {verb}: {value}, limit {limit}")
    return lines


def _on_shortcuts(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    if "untestable" in found:
        return [f"shortcuts could not be tested: {found['untestable']}"]
    return [each["words"] for each in found["found"]] or ["no shortcut was found among those tested"]


_ABOUT = {
    "pictures": "no picture could be made",
    "seed_agreement": "pictures that differ between seeds",
    "held_out": "pictures that do not bear being moved",
    "real_images": "pictures below most real images",
    "selectivity": "pictures that other units answer to more",
    "path": "pictures that the network processes otherwise than real images",
    "control_seed_agreement": "pictures not clearly more stable than the random network's",
    "control_selectivity": "pictures not clearly more specific than the random network's",
    "control_transfer": "pictures not clearly more transferable than the random network's",
    "control_likeness": "pictures about as like the random network's as another seed's",
}


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"
