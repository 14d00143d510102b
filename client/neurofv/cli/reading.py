"""How the texts of options are read."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import typer
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message


def read_edges(text: str | None) -> float | list[float] | None:
    """Read one edge or three, separated by commas.

    Raises
    ------
    typer.BadParameter
        They are no numbers.
    """
    if text is None:
        return None
    try:
        edges = [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r}: write mm, such as --canvas 80 or --canvas 80,60,40") from None
    return edges[0] if len(edges) == 1 else edges


def read_names(text: str | None) -> list[str] | None:
    """Read names that are separated by commas."""
    return None if text is None else [name.strip() for name in text.split(",")]


def read_channels(text: str | None) -> list[int] | None:
    """Read channels, such as `5`, `1,5,7` or `0-7`.

    Raises
    ------
    typer.BadParameter
        It is none of these.
    """
    if text is None:
        return None
    try:
        channels = [channel for part in text.split(",") for channel in _range(part)]
    except ValueError:
        channels = []
    if not channels:
        raise typer.BadParameter(f"--channel {text}: write numbers from 0, such as 5, 1,5,7 or 0-7")
    return channels


def read_direction(text: str | None) -> list[float] | None:
    """Read a direction: numbers separated by commas, or the name of a file that holds them.

    Parameters
    ----------
    text : str or None
        A file is one of numpy (`.npy`), or a text with numbers between blanks, commas or line ends.

    Raises
    ------
    typer.BadParameter
        There are no numbers, or others than finite ones.
    """
    if text is None:
        return None
    try:
        if text.endswith(".npy"):
            numbers = [float(number) for number in np.load(text, allow_pickle=False).ravel()]
        else:
            content = Path(text).read_text(encoding="utf-8") if Path(text).is_file() else text
            numbers = [float(number) for number in content.replace(",", " ").split()]
    except (ValueError, OSError) as error:
        remedy = "write numbers, such as 1,0,-0.5, or name a file with one for each channel"
        raise typer.BadParameter(f"--direction {text}: {remedy} ({error})") from None
    if not numbers or not all(map(math.isfinite, numbers)):
        raise typer.BadParameter(f"--direction {text}: give finite numbers, one for each channel")
    return numbers


def read_files(texts: list[str] | None, option: str) -> dict[str, list[Path]] | None:
    """Read files by name, each NAME=FILE; a name may come again.

    Raises
    ------
    typer.BadParameter
        A text is nothing of the kind.
    """
    files: dict[str, list[Path]] = {}
    for text in texts or []:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise typer.BadParameter(f"{option} {text}: write CLASS=FILE, such as cube=patient.nii.gz")
        files.setdefault(name.strip(), []).append(Path(file))
    return files or None


def read_settings(texts: list[str] | None, message: Message, option: str) -> dict[str, Any] | None:
    """Read settings by name.

    Parameters
    ----------
    texts : list of str or None
        Each NAME, NAME=VALUE or NAME.FIELD=VALUE.
    message : Message
        What is set: its fields say how values are read.
    option : str
        For the error.

    Returns
    -------
    dict or None
        As `neurofv.fields.fill` takes it; None if there was nothing to read.

    Raises
    ------
    typer.BadParameter
        A text is none of these.
    """
    if not texts:
        return None
    settings: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        name, dot, field = path.strip().partition(".")
        read = _value(value, _field(message, name, field), f"{option} {text}") if equals else {}
        if dot and equals and isinstance(settings.setdefault(name, {}), dict):
            settings[name][field] = read
        elif dot or name in settings:
            raise typer.BadParameter(f"{option} {text}: write NAME=VALUE once, or NAME.FIELD=VALUE")
        else:
            settings[name] = read
    return settings


def read_setting(text: str | None, message: Message, option: str) -> dict[str, Any] | None:
    """Read one setting by name; see `read_settings`."""
    return read_settings([text] if text else None, message, option)


def _range(text: str) -> Iterator[int]:
    first, dash, last = text.partition("-")
    yield from range(int(first), int(last if dash else first) + 1)


def _field(message: Message, name: str, field: str) -> Any:
    """Return the descriptor of the field that a setting means; None if there is no such field."""
    found = message.DESCRIPTOR.fields_by_name.get(name)
    if found is None or found.message_type is None or not field:
        return found
    return found.message_type.fields_by_name.get(field)


def _value(text: str, field: Any, option: str) -> Any:
    """Read a value as its field needs it; the layer of name 0 is no number."""
    if field is not None and field.type == FieldDescriptor.TYPE_STRING:
        return text
    if field is not None and field.type == FieldDescriptor.TYPE_BOOL and text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    known = "true or false" if field is not None and field.type == FieldDescriptor.TYPE_BOOL else "a number"
    raise typer.BadParameter(f"{option}: {text!r} is not {known}")
