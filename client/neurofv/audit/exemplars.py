"""Real images beside the pictures: which drive a unit most, and which units vary most over them."""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes

from neurofv.audit.drawing import read_scan, shown_box, views
from neurofv.audit.folder import EXEMPLAR, EXEMPLARS
from neurofv.audit.images import RealImage
from neurofv.audit.jobs import patient
from neurofv.audit.plan import Plan
from neurofv.audit.tasks import Unit
from neurofv.audit.weights import check_weights
from neurofv.client import Client
from neurofv.errors import InvalidRequest, NeurofvError
from neurofv.files import write_atomically
from neurofv.v1 import model_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis

_MOST = 4
# Pixels of the three slices together.
_WIDTH = 600


@dataclass(frozen=True)
class Exemplar:
    """A real image on which a unit fires.

    Attributes
    ----------
    image : RealImage
        Which.
    activation : float
        The logit, or the mean of the channel's map.
    position_mm : tuple of float or None
        Where the map is highest; None if the unit sees the image as a whole.
    """

    image: RealImage
    activation: float
    position_mm: tuple[float, float, float] | None


def rank_channels(
    client: Client, plan: Plan, model: pb.Model, images: Sequence[RealImage], say: Callable[[str], None]
) -> dict[str, list[int]]:
    """Rank the channels of layers of which a plan wants the top: by the variance of their mean activation.

    Parameters
    ----------
    client : Client
        The server.
    plan, model
        What is audited.
    images : sequence of RealImage
        Over which they vary.
    say : callable
        Told what is under way.

    Returns
    -------
    dict
        Channels by layer, from the one that varies most.

    Raises
    ------
    NeurofvError
        The server failed, or the model has other weights by now.
    """
    layers = {group.layer for group in plan.groups if group.top}
    places = [
        (layer.name, channel)
        for layer in model.layers
        if layer.name in layers
        for channel in range(layer.channels)
    ]
    if not places:
        return {}
    means: dict[str, list[list[float]]] = {layer: [] for layer in layers}
    for answer in _shown(client, model, images, places, say):
        found: dict[str, list[float]] = {layer: [] for layer in layers}
        for unit in answer.units:
            found[unit.layer].append(unit.mean)
        for layer, values in found.items():
            means[layer].append(values)
    return {
        layer: np.argsort(-np.var(np.array(values), axis=0), kind="stable").tolist()
        for layer, values in means.items()
    }


def find_exemplars(
    client: Client,
    model: pb.Model,
    units: Sequence[Unit],
    images: Sequence[RealImage],
    say: Callable[[str], None],
) -> dict[str, list[Exemplar]]:
    """Find the real images that drive each unit most.

    Parameters
    ----------
    client : Client
        The server.
    model : Model
        The model.
    units : sequence of Unit
        Classes and channels.
    images : sequence of RealImage
        Among which to look.
    say : callable
        Told what is under way.

    Returns
    -------
    dict
        By unit's id, the strongest first.
    """
    channels = [unit for unit in units if not unit.class_name]
    places = [(unit.layer, unit.channel) for unit in channels]
    found: dict[str, list[Exemplar]] = {unit.id: [] for unit in units}
    for image, answer in zip(images, _shown(client, model, images, places, say), strict=True):
        for unit in units:
            if unit.class_name:
                found[unit.id].append(Exemplar(image, answer.logits[unit.channel], None))
        for unit, probed in zip(channels, answer.units, strict=True):
            found[unit.id].append(Exemplar(image, probed.mean, _position(probed)))
    return {
        name: sorted(members, key=lambda each: (-each.activation, each.image.name, each.image.sha256))[:_MOST]
        for name, members in found.items()
    }


def draw_exemplars(folder: Path, found: dict[str, list[Exemplar]]) -> dict[str, list[dict[str, Any]]]:
    """Draw each exemplar where its unit fires most; what an earlier run has drawn besides is removed.

    Parameters
    ----------
    folder : Path
        The audit's.
    found : dict
        Exemplars by unit.

    Returns
    -------
    dict
        By unit, as the report has them.
    """
    told: dict[str, list[dict[str, Any]]] = {}
    for unit, members in found.items():
        told[unit] = []
        for place, each in enumerate(members, 1):
            picture = EXEMPLARS / f"{unit}-{place}.png"
            write_atomically(folder / picture, _drawn(each))
            told[unit].append(
                {
                    "image": each.image.name,
                    "activation": each.activation,
                    "position_mm": None if each.position_mm is None else list(each.position_mm),
                    "picture": picture.as_posix(),
                }
            )
    _remove_others(folder / EXEMPLARS, {each["picture"] for members in told.values() for each in members})
    return told


def _remove_others(folder: Path, drawn: set[str]) -> None:
    """Remove what was drawn of images that are no exemplars any more: a person may have been taken out."""
    for path in folder.glob("*.png"):
        if EXEMPLAR.fullmatch(path.name) and (EXEMPLARS / path.name).as_posix() not in drawn:
            path.unlink(missing_ok=True)


def _shown(
    client: Client,
    model: pb.Model,
    images: Sequence[RealImage],
    places: Iterable[tuple[str, int]],
    say: Callable[[str], None],
) -> Iterable[vis.ProbeResponse]:
    """Show each image to the model."""
    places = list(places)

    def ask(image: RealImage) -> vis.ProbeResponse:
        try:
            return client.probe(model.name, image.read(), places, version=model.version)
        except NeurofvError as error:
            # gRPC itself, which gives no reason, refuses what is larger than a request may be.
            large = error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and not error.reason
            if error.code is not grpc.StatusCode.INVALID_ARGUMENT and not large:
                raise
            remedy = f"the server refuses it: {error.message}; mend it, or take it out of the folder"
            raise InvalidRequest("images", image.name, remedy) from None

    for number, image in enumerate(images, 1):
        say(f"showing image {number} of {len(images)}")
        answer = patient(client, lambda image=image: ask(image))  # type: ignore[misc]
        check_weights(f"{model.name}/{model.version}", model.digest, answer.model_digest)
        yield answer


def _position(probed: vis.ProbedUnit) -> tuple[float, float, float] | None:
    if not probed.HasField("point_mm"):
        return None
    return probed.point_mm.x, probed.point_mm.y, probed.point_mm.z


def _drawn(exemplar: Exemplar) -> bytes:
    """Draw sagittal, coronal and axial slices through the place as PNG; without one, through the middle."""
    scan = read_scan(exemplar.image.path)
    box = shown_box(scan, None)
    middle = np.array([(side.start + side.stop - 1) / 2 for side in box])
    if exemplar.position_mm is not None:
        middle = apply_affine(np.linalg.inv(scan.affine), exemplar.position_mm)
    i, j, k = (int(value) for value in np.clip(np.rint(middle), 0, np.array(scan.data.shape) - 1))
    right, front, _ = [side.stop - side.start for side in box] * voxel_sizes(scan.affine)
    strip = views(scan, (i, j, k), box, _WIDTH / (front + 2 * right), lines=exemplar.position_mm is not None)
    buffer = io.BytesIO()
    strip.save(buffer, format="PNG")
    return buffer.getvalue()
