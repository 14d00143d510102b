"""The second models that strategies name with `transfer`: which they are, and that they stay the same."""

from collections.abc import Iterable, Mapping
from typing import Any

from neurofv.audit.jobs import patient
from neurofv.audit.plan import Plan
from neurofv.audit.weights import check_weights
from neurofv.client import Client
from neurofv.requests import split_model
from neurofv.v1 import model_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis

Transfers = dict[str, dict[str, Any]]
"""By strategy, the second model that it names: `model`, `version` and `digest`."""


def find_transfers(client: Client, plan: Plan) -> Transfers:
    """Resolve the second models that strategies name with `transfer`.

    Parameters
    ----------
    client : Client
        The server.
    plan : Plan
        Has the strategies.

    Raises
    ------
    NeurofvError
        The server has no such model.
    """
    found = {}
    for strategy, choices in plan.strategies.items():
        if choices.get("transfer") is None:
            continue
        name, version = split_model(choices["transfer"], f"strategies.{strategy}.transfer")
        model = _model(client, name, version)
        found[strategy] = {"model": model.name, "version": model.version, "digest": model.digest}
    return found


def check_transfers(client: Client, transfers: Iterable[Mapping[str, Any]]) -> None:
    """Make sure that second models are what they were, for no answer tells their digest.

    Raises
    ------
    NeurofvError
        One is another.
    """
    for each in transfers:
        now = _model(client, each["model"], each["version"])
        check_weights(f"{now.name}/{now.version}", each["digest"], now.digest)


def pinned(request: vis.VisualizeRequest, second: Mapping[str, Any] | None) -> vis.VisualizeRequest:
    """Name the version of the second model, so that a newer one changes nothing; return the request."""
    if second is not None:
        request.comparisons.transfer_version = second["version"]
    return request


def _model(client: Client, name: str, version: int) -> pb.Model:
    return patient(client, lambda: client.model(name, version))
