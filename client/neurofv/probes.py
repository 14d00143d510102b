"""Probes: which units an image is to be shown to."""

from collections.abc import Iterable, Mapping
from typing import Any

from neurofv.errors import InvalidRequest
from neurofv.fields import choose, fill
from neurofv.images import Image, nifti_bytes
from neurofv.v1 import visualization_service_pb2 as vis


def probe_request(
    model: str,
    image: Image,
    units: Iterable[tuple[str, int]],
    version: int,
    behind_nonlinearities: bool,
    control: str | Mapping[str, Any] | None,
) -> vis.ProbeRequest:
    """Write a request as `Client.probe` takes its parts.

    Raises
    ------
    InvalidRequest
        A unit is no pair of a layer and a channel, or a value is of the wrong type.
    OSError
        The image's file cannot be read.
    """
    request = vis.ProbeRequest()
    plain = {"model": model, "version": version, "behind_nonlinearities": behind_nonlinearities}
    fill(request, plain, "request")
    for unit in units:
        if not isinstance(unit, tuple | list) or len(unit) != 2:
            raise InvalidRequest("units", unit, 'give pairs of a layer and a channel: [("blocks.1.conv", 3)]')
        layer, channel = unit
        fill(request.units.add(), {"layer": layer, "channel": channel}, "units")
    if control is not None:
        choose(request.control, control, "control")
    request.image.nifti = nifti_bytes(image, "image")
    return request
