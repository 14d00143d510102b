"""From the names in a request to bundles, and from there to a plan."""

from typing import Protocol

import models
from models import Bundle
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import InvalidField, ModelNotFound
from service.jobs.plan import Plan, make_plan
from service.settings import Settings


class Bundles(Protocol):
    """Where bundles lie: a repository, or an archive of one."""

    def get(self, name: str, version: int | None = None) -> Bundle:
        """Return a verified bundle; see `models.Repository.get`."""
        ...


def find_bundle(repository: Bundles, name: str, version: int) -> Bundle:
    """Return the bundle that a request names.

    Parameters
    ----------
    repository : Bundles
        Where it lies.
    name : str
        From the request.
    version : int
        From the request; 0 means the newest that is ready.

    Returns
    -------
    Bundle
        Verified.

    Raises
    ------
    InvalidField
        There is no name, or the version is negative.
    ModelNotFound
        The repository has no such model or version.
    BundleCorrupt, BundleInvalid
        It has, but the bundle is not ready.
    """
    if not name:
        raise InvalidField("model", "is empty; name a model as ListModels lists them")
    if version < 0:
        raise InvalidField("version", f"is {version}, but must be 0 (the newest) or a version")
    try:
        return repository.get(name, version or None)
    except models.ModelNotFound as error:
        wanted = f"{name}/{version}" if version else name
        raise ModelNotFound(wanted, error.available, "the repository") from None


def find_plan(request: vis.VisualizeRequest, repository: Bundles, settings: Settings) -> Plan:
    """Plan a request.

    Parameters
    ----------
    request : VisualizeRequest
        As it came, or resolved.
    repository : Bundles
        Where its models lie.
    settings : Settings
        The server's limits.

    Raises
    ------
    ServiceError, ModelError
        It cannot be run.
    """
    bundle = find_bundle(repository, request.model, request.version)
    wanted, other = request.comparisons, None
    if wanted.transfer_model:
        other = find_bundle(repository, wanted.transfer_model, wanted.transfer_version)
    return make_plan(request, bundle, settings, other)
