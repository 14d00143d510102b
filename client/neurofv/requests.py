"""Requests from plain Python values.

What the messages of `method.proto` offer is read from their descriptors, so a
new regularizer, start or transform needs no line here. Bounds are the server's
business; here only names and types are checked.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from google.protobuf.message import Message

from neurofv.errors import InvalidRequest
from neurofv.v1 import method_pb2 as method
from neurofv.v1 import visualization_service_pb2 as vis


class Choices(TypedDict, total=False):
    """What to visualize and how; what is left out takes the server's default.

    Lengths are mm, angles degrees. The unit is named by `class_name`, or by
    `layer` and `channel`, which may be narrowed to one position by `voxel` or
    `position_mm`.

    Attributes
    ----------
    version : int
        Of the model; the newest by default.
    class_name : str
        The logit of this class, before softmax.
    contrast : bool
        The class's logit against the mean of the others'.
    layer : str
        A layer's name as PyTorch writes it.
    channel : int
        A channel of the layer, from 0.
    voxel : sequence of 3 int
        Position as voxel indices of the model's grid.
    position_mm : sequence of 3 float
        Position in the model's anatomical space, RAS+.
    canvas_mm : float or sequence of 3 float
        Edge lengths of the box that is optimized; 0 means the whole axis.
    center_mm : sequence of 3 float
        Middle of that box.
    seed, steps, snapshot_every : int
        Seed of every draw, optimizer steps, steps between snapshots (0 for none).
    optimizer : str or mapping
        `"adam"`, `"nadam"`, `"sgd"` or, for instance, `{"adam": {"learning_rate": 0.05}}`.
    schedule : str
        How the learning rate changes: `"constant"` or `"cosine"`.
    transforms : mapping
        Such as `{"jitter_mm": 8, "rotation_degrees": 10, "scale": 0.1}`.
    regularizers : mapping, or empty for none
        Such as `{"total_variation": {"weight": 1}, "gaussian_blur": {"fwhm_mm": 4}}`. A plain number
        stands for the only field: `{"total_variation": 1}`.
    parameterization : str or mapping
        `"fourier"`, `"voxels"` or, for instance, `{"fourier": {"decay": 1}}`.
    start : str or mapping
        `"noise"`, `"reference_brain"` or, for instance, `{"noise": {"deviation": 0.1}}`.
    """

    version: int
    class_name: str
    contrast: bool
    layer: str
    channel: int
    voxel: Sequence[int]
    position_mm: Sequence[float]
    canvas_mm: float | Sequence[float]
    center_mm: Sequence[float]
    seed: int
    steps: int
    snapshot_every: int
    optimizer: str | Mapping[str, Any]
    schedule: str
    transforms: Mapping[str, float]
    regularizers: Mapping[str, Any] | Sequence[Any]
    parameterization: str | Mapping[str, Any]
    start: str | Mapping[str, Any]


_UNIT = ("class_name", "contrast", "layer", "channel", "voxel", "position_mm")


def build_request(
    model: str, classes: Sequence[str] = (), **choices: Unpack[Choices]
) -> vis.VisualizeRequest:
    """Write a request.

    Parameters
    ----------
    model : str
        The model's name.
    classes : sequence of str
        The model's classes; needed for `contrast`.
    **choices
        See `Choices`. None is as good as absent.

    Returns
    -------
    VisualizeRequest
        With only what was chosen.

    Raises
    ------
    InvalidRequest
        A name is unknown, a type does not fit, or the unit is not clear.
    """
    given = {name: value for name, value in choices.items() if value is not None}
    if unknown := sorted(given.keys() - Choices.__annotations__.keys()):
        valid = ", ".join(Choices.__annotations__)
        raise InvalidRequest(unknown[0], given[unknown[0]], f"there is no such choice; there are: {valid}")
    request = vis.VisualizeRequest(objective=_objective({name: given.get(name) for name in _UNIT}, classes))
    fill(request, {"model": model}, "request")
    for name in ("version", "seed", "steps", "snapshot_every"):
        fill(request, {name: given[name]} if name in given else {}, "request")
    if "transforms" in given:
        fill(request, {"transforms": given["transforms"]}, "request")
    if "regularizers" in given:
        _regularizers(request.regularization, given["regularizers"])
    for name in ("parameterization", "start", "optimizer"):
        if name in given:
            _kind(getattr(request, name), given[name], name)
    if "schedule" in given:
        request.optimizer.schedule = _schedule(given["schedule"])
    if "canvas_mm" in given:
        edges = _three(given["canvas_mm"], "canvas_mm", repeat=True)
        fill(request.canvas.size_mm, dict(zip("ijk", edges, strict=True)), "canvas_mm")
    if "center_mm" in given:
        _point(request.canvas.center_mm, given["center_mm"], "center_mm")
    return request


def fill(message: Message, values: object, path: str) -> None:
    """Set fields of a message by name, whatever message it is.

    Parameters
    ----------
    message : Message
        Changed in place; set even if `values` is empty.
    values : mapping, number or str
        Fields by name, in turn mappings for messages. A value that is no mapping
        stands for the only field of the message.
    path : str
        What the message is called in an error.

    Raises
    ------
    InvalidRequest
        A name is unknown or a value is of the wrong type.
    """
    message.SetInParent()
    fields = message.DESCRIPTOR.fields_by_name
    if not isinstance(values, Mapping):
        if len(fields) != 1:
            raise InvalidRequest(path, values, f"give its fields by name: {_listed(fields)}")
        values = {next(iter(fields)): values}
    for name, value in values.items():
        if name not in fields:
            raise InvalidRequest(
                f"{path}.{name}", value, f"there is no such field; {path} has {_listed(fields)}"
            )
        if fields[name].message_type is not None:
            fill(getattr(message, name), value, f"{path}.{name}")
            continue
        try:
            setattr(message, name, value)
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"{path}.{name}", value, str(error)) from None


def kinds(message: Message) -> tuple[str, ...]:
    """Return the names among which a message's `kind` chooses."""
    return tuple(field.name for field in message.DESCRIPTOR.oneofs_by_name["kind"].fields)


def _kind(message: Message, choice: object, path: str) -> None:
    """Choose a message's kind: by its name, or as `{name: fields}`."""
    if isinstance(choice, str):
        choice = {choice: {}}
    valid = f"choose one of: {', '.join(kinds(message))}"
    if not isinstance(choice, Mapping) or len(choice) != 1:
        raise InvalidRequest(path, choice, valid)
    if (name := next(iter(choice))) not in kinds(message):
        raise InvalidRequest(path, name, valid)
    fill(message, choice, path)


def _schedule(name: object) -> method.Schedule:
    known = {full.removeprefix("SCHEDULE_").lower(): full for full, value in method.Schedule.items() if value}
    if name not in known:
        raise InvalidRequest("schedule", name, f"choose one of: {', '.join(known)}")
    schedule: method.Schedule = getattr(method, known[str(name)])
    return schedule


def _regularizers(message: method.Regularization, chosen: object) -> None:
    message.SetInParent()
    if not chosen and not isinstance(chosen, str):
        return
    if not isinstance(chosen, Mapping):
        example = '{"total_variation": {"weight": 1}}'
        raise InvalidRequest("regularizers", chosen, f"give them by name, as in {example}, or [] for none")
    for name, fields in chosen.items():
        _kind(message.regularizers.add(), {name: fields}, "regularizers")


def _objective(unit: dict[str, Any], classes: Sequence[str]) -> method.Objective:
    """Read which unit is meant."""
    if unit["class_name"] is not None:
        extra = [name for name in ("layer", "channel", "voxel", "position_mm") if unit[name] is not None]
        if extra:
            raise InvalidRequest(extra[0], unit[extra[0]], "leave it out; class_name names the unit already")
        return _class_objective(unit["class_name"], bool(unit["contrast"]), classes)
    if unit["contrast"]:
        raise InvalidRequest("contrast", True, "name the class that is to win with class_name")
    if unit["layer"] is None:
        raise InvalidRequest("class_name", None, "name the unit to drive: a class, or a layer and a channel")
    if unit["channel"] is None:
        raise InvalidRequest("channel", None, f"name one of the channels of layer {unit['layer']!r}, from 0")
    term = method.ObjectiveTerm()
    names = {"layer": unit["layer"], "channel": unit["channel"]}
    if unit["voxel"] is not None and unit["position_mm"] is not None:
        raise InvalidRequest("voxel", unit["voxel"], "leave it out; position_mm names the position already")
    if unit["voxel"] is None and unit["position_mm"] is None:
        fill(term.channel, names, "channel")
        return method.Objective(terms=[term])
    fill(term.neuron, names, "neuron")
    if unit["voxel"] is not None:
        indices = _three(unit["voxel"], "voxel")
        fill(term.neuron.voxel, dict(zip("ijk", indices, strict=True)), "voxel")
    else:
        _point(term.neuron.point_mm, unit["position_mm"], "position_mm")
    return method.Objective(terms=[term])


def _class_objective(name: str, contrast: bool, classes: Sequence[str]) -> method.Objective:
    objective = method.Objective()
    fill(objective.terms.add().class_logit, {"class_name": name}, "class_logit")
    if not contrast:
        return objective
    if name not in classes:
        raise InvalidRequest("class_name", name, f"choose one of: {', '.join(classes) or 'none are known'}")
    others = [other for other in classes if other != name]
    for other in others:
        logit = method.ClassLogit(class_name=other)
        objective.terms.add(class_logit=logit, sense=method.SENSE_MINIMIZE, weight=1 / len(others))
    return objective


def _point(message: method.Point, value: object, path: str) -> None:
    fill(message, dict(zip("xyz", _three(value, path), strict=True)), path)


def _three(value: object, path: str, repeat: bool = False) -> tuple[Any, ...]:
    """Return three numbers; a single one is repeated if it may be."""
    if repeat and isinstance(value, int | float):
        return (value,) * 3
    # A string is iterable too, but never what is meant.
    numbers = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()
    if len(numbers) != 3:
        raise InvalidRequest(path, value, f"give three numbers{' or one for all axes' if repeat else ''}")
    return numbers


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
