"""What a call of TorchServe brought: an image to predict, or a request to visualize."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import InvalidField
from service.volumes.reading import looks_like_image

_LONGEST_NAME, _LONGEST_REASON = 64, 300


@dataclass(frozen=True)
class Image:
    """A person's image, to be predicted.

    Attributes
    ----------
    data : bytes
        A NIfTI file.
    field : str
        Name of the field that held it.
    """

    data: bytes
    field: str


@dataclass(frozen=True)
class Wish:
    """A request to visualize.

    Attributes
    ----------
    request : VisualizeRequest
        As it came.
    field : str
        Name of the field that held it.
    as_json : bool
        Whether it came as JSON, so that the events go back as JSON.
    """

    request: vis.VisualizeRequest
    field: str
    as_json: bool


def read_call(fields: Mapping[str, Any]) -> Image | Wish:
    """Tell an image from a request by its first bytes: no message of protobuf begins as one does.

    Parameters
    ----------
    fields : mapping of str to bytes, str or JSON value
        The fields of the call, as TorchServe has decoded them.

    Returns
    -------
    Image or Wish
        What is asked for.

    Raises
    ------
    InvalidField
        There is not one field alone, or it is neither.
    google.protobuf.message.DecodeError
        It is no request.
    """
    if len(fields) != 1:
        raise InvalidField("input", f"has {len(fields)} fields, but must have one: an image or a request")
    ((name, value),) = fields.items()
    name = name[:_LONGEST_NAME]
    data = value if isinstance(value, dict) else _bytes(value, name)
    if isinstance(data, dict) or data.lstrip()[:1] == b"{":
        return Wish(_from_json(data, name), name, as_json=True)
    if looks_like_image(data):
        return Image(data, name)
    if not data:
        raise InvalidField(name, "is empty; send an image or a request")
    return Wish(vis.VisualizeRequest.FromString(data), name, as_json=False)


def _bytes(value: Any, name: str) -> bytes:
    """Return the bytes of a field, which TorchServe may have taken for text or for JSON."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise InvalidField(name, "is JSON, but no object; send a VisualizeRequest as an object")


def _from_json(data: bytes | dict[str, Any], name: str) -> vis.VisualizeRequest:
    try:
        plain = data if isinstance(data, dict) else json.loads(data)
        return json_format.ParseDict(plain, vis.VisualizeRequest())
    except (ValueError, RecursionError, json_format.ParseError) as error:
        # Not the list of everything that would have been a field.
        reason = " ".join(str(error).split()).partition(" Available")[0][:_LONGEST_REASON]
        raise InvalidField(name, f"is no VisualizeRequest in JSON: {reason}") from None
