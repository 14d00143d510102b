"""What an audit has to do: units, and the jobs that make their pictures."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from neurofv.audit.plan import Group, Plan
from neurofv.errors import InvalidRequest
from neurofv.requests import build_request
from neurofv.v1 import model_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis

NO_CONTROL, RANDOM_WEIGHTS = "none", "random_weights"
# One shuffle for all: what is compared is the architecture without what it learned, not the draw.
_CONTROLS: dict[str, dict[str, Any]] = {
    NO_CONTROL: {},
    RANDOM_WEIGHTS: {"control": {"random_weights": {"seed": 0}}},
}
# Choices that only classes know; such a strategy passes channels over.
_OF_CLASSES = ("contrast",)


@dataclass(frozen=True)
class Unit:
    """A class or a channel.

    Attributes
    ----------
    id : str
        Its name in files and in the report.
    layer : str
        Its layer.
    channel : int
        Its place there.
    class_name : str
        The class, if it is one.
    """

    id: str
    layer: str
    channel: int
    class_name: str = ""

    @property
    def kind(self) -> str:
        """`class` or `channel`."""
        return "class" if self.class_name else "channel"

    @property
    def name(self) -> str:
        """Its name for people."""
        return self.class_name or f"{self.layer}:{self.channel}"


@dataclass(frozen=True)
class Task:
    """Pictures that one job makes.

    Attributes
    ----------
    units : tuple of Unit
        Of one layer, all classes or all channels.
    strategy : str
        How they are driven.
    seed : int
        Of the draws.
    control : str
        `none` or `random_weights`.
    """

    units: tuple[Unit, ...]
    strategy: str
    seed: int
    control: str

    @property
    def keys(self) -> list["Key"]:
        """What each of its pictures is known by."""
        return [Key(unit.id, self.strategy, self.seed, self.control) for unit in self.units]

    @property
    def label(self) -> str:
        """What it makes, for people."""
        names = self.units[0].name + (f" and {len(self.units) - 1} more" if len(self.units) > 1 else "")
        random = ", random weights" if self.control == RANDOM_WEIGHTS else ""
        return f"{names} ({self.strategy}, seed {self.seed}{random})"

    def halves(self) -> list["Task"]:
        """Return two tasks that make the same pictures."""
        middle = len(self.units) // 2
        return [replace(self, units=self.units[:middle]), replace(self, units=self.units[middle:])]

    def singles(self) -> list["Task"]:
        """Return a task for each picture."""
        return [replace(self, units=(unit,)) for unit in self.units]

    def request(
        self, plan: Plan, model: pb.Model, real_images: Mapping[str, Sequence[bytes]] | None = None
    ) -> vis.VisualizeRequest:
        """Return what the service is asked for.

        Parameters
        ----------
        plan : Plan
            Has the strategies.
        model : Model
            Of which version.
        real_images : mapping, optional
            Files of real images by class, for activation paths.
        """
        first = self.units[0]
        if first.class_name:
            wanted: dict[str, Any] = {"class_name": [unit.class_name for unit in self.units]}
        else:
            wanted = {"layer": first.layer, "channel": [unit.channel for unit in self.units]}
        if real_images and first.class_name and self.control == NO_CONTROL:
            wanted["real_images"] = real_images
        choices = {**plan.strategies[self.strategy], **wanted, **_CONTROLS[self.control]}
        return build_request(model.name, version=model.version, seed=self.seed, snapshot_every=0, **choices)


@dataclass(frozen=True, order=True)
class Key:
    """What a picture is known by.

    Attributes
    ----------
    unit : str
        The unit's id.
    strategy, seed, control
        As in `Task`.
    """

    unit: str
    strategy: str
    seed: int
    control: str


def request_id(
    plan: Plan, model: pb.Model, request: vis.VisualizeRequest, attempt: int, bound: Sequence[str] = ()
) -> str:
    """Return the name under which the service knows a job: the same one for the same work.

    Parameters
    ----------
    plan : Plan
        To whose audit it belongs.
    model : Model
        Whose digest counts.
    request : VisualizeRequest
        The work, real images included.
    attempt : int
        Counted up when a job was cancelled or lost to the machine.
    bound : sequence of str
        What else the work depends on, such as the digests of second models.
    """
    work = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
    text = json.dumps([plan.sha256, model.digest, work, attempt, *bound])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def find_units(plan: Plan, model: pb.Model, ranked: Mapping[str, Sequence[int]]) -> list[Unit]:
    """Return the units that a plan names, each once, in its order.

    Parameters
    ----------
    plan : Plan
        The plan.
    model : Model
        Its layers and classes.
    ranked : mapping
        Channels by layer, from the one that varies most over real images; for `top N by variance`.

    Raises
    ------
    InvalidRequest
        The model has no such class, layer or channel.
    """
    found: dict[tuple[str, int], Unit] = {}
    for group in plan.groups:
        for layer, channel, name in _places(group, model, ranked):
            unit = Unit(_slug(layer, name or str(channel)), layer, channel, name)
            taken = {other.id for place, other in found.items() if place != (layer, channel)}
            while unit.id in taken:
                unit = replace(unit, id=f"{unit.id}-{channel}")
            found.setdefault((layer, channel), unit)
    return list(found.values())


def check_layers(plan: Plan, model: pb.Model) -> None:
    """Make sure that the model has the layers and classes that a plan names.

    Raises
    ------
    InvalidRequest
        It has not; the error lists what there is.
    """
    for group in plan.groups:
        if group.classes is not None:
            _classes(group, model)
        else:
            _layer(group, model)


def find_tasks(plan: Plan, units: Iterable[Unit]) -> list[Task]:
    """Return the jobs of an audit: units of one layer and strategy share one, as far as the plan allows.

    Parameters
    ----------
    plan : Plan
        Strategies, seeds, controls and size of a batch.
    units : iterable of Unit
        What is driven.
    """
    together: dict[tuple[str, str], list[Unit]] = {}
    for unit in units:
        together.setdefault((unit.layer, unit.kind), []).append(unit)
    controls = (NO_CONTROL, RANDOM_WEIGHTS) if plan.random_weights else (NO_CONTROL,)
    most = plan.content["batch"]
    return [
        Task(tuple(members[first : first + most]), strategy, seed, control)
        for (_, kind), members in together.items()
        for strategy in strategies_for(plan, kind)
        for seed in plan.seeds
        for control in controls
        for first in range(0, len(members), most)
    ]


def strategies_for(plan: Plan, kind: str) -> list[str]:
    """Return the strategies under which units of a kind are driven; `kind` is `class` or `channel`."""
    return [
        strategy
        for strategy, choices in plan.strategies.items()
        if kind == "class" or not any(choices.get(name) for name in _OF_CLASSES)
    ]


def _places(group: Group, model: pb.Model, ranked: Mapping[str, Sequence[int]]) -> list[tuple[str, int, str]]:
    """Return layer, channel and class of each unit of a group."""
    if group.classes is not None:
        classes = list(model.classes)
        return [(model.classifier_layer, classes.index(name), name) for name in _classes(group, model)]
    layer = _layer(group, model)
    if group.top:
        return [(layer.name, channel, "") for channel in ranked[layer.name][: group.top]]
    return [(layer.name, channel, "") for channel in group.channels or range(layer.channels)]


def _classes(group: Group, model: pb.Model) -> Sequence[str]:
    if not model.classes:
        raise InvalidRequest(
            f"{group.path}.classes", list(group.classes or ["all"]), "the model has no classes"
        )
    for name in group.classes or ():
        if name not in model.classes:
            there = f"the model has no such class; there are: {', '.join(model.classes)}"
            raise InvalidRequest(f"{group.path}.classes", name, there)
    return group.classes or list(model.classes)


def _layer(group: Group, model: pb.Model) -> pb.Layer:
    layers = {layer.name: layer for layer in model.layers}
    if group.layer not in layers:
        there = f"the model has no such layer; there are: {', '.join(layers)}"
        raise InvalidRequest(f"{group.path}.layer", group.layer, there)
    layer = layers[group.layer]
    for channel in group.channels:
        if channel >= layer.channels:
            rule = f"{layer.name} has channels 0 to {layer.channels - 1}; name one of them"
            raise InvalidRequest(f"{group.path}.channels", channel, rule)
    return layer


def _slug(layer: str, name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{layer}-{name}".lower()).strip("-")
