"""Which units are meant: from the choices of a caller to objectives."""

from collections.abc import Iterable, Mapping
from typing import Any

from neurofv.errors import InvalidRequest
from neurofv.fields import fill, named, point, three
from neurofv.v1 import method_pb2 as method

# What makes an objective, and which choices go with each way to name it.
_WAYS = {
    "class_name": ("contrast",),
    "whole_layer": ("layer",),
    "direction": ("layer", "measure", "voxel", "position_mm"),
    "compare": ("layer",),
    "channel": ("layer", "voxel", "position_mm"),
}
_ALWAYS = ("minimize", "behind_nonlinearities")
UNIT = (*_WAYS, "contrast", "layer", "measure", "voxel", "position_mm", *_ALWAYS, "objective")


def objectives(given: Mapping[str, Any]) -> list[method.Objective]:
    """Read which units are meant.

    Parameters
    ----------
    given : mapping
        Choices as in `neurofv.requests.Choices`; only those in `UNIT` count.

    Returns
    -------
    list of Objective
        One for each volume, the first for `objective`, the others for `batch`.

    Raises
    ------
    InvalidRequest
        It is not clear which unit is meant.
    """
    # A flag that is off is no choice.
    unit = {name: given[name] for name in UNIT if given.get(name) is not None and given[name] is not False}
    if "objective" in unit:
        return _ready_made(unit)
    way = next((way for way in _WAYS if way in unit), None)
    _check_fits(way, unit)
    match way:
        case "class_name":
            terms = [_class(name, unit) for name in _several(unit["class_name"], "class_name")]
        case "whole_layer":
            terms = [method.ObjectiveTerm()]
            fill(terms[0].whole_layer, {"layer": unit["layer"]}, "whole_layer")
        case "direction":
            terms = [_direction(unit)]
        case "compare":
            terms = [_comparison(unit)]
        case _:
            terms = [_channel(channel, unit) for channel in _several(unit["channel"], "channel")]
    if "minimize" in unit:
        for term in terms:
            term.sense = method.SENSE_MINIMIZE
    behind = "behind_nonlinearities" in unit
    return [method.Objective(terms=[term], behind_nonlinearities=behind) for term in terms]


def _ready_made(unit: dict[str, Any]) -> list[method.Objective]:
    """Take objectives as they are."""
    if extra := [name for name in unit if name != "objective"]:
        raise InvalidRequest(extra[0], unit[extra[0]], "set it in the objective, which names the units")
    chosen = unit["objective"]
    several: list[method.Objective] = _several(chosen, "objective")
    for each in several:
        if not isinstance(each, method.Objective):
            remedy = "give a neurofv.v1.method_pb2.Objective, or several"
            raise InvalidRequest("objective", type(each).__name__, remedy)
    return several


def _check_fits(way: str | None, unit: Mapping[str, Any]) -> None:
    """Refuse choices that contradict each other, or that leave the unit open."""
    if way is None:
        if "contrast" in unit:
            raise InvalidRequest("contrast", True, "name the class that is to win with class_name")
        if "layer" not in unit:
            remedy = "name the unit to drive: a class, or a layer and a channel"
            raise InvalidRequest("class_name", None, remedy)
        remedy = f"name one of the channels of layer {unit['layer']!r}, from 0, or ask for the whole layer"
        raise InvalidRequest("channel", None, remedy)
    fitting = (way, *_WAYS[way], *_ALWAYS)
    if extra := [name for name in unit if name not in fitting]:
        if extra[0] == "contrast":
            raise InvalidRequest("contrast", True, "leave it out; it goes with class_name")
        raise InvalidRequest(extra[0], unit[extra[0]], f"leave it out; {way} names the unit already")
    if "layer" in fitting and "layer" not in unit:
        raise InvalidRequest("layer", None, f"name the layer that {way} is about")
    if "voxel" in unit and "position_mm" in unit:
        raise InvalidRequest("voxel", unit["voxel"], "leave it out; position_mm names the position already")


def _class(name: object, unit: Mapping[str, Any]) -> method.ObjectiveTerm:
    term = method.ObjectiveTerm()
    fill(term.class_logit, {"class_name": name}, "class_logit")
    term.class_logit.contrast = "contrast" in unit
    return term


def _channel(channel: object, unit: Mapping[str, Any]) -> method.ObjectiveTerm:
    term = method.ObjectiveTerm()
    names = {"layer": unit["layer"], "channel": channel}
    if "voxel" in unit or "position_mm" in unit:
        fill(term.neuron, names, "neuron")
        _place(term.neuron, unit)
    else:
        fill(term.channel, names, "channel")
    return term


def _direction(unit: Mapping[str, Any]) -> method.ObjectiveTerm:
    term = method.ObjectiveTerm()
    fill(term.direction, {"layer": unit["layer"]}, "direction")
    try:
        term.direction.weights[:] = [float(weight) for weight in unit["direction"]]
    except (TypeError, ValueError):
        raise InvalidRequest("direction", unit["direction"], "give one number for each channel") from None
    if "measure" in unit:
        # mypy takes enums for their own types.
        term.direction.measure = named(method.Measure.DESCRIPTOR, unit["measure"], "measure")  # type: ignore[assignment]
    _place(term.direction, unit)
    return term


def _comparison(unit: Mapping[str, Any]) -> method.ObjectiveTerm:
    term = method.ObjectiveTerm()
    fill(term.subject_activations, {"layer": unit["layer"]}, "subject_activations")
    comparison = named(method.Comparison.DESCRIPTOR, unit["compare"], "compare")
    term.subject_activations.comparison = comparison  # type: ignore[assignment]
    return term


def _place(message: method.Neuron | method.Direction, unit: Mapping[str, Any]) -> None:
    if "voxel" in unit:
        fill(message.voxel, dict(zip("ijk", three(unit["voxel"], "voxel"), strict=True)), "voxel")
    elif "position_mm" in unit:
        point(message.point_mm, unit["position_mm"], "position_mm")


def _several(value: object, path: str) -> list[Any]:
    """Return a value, or several, as a list."""
    several = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    if not several:
        raise InvalidRequest(path, value, "name at least one")
    return several
