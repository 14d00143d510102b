"""Messages from plain Python values.

What a message offers is read from its descriptor, so a new field of the
contract needs no line here. Bounds are the server's business; here only names
and types are checked.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from neurofv.errors import InvalidRequest
from neurofv.v1 import method_pb2 as method


def fill(message: Message, values: object, path: str) -> None:
    """Set fields of a message by name, whatever message it is.

    Parameters
    ----------
    message : Message
        Changed in place; set even if `values` is empty.
    values : mapping, number or str
        Fields by name, in turn mappings for messages. A value that is no mapping
        stands for the only field of the message, a number for the only one that is no text.
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
        fitting = [name for name, field in fields.items() if field.type != FieldDescriptor.TYPE_STRING]
        if len(fitting) != 1 or (isinstance(values, str) and len(fields) > 1):
            raise InvalidRequest(path, values, f"give its fields by name: {_listed(fields)}")
        values = {fitting[0]: values}
    for name, value in values.items():
        if name not in fields:
            raise InvalidRequest(
                f"{path}.{name}", value, f"there is no such field; {path} has {_listed(fields)}"
            )
        if fields[name].message_type is not None:
            fill(getattr(message, name), value, f"{path}.{name}")
        else:
            _assign(message, fields[name], value, f"{path}.{name}")


def kinds(message: Message) -> tuple[str, ...]:
    """Return the names among which a message's `kind` chooses."""
    return tuple(field.name for field in message.DESCRIPTOR.oneofs_by_name["kind"].fields)


def choose(message: Message, choice: object, path: str) -> None:
    """Choose a message's kind.

    Parameters
    ----------
    message : Message
        One with a oneof `kind`; changed in place.
    choice : str or mapping
        The kind's name, or `{name: fields}`; see `fill`.
    path : str
        What the message is called in an error.

    Raises
    ------
    InvalidRequest
        There is no such kind, or its fields are wrong.
    """
    if isinstance(choice, str):
        choice = {choice: {}}
    valid = f"choose one of: {', '.join(kinds(message))}"
    if not isinstance(choice, Mapping) or len(choice) != 1:
        raise InvalidRequest(path, choice, valid)
    if (name := next(iter(choice))) not in kinds(message):
        raise InvalidRequest(path, name, valid)
    fill(message, choice, path)


def named(enum: EnumDescriptor, name: object, path: str) -> int:
    """Return the number of an enum's value, named in lower case without the enum's own name.

    Parameters
    ----------
    enum : EnumDescriptor
        Such as `Schedule`.
    name : str
        Such as `"cosine"`.
    path : str
        What the value is called in an error.

    Raises
    ------
    InvalidRequest
        There is no value of this name.
    """
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    known = {value.name.removeprefix(prefix).lower(): value.number for value in enum.values if value.number}
    if not isinstance(name, str) or name not in known:
        raise InvalidRequest(path, name, f"choose one of: {', '.join(known)}")
    return known[name]


def point(message: method.Point, value: object, path: str) -> None:
    """Set a point from three numbers, mm.

    Raises
    ------
    InvalidRequest
        They are not three numbers.
    """
    fill(message, dict(zip("xyz", three(value, path), strict=True)), path)


def three(value: object, path: str, repeat: bool = False) -> tuple[Any, ...]:
    """Return three numbers; a single one is repeated if it may be.

    Raises
    ------
    InvalidRequest
        They are not three.
    """
    if repeat and isinstance(value, int | float):
        return (value,) * 3
    # A string is iterable too, but never what is meant.
    numbers = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()
    if len(numbers) != 3:
        raise InvalidRequest(path, value, f"give three numbers{' or one for all axes' if repeat else ''}")
    return numbers


def _assign(message: Message, field: Any, value: object, path: str) -> None:
    if field.type == FieldDescriptor.TYPE_STRING and not isinstance(value, str):
        # Protobuf's own words for it would help nobody.
        raise InvalidRequest(path, value, "give a text")
    try:
        if field.is_repeated:
            getattr(message, field.name)[:] = value
        elif field.enum_type is not None and isinstance(value, str):
            setattr(message, field.name, named(field.enum_type, value, path))
        else:
            setattr(message, field.name, value)
    except InvalidRequest:
        # A ValueError too, but in better words.
        raise
    except (TypeError, ValueError) as error:
        raise InvalidRequest(path, value, str(error)) from None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
