"""A probe, checked: the model found, the units looked up, the image on its grid."""

from dataclasses import dataclass

import numpy as np

from models import Bundle, Layer
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import InvalidField, UnitOutOfRange
from service.jobs import images
from service.jobs.bundles import Bundles, find_bundle
from service.jobs.control import control_seed
from service.jobs.targets import label, layer_of
from service.settings import Settings

# About what an answer of 1 MiB holds.
MOST_UNITS = 16_384


@dataclass(frozen=True)
class Probe:
    """A probe that can be made.

    Attributes
    ----------
    request : ProbeRequest
        With the model's version and the image's digest, without the image.
    bundle : Bundle
        The model.
    volume : ndarray, (X, Y, Z), float32
        The image on the model's grid, model units.
    """

    request: vis.ProbeRequest
    bundle: Bundle
    volume: np.ndarray


def read_probe(request: vis.ProbeRequest, repository: Bundles, settings: Settings) -> Probe:
    """Check a probe, and read its image.

    Parameters
    ----------
    request : ProbeRequest
        As it came; it is not changed.
    repository : Bundles
        Where its model lies.
    settings : Settings
        The server's limits.

    Raises
    ------
    ServiceError, ModelError
        It cannot be made; says which field is at fault.
    """
    bundle = find_bundle(repository, request.model, request.version)
    control_seed(request)
    _check_units(request, bundle)
    resolved = vis.ProbeRequest()
    resolved.CopyFrom(request)
    resolved.model, resolved.version = bundle.manifest.name, bundle.manifest.version
    volume = images.read_one(resolved.image, "image", bundle, settings)
    resolved.image.ClearField("nifti")
    return Probe(resolved, bundle, volume)


def _check_units(request: vis.ProbeRequest, bundle: Bundle) -> None:
    """Refuse units that the model has not."""
    if len(request.units) > MOST_UNITS:
        rule = f"are {len(request.units)}, but at most {MOST_UNITS} are read; send several probes"
        raise InvalidField("units", rule, limit=MOST_UNITS, actual=len(request.units))
    if not request.units and not bundle.manifest.classes:
        rule = f"is empty, and {label(bundle)} has no classes; name a channel of one of its layers"
        raise InvalidField("units", rule)
    known: dict[str, Layer] = {}
    for index, unit in enumerate(request.units):
        layer = known.get(unit.layer) or known.setdefault(unit.layer, layer_of(bundle, unit.layer))
        if not 0 <= unit.channel < layer.channels:
            rule = f"is {unit.channel}, but {layer.name} has channels 0 to {layer.channels - 1}"
            raise UnitOutOfRange(f"units[{index}].channel", rule, max=layer.channels - 1, actual=unit.channel)
