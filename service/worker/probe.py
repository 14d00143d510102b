"""How strongly units fire on an image, and where: one plain forward pass."""

import numpy as np
import torch
from nibabel.affines import apply_affine

from engine.network.capture import heard
from models import Bundle, Layer
from neurofv.v1 import visualization_service_pb2 as vis
from service.worker.model import LoadedModel


def probe(request: vis.ProbeRequest, volume: bytes, model: LoadedModel) -> vis.ProbeResponse:
    """Show an image to a network.

    Parameters
    ----------
    request : ProbeRequest
        Checked, without its image.
    volume : bytes
        The image on the model's grid, model units, float32.
    model : LoadedModel
        The model that it names, or its control.

    Returns
    -------
    ProbeResponse
        Complete.
    """
    bundle = model.bundle
    image = np.frombuffer(volume, np.float32).reshape(bundle.manifest.input.shape)
    wanted: dict[str, list[int]] = {}
    for unit in request.units:
        wanted.setdefault(unit.layer, []).append(unit.channel)
    logits, readings = _read(image, request.behind_nonlinearities, wanted, model)
    answer = vis.ProbeResponse(
        model=bundle.manifest.name,
        version=bundle.manifest.version,
        model_digest=bundle.digest,
        image_sha256=request.image.sha256,
        logits=logits,
    )
    if request.HasField("control"):
        answer.control.CopyFrom(request.control)
    layers = {layer: bundle.layer(layer) for layer in wanted}
    for unit in request.units:
        mean, maximum, place = readings[unit.layer][unit.channel]
        found = answer.units.add(layer=unit.layer, channel=unit.channel, mean=mean, maximum=maximum)
        _place(found, layers[unit.layer], place, bundle)
    return answer


_Readings = dict[str, dict[int, tuple[float, float, tuple[int, ...]]]]


def _read(
    image: np.ndarray, behind: bool, wanted: dict[str, list[int]], model: LoadedModel
) -> tuple[list[float], _Readings]:
    """Return the logits, and of each unit its mean, its maximum and the index of that."""
    classifier = model.bundle.manifest.classifier_layer
    logits: list[float] = []
    readings: _Readings = {}

    def keep(layer: str, said: torch.Tensor) -> None:
        # Maps are not kept: all layers' together may be larger than what the network itself needs.
        if layer == classifier and not logits:
            logits.extend(said[0].flatten().double().tolist())
        if layer in wanted and layer not in readings:
            readings[layer] = _summaries(said[0], sorted(set(wanted[layer])))

    batch = torch.tensor(image, device=model.device)[None, None]
    names = {*wanted, *filter(None, [classifier])}
    with torch.inference_mode(), heard(model.network.network, names, keep, behind):
        model.network.network(batch)
    return logits, readings


def _summaries(said: torch.Tensor, channels: list[int]) -> dict[int, tuple[float, float, tuple[int, ...]]]:
    """Return each channel's mean, maximum and where that is, of what a layer says of one image."""
    maps = said[channels].flatten(1) if said.ndim > 1 else said[channels, None]
    means, (maxima, places) = maps.mean(1), maps.max(1)
    rows = zip(channels, means.tolist(), maxima.tolist(), places.tolist(), strict=True)
    shape = tuple(said.shape[1:])
    return {
        channel: (mean, most, tuple(int(index) for index in np.unravel_index(place, shape)) if shape else ())
        for channel, mean, most, place in rows
    }


def _place(found: vis.ProbedUnit, layer: Layer, index: tuple[int, ...], bundle: Bundle) -> None:
    """Fill in where a position of a layer's map looks."""
    space = bundle.manifest.input
    # Tokens of a transformer have no place in space.
    if layer.is_vector or len(layer.output_shape) != len(space.shape):
        return
    # Where padding reaches further than the field, the middle of what is seen may lie outside the image.
    center = np.clip(layer.center(index), 0, np.array(space.shape) - 1)
    found.voxel.i, found.voxel.j, found.voxel.k = np.rint(center).astype(int).tolist()
    x, y, z = apply_affine(np.asarray(space.affine), center).tolist()
    found.point_mm.x, found.point_mm.y, found.point_mm.z = x, y, z
