"""What both clients agree on about a connection."""

import os
from collections.abc import Mapping
from typing import Any

from neurofv.errors import InvalidRequest
from neurofv.requests import build_request
from neurofv.v1 import visualization_service_pb2 as vis

DEFAULT_SERVER = "localhost:50051"
SERVER_VARIABLE = "NEUROFV_SERVER"

# A server that has vanished is noticed within a minute, also while a job waits in silence. The server
# allows a ping every 30 s.
OPTIONS = (("grpc.keepalive_time_ms", 40_000), ("grpc.keepalive_timeout_ms", 20_000))


def server_address(target: str | None = None) -> str:
    """Return the server's address: the one given, else NEUROFV_SERVER's, else localhost:50051."""
    return target or os.environ.get(SERVER_VARIABLE) or DEFAULT_SERVER


def as_request(model: str | vis.VisualizeRequest, choices: Mapping[str, Any]) -> vis.VisualizeRequest:
    """Return the request that the arguments of `visualize` mean.

    Parameters
    ----------
    model : str or VisualizeRequest
        A name with choices, or a complete request without.
    choices : mapping
        See `neurofv.requests.Choices`.

    Raises
    ------
    InvalidRequest
        They are not clear.
    """
    if isinstance(model, str):
        return build_request(model, **choices)
    if choices:
        name, value = next(iter(choices.items()))
        raise InvalidRequest(name, value, "set it in the request; choices go with a model's name")
    return model
