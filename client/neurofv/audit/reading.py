"""A plan's text and its plain values: what YAML lets pass and an audit cannot use."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from neurofv.errors import InvalidRequest


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if (key.tag, key.value) in seen and isinstance(key, yaml.ScalarNode):
                remedy = f"it stands twice, again at line {key.start_mark.line + 1}; keep one of them"
                raise InvalidRequest("plan", key.value, remedy)
            seen.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep)


def read_text(path: Path) -> str:
    """Read a plan's file.

    Raises
    ------
    InvalidRequest
        It is no UTF-8.
    OSError
        It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        remedy = f"it is no UTF-8 (byte {error.start}); save it as UTF-8"
        raise InvalidRequest("plan", str(path), remedy) from None


def parse(text: str, source: str | Path) -> Any:
    """Parse YAML in which no mapping has a key twice.

    Raises
    ------
    InvalidRequest
        It is none; the error names the line.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f" at line {place.line + 1}" if place else ""
        raise InvalidRequest("plan", str(source), f"it is no YAML{where}; mend it there") from None
    except InvalidRequest:
        raise
    except ValueError as error:
        # Such as a date of a month 13.
        raise InvalidRequest(
            "plan", str(source), f"a value cannot be read ({error}); put it in quotes"
        ) from None


def check_plain(value: Any, path: str = "") -> None:
    """Make sure that a plan's content is what JSON knows: its digest and the report are made of it.

    Raises
    ------
    InvalidRequest
        A key is no text, a number is not finite, or a value is of another kind.
    """
    if isinstance(value, Mapping):
        for key, member in value.items():
            if not isinstance(key, str):
                remedy = 'give keys as text; YAML reads no, on and 1 otherwise, so put them in quotes: "no"'
                raise InvalidRequest(path or "plan", key, remedy)
            check_plain(member, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, member in enumerate(value):
            check_plain(member, f"{path}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest(path or "plan", value, "give a finite number")
    elif value is not None and not isinstance(value, str | int | float):
        remedy = "give text, numbers, true, false, lists, mappings; str() of a path, quotes around a date"
        raise InvalidRequest(path or "plan", value, remedy)
