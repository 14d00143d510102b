"""The method part of a request, between proto messages and the engine's settings.

The engine's dataclasses declare every default and bound; the messages of
`method.proto` carry fields of the same names. So translation is by name, and a
new regularizer needs no line here.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message

import engine
from engine.fields import Bounds, Checked
from engine.optimizer import OPTIMIZERS
from engine.parameterization import PARAMETERIZATIONS
from engine.regularizer import REGULARIZERS
from engine.spec import default_regularizers
from engine.start import STARTS
from neurofv.v1 import method_pb2
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import InvalidField

Kind = TypeVar("Kind", bound=Checked)


@dataclass(frozen=True)
class Method:
    """How a visualization is made, whatever its objective.

    Attributes
    ----------
    choices : dict
        Parameterization, start, transforms, regularizers, optimizer, schedule,
        stopping, precision, steps, seed and snapshot_every, as `engine.Spec` takes them.
    """

    choices: Mapping[str, Any]

    @classmethod
    def read(cls, request: vis.VisualizeRequest) -> "Method":
        """Take a request's choices, with the engine's defaults for what is absent.

        Raises
        ------
        InvalidField
            A number is not finite or out of bounds.
        """
        choices: dict[str, Any] = {
            "parameterization": _one_of(request.parameterization, PARAMETERIZATIONS, "parameterization"),
            "start": _one_of(request.start, STARTS, "start"),
            "transforms": _settings(engine.Transforms, request.transforms, "transforms"),
            "optimizer": _one_of(request.optimizer, OPTIMIZERS, "optimizer"),
            "schedule": _schedule(request.optimizer.schedule),
            "stopping": _settings(engine.Stopping, request.stopping, "stopping"),
            "precision": _precision(request.precision),
        }
        of_spec = {field.name: field for field in dataclasses.fields(engine.Spec)}
        choices["regularizers"] = default_regularizers(choices["parameterization"])
        if request.HasField("regularization"):
            choices["regularizers"] = _regularizers(request.regularization)
        for name in ("steps", "seed", "snapshot_every"):
            choices[name] = of_spec[name].default
            if request.HasField(name):
                choices[name] = _checked(getattr(request, name), of_spec[name].metadata["bounds"], name)
        return cls(choices)

    def write(self, request: vis.VisualizeRequest) -> None:
        """Write every choice into a request, so that no default is left open."""
        for name, value in self.choices.items():
            if name == "regularizers":
                request.regularization.SetInParent()
                del request.regularization.regularizers[:]
                for regularizer in value:
                    _fill(getattr(request.regularization.regularizers.add(), regularizer.name), regularizer)
            elif isinstance(value, engine.Schedule):
                request.optimizer.schedule = getattr(method_pb2, f"SCHEDULE_{value.name}")
            elif isinstance(value, engine.Precision):
                request.precision = getattr(method_pb2, f"PRECISION_{value.name}")
            elif isinstance(value, int):
                setattr(request, name, value)
            elif hasattr(value, "name"):
                _fill(getattr(getattr(request, name), value.name), value)
            else:
                _fill(getattr(request, name), value)


def _schedule(value: int) -> engine.Schedule:
    try:
        return engine.Schedule(value or engine.Schedule.CONSTANT.value)
    except ValueError:
        raise InvalidField("optimizer.schedule", f"is {value}, which is no schedule") from None


def _precision(value: int) -> engine.Precision:
    try:
        return engine.Precision(value or engine.Precision.FLOAT32.value)
    except ValueError:
        listed = ", ".join(f"PRECISION_{each.name}" for each in engine.Precision)
        raise InvalidField(
            "precision", f"is {value}, which is no precision; choose one of {listed}"
        ) from None


def _regularizers(message: method_pb2.Regularization) -> tuple[engine.Regularizer, ...]:
    found: dict[str, engine.Regularizer] = {}
    for index, entry in enumerate(message.regularizers):
        path = f"regularization.regularizers[{index}]"
        name = entry.WhichOneof("kind")
        if name is None:
            raise InvalidField(path, f"names no kind; choose one of {', '.join(REGULARIZERS)}")
        if name in found:
            raise InvalidField(path, f"is a second {name}; give each kind once")
        found[name] = _settings(REGULARIZERS[name], getattr(entry, name), f"{path}.{name}")
    return tuple(found.values())


def _one_of(message: Message, kinds: Mapping[str, type[Kind]], path: str) -> Kind:
    """Read the chosen kind; the first of `kinds` is the default."""
    name = message.WhichOneof("kind")
    if name is None:
        return next(iter(kinds.values()))()
    return _settings(kinds[name], getattr(message, name), f"{path}.{name}")


def _settings(kind: type[Kind], message: Message, path: str) -> Kind:
    given = {
        field.name: getattr(message, field.name)
        for field in message.DESCRIPTOR.fields
        if message.HasField(field.name)
    }
    try:
        return kind(**given)
    except engine.InvalidField as error:
        raise InvalidField(f"{path}.{error.field}", f"is {error.value}, but must be {error.rule}") from None


def _checked(value: int, bounds: Bounds, path: str) -> int:
    if not bounds.accepts(value):
        raise InvalidField(path, f"is {value}, but must be {bounds}")
    return value


def _fill(message: Message, settings: Checked) -> None:
    message.SetInParent()
    for field in message.DESCRIPTOR.fields:
        value = getattr(settings, field.name)
        if value is not None:
            setattr(message, field.name, value)
