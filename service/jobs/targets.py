"""From the terms of a request to units of the network."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

import engine
import models
from engine.fields import InvalidField as BadNumber
from engine.objective import UNITS
from models import Bundle, Layer
from neurofv.v1 import method_pb2
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import ClassNotFound, InvalidField, LayerNotFound, UnitOutOfRange
from service.jobs.control import control_seed
from service.real_images import quantiles, spread
from service.volumes.canvas import Box, to_voxel

_SENSES = {
    method_pb2.SENSE_MAXIMIZE: engine.Sense.MAXIMIZE,
    method_pb2.SENSE_MINIMIZE: engine.Sense.MINIMIZE,
}


@dataclass(frozen=True)
class Target:
    """A term of a request, and where it stands there.

    Attributes
    ----------
    term : ObjectiveTerm
        Part of the request: a change here is a change there.
    path : str
        Its field's path.
    """

    term: method_pb2.ObjectiveTerm
    path: str

    @property
    def kind(self) -> str:
        """Name of the unit's kind."""
        return str(self.term.WhichOneof("unit"))

    @property
    def unit(self) -> Any:
        """The unit's message."""
        return getattr(self.term, self.kind)

    @property
    def positioned(self) -> bool:
        """Whether the request says where the unit sits."""
        return "position" in self.unit.DESCRIPTOR.oneofs_by_name and bool(self.unit.WhichOneof("position"))

    def layer(self, bundle: Bundle) -> str:
        """Return the name of the layer that is read."""
        return bundle.manifest.classifier_layer if self.kind == "class_logit" else str(self.unit.layer)

    def place(self, bundle: Bundle) -> np.ndarray:
        """Return the unit's place in voxels of the whole grid.

        Raises
        ------
        InvalidField
            It lies outside the grid.
        """
        space = bundle.manifest.input
        if self.unit.WhichOneof("position") == "voxel":
            place = np.array([self.unit.voxel.i, self.unit.voxel.j, self.unit.voxel.k], dtype=float)
        else:
            place = to_voxel(space, self.unit.point_mm)
        if not Box.whole(space).contains(place):
            rule = f"is not inside the model's grid of {space.shape} voxels"
            raise InvalidField(f"{self.path}.{self.kind}.position", rule)
        return place


def targets(request: vis.VisualizeRequest) -> list[Target]:
    """Return every term of every objective."""
    return [
        Target(term, f"{path}.terms[{index}]")
        for path, objective in _objectives(request)
        for index, term in enumerate(objective.terms)
    ]


def check(request: vis.VisualizeRequest, bundle: Bundle) -> None:
    """Check what the terms name, on the whole grid, and fill in what they leave out.

    Parameters
    ----------
    request : VisualizeRequest
        Changed in place: weights, senses, measures; a contrasted class gets its rivals as terms.
    bundle : Bundle
        The model.

    Raises
    ------
    ServiceError
        A term cannot be read; says which field is at fault.
    """
    for path, objective in _objectives(request):
        if not objective.terms:
            raise InvalidField(f"{path}.terms", "is empty; name at least one unit")
    for target in targets(request):
        _fill_in(target)
        _check_unit(target, bundle)
    for _, objective in _objectives(request):
        _expand_contrasts(objective, bundle)
    layers = _layers(request.objective, bundle)
    for path, objective in _objectives(request):
        if _layers(objective, bundle) != layers:
            rule = f"reads {', '.join(sorted(_layers(objective, bundle)))}, but objective reads "
            rule += f"{', '.join(sorted(layers))}; a batch reads the same layers, so send it by itself"
            raise InvalidField(path, rule)
        if objective.behind_nonlinearities != request.objective.behind_nonlinearities:
            raise InvalidField(f"{path}.behind_nonlinearities", "must be the same for the whole batch")


def place_neurons(resolved: vis.VisualizeRequest) -> None:
    """Put neurons that were given no place into the middle of the canvas."""
    for target in targets(resolved):
        if target.kind == "neuron" and not target.positioned:
            target.unit.point_mm.CopyFrom(resolved.canvas.center_mm)


def objectives(
    request: vis.VisualizeRequest, bundle: Bundle, box: Box, layers: dict[str, Layer]
) -> list[engine.Objective]:
    """Return the request's objectives as they read a box.

    Parameters
    ----------
    request : VisualizeRequest
        Resolved.
    bundle : Bundle
        The model.
    box : Box
        What is read.
    layers : dict of str to Layer
        The layers by name as they act on the box: its activation maps are smaller than the grid's.

    Returns
    -------
    list of engine.Objective
        That of `request.objective` first, then those of `request.batch`.
    """
    prior = bundle.prior()
    control = control_seed(request) is not None

    def term(target: Target) -> engine.Term:
        unit = _unit(target, bundle, box, layers)
        if control:
            # The prior is of the weights as they are. The worker measures those of the control.
            return engine.Term(unit, target.term.weight, _SENSES[target.term.sense])
        known = quantiles(prior, unit)
        real = None if known is None else (tuple(known[1].tolist()), tuple(known[0].tolist()))
        return engine.Term(unit, target.term.weight, _SENSES[target.term.sense], spread(prior, unit), real)

    return [
        engine.Objective(
            tuple(term(Target(entry, f"{path}.terms[{index}]")) for index, entry in enumerate(asked.terms)),
            asked.behind_nonlinearities,
        )
        for path, asked in _objectives(request)
    ]


def layer_of(bundle: Bundle, name: str) -> Layer:
    """Return a layer by name.

    Raises
    ------
    LayerNotFound
        The model has none of this name.
    """
    try:
        return bundle.layer(name)
    except models.LayerNotFound as error:
        raise LayerNotFound(name, error.valid, label(bundle)) from None


def label(bundle: Bundle) -> str:
    """Return the model's name for messages."""
    return f"model {bundle.manifest.name}/{bundle.manifest.version}"


def _objectives(request: vis.VisualizeRequest) -> Iterator[tuple[str, method_pb2.Objective]]:
    yield "objective", request.objective
    for index, objective in enumerate(request.batch):
        yield f"batch[{index}]", objective


def _layers(objective: method_pb2.Objective, bundle: Bundle) -> set[str]:
    return {Target(term, "").layer(bundle) for term in objective.terms}


def _fill_in(target: Target) -> None:
    """Fill in the defaults of a term."""
    term = target.term
    if term.WhichOneof("unit") is None:
        kinds = ", ".join(field.name for field in term.DESCRIPTOR.oneofs_by_name["unit"].fields)
        raise InvalidField(target.path, f"names no unit; give one of {kinds}")
    term.sense = term.sense or method_pb2.SENSE_MAXIMIZE
    if term.sense not in _SENSES:
        raise InvalidField(f"{target.path}.sense", f"is {term.sense}, which is no sense")
    if not term.HasField("weight"):
        term.weight = 1.0
    try:
        engine.Term(engine.Channel("", 0), weight=term.weight)
    except BadNumber as error:
        rule = f"is {error.value}, but must be {error.rule}"
        raise InvalidField(f"{target.path}.weight", rule) from None


def _check_unit(target: Target, bundle: Bundle) -> None:
    """Check what a term names, and fill in how it is read."""
    unit, path = target.unit, f"{target.path}.{target.kind}"
    if target.kind == "class_logit":
        if unit.class_name not in bundle.manifest.classes:
            raise ClassNotFound(unit.class_name, bundle.manifest.classes, label(bundle))
        return
    layer = layer_of(bundle, unit.layer)
    if "channel" in unit.DESCRIPTOR.fields_by_name and not 0 <= unit.channel < layer.channels:
        rule = f"is {unit.channel}, but {layer.name} has channels 0 to {layer.channels - 1}"
        raise UnitOutOfRange(f"{path}.channel", rule, max=layer.channels - 1, actual=unit.channel)
    if target.kind == "direction":
        unit.measure = unit.measure or method_pb2.MEASURE_DOT
        _check_direction(unit, layer, path)
    if target.kind == "subject_activations":
        unit.comparison = unit.comparison or method_pb2.COMPARISON_INVERSION
        if unit.comparison not in method_pb2.Comparison.values():
            raise InvalidField(f"{path}.comparison", f"is {unit.comparison}, which is no comparison")


def _check_direction(direction: method_pb2.Direction, layer: Layer, path: str) -> None:
    if direction.measure not in method_pb2.Measure.values():
        raise InvalidField(f"{path}.measure", f"is {direction.measure}, which is no measure")
    weights = np.array(direction.weights)
    if len(weights) != layer.channels:
        rule = (
            f"has {len(weights)} numbers, but {layer.name} has {layer.channels} channels; give one for each"
        )
        raise InvalidField(f"{path}.weights", rule, expected=layer.channels, actual=len(weights))
    if not np.isfinite(weights).all() or not weights.any():
        raise InvalidField(f"{path}.weights", "must be finite numbers that are not all 0")


def _expand_contrasts(objective: method_pb2.Objective, bundle: Bundle) -> None:
    """Give every contrasted class its rivals: the others, minimized, together of the same weight."""
    for term in list(objective.terms):
        if term.WhichOneof("unit") != "class_logit" or not term.class_logit.contrast:
            continue
        term.class_logit.contrast = False
        rivals = [name for name in bundle.manifest.classes if name != term.class_logit.class_name]
        against = (
            method_pb2.SENSE_MINIMIZE
            if term.sense == method_pb2.SENSE_MAXIMIZE
            else method_pb2.SENSE_MAXIMIZE
        )
        for name in rivals:
            logit = method_pb2.ClassLogit(class_name=name)
            objective.terms.add(class_logit=logit, sense=against, weight=term.weight / len(rivals))


def _unit(target: Target, bundle: Bundle, box: Box, layers: dict[str, Layer]) -> engine.Unit:
    """Make the engine's unit: fields of the same name say the same, and a place becomes an index."""
    if target.kind == "class_logit":
        index = bundle.manifest.classes.index(target.unit.class_name)
        return engine.ClassLogit(bundle.manifest.classifier_layer, index)
    kind = UNITS[target.kind]
    given: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # every unit is a dataclass
        if field.name == "position":
            given["position"] = _position(target, bundle, box, layers[target.unit.layer])
        elif field.name in target.unit.DESCRIPTOR.fields_by_name:
            given[field.name] = _value(getattr(target.unit, field.name), field.default)
    return kind(**given)


def _value(value: Any, default: object) -> Any:
    """Return a field's value as the engine has it: enumerations are its own, lists are tuples."""
    if isinstance(default, Enum):
        return type(default)(value)
    return value if isinstance(value, str | int | float | bool) else tuple(value)


def _position(target: Target, bundle: Bundle, box: Box, layer: Layer) -> tuple[int, ...] | None:
    """Return the index into the layer's activation map on the box that is nearest to the unit's place."""
    if not target.positioned or not layer.output_shape:
        return None
    place = target.place(bundle)
    if not box.contains(place):
        rule = "lies outside the canvas; move the canvas or leave it out"
        raise InvalidField(f"{target.path}.{target.kind}.position", rule)
    return layer.position((place - box.start).tolist())
