"""Requests from plain Python values.

What the messages of `method.proto` offer is read from their descriptors (see
`neurofv.fields`), so a new regularizer, start or transform needs no line here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from neurofv.errors import InvalidRequest
from neurofv.fields import choose, fill, named, point, three
from neurofv.images import Image, nifti_bytes
from neurofv.objectives import objectives
from neurofv.v1 import method_pb2 as method
from neurofv.v1 import visualization_service_pb2 as vis

_PLAIN = ("version", "seed", "steps", "snapshot_every", "samples", "transforms", "stopping")
# Of how a request is sent, and no part of what is computed.
DELIVERY = ("request_id", "detach")


class Choices(TypedDict, total=False):
    """What to visualize and how; what is left out takes the server's default.

    Lengths are mm, angles degrees. The unit is named in one of these ways: by
    `class_name`; by `layer` and `channel`, which may be narrowed to one position
    by `voxel` or `position_mm`; by `layer` and `whole_layer`, `direction` or
    `compare`; or by `objective`. Several classes or channels make as many
    volumes, optimized at once.

    Attributes
    ----------
    version : int
        Of the model; the newest by default.
    class_name : str or sequence of str
        The logit of this class, before softmax.
    contrast : bool
        The class's logit against the mean of the others'.
    layer : str
        A layer's name as PyTorch writes it.
    channel : int or sequence of int
        A channel of the layer, from 0.
    voxel : sequence of 3 int
        Position as voxel indices of the model's grid.
    position_mm : sequence of 3 float
        Position in the model's anatomical space, RAS+.
    whole_layer : bool
        All channels of the layer: the mean of their squared activations.
    direction : sequence of float
        A direction in the layer's channel space, one number for each channel.
    measure : str
        How activations are compared with the direction: `"dot"` or `"cosine"`.
    compare : str
        What is made of the subject's activations at the layer: `"inversion"` or `"caricature"`.
    minimize : bool
        The unit is to be silenced.
    behind_nonlinearities : bool
        Units of a non-linearity, such as a ReLU, are read behind it, not before it.
    objective : Objective or sequence of Objective
        Weighted sums and all else that the messages of `neurofv.v1.method_pb2` can say; several make as
        many volumes.
    subject : str, PathLike, bytes or SpatialImage
        A person's image for `start="subject"` or `compare`: the path of a NIfTI or .mgz file, its content,
        or an image of nibabel. The server never stores it.
    canvas_mm : float or sequence of 3 float
        Edge lengths of the box that is optimized; 0 means the whole axis.
    center_mm : sequence of 3 float
        Middle of that box.
    seed, steps, snapshot_every : int
        Seed of every draw, optimizer steps, steps between snapshots (0 for none).
    samples : int
        Volumes of each objective, from consecutive seeds.
    stopping : mapping
        When to stop before the last step, such as `{"plateau_looks": 5, "activation": 12.0}`.
    optimizer : str or mapping
        `"adam"`, `"nadam"`, `"sgd"` or, for instance, `{"adam": {"learning_rate": 0.05}}`.
    schedule : str
        How the learning rate changes: `"constant"` or `"cosine"`.
    transforms : mapping
        Such as `{"jitter_mm": 8, "rotation_degrees": 10, "copies": 2}`.
    regularizers : mapping, or empty for none
        Such as `{"total_variation": {"weight": 1}, "feature_distance": {"layer": "blocks.2.conv"}}`. A
        plain number stands for the only number: `{"total_variation": 1}`.
    parameterization : str or mapping
        `"fourier"`, `"deformation"` or, for instance, `{"fourier": {"decay": 1}}`.
    start : str or mapping
        `"noise"`, `"reference_brain"` or, for instance, `{"noise": {"deviation": 0.1}}`.
    precision : str
        The numbers in which the network computes: `"float32"`, `"bfloat16"` or, on a GPU, `"float16"`.
    control : str or mapping
        The model without what it has learned: `"random_weights"` or, for another draw than the first,
        `{"random_weights": {"seed": 1}}`.
    transfer : str
        A second model, NAME or NAME/VERSION, which says whether it sees the same class.
    real_images : mapping
        Real images by class, each as `subject` or a sequence of such: activations are compared with theirs.
    request_id : str
        Sent again within a day, it means the same job; a UUID by default.
    detach : bool
        Whether the job goes on when its caller has left or the connection is lost.
    """

    version: int
    class_name: str | Sequence[str]
    contrast: bool
    layer: str
    channel: int | Sequence[int]
    voxel: Sequence[int]
    position_mm: Sequence[float]
    whole_layer: bool
    direction: Sequence[float]
    measure: str
    compare: str
    minimize: bool
    behind_nonlinearities: bool
    objective: method.Objective | Sequence[method.Objective]
    subject: Image
    canvas_mm: float | Sequence[float]
    center_mm: Sequence[float]
    seed: int
    steps: int
    snapshot_every: int
    samples: int
    stopping: Mapping[str, float]
    optimizer: str | Mapping[str, Any]
    schedule: str
    transforms: Mapping[str, float]
    regularizers: Mapping[str, Any] | Sequence[Any]
    parameterization: str | Mapping[str, Any]
    start: str | Mapping[str, Any]
    precision: str
    control: str | Mapping[str, Any]
    transfer: str
    real_images: Mapping[str, Image | Sequence[Image]]
    request_id: str
    detach: bool


def build_request(model: str, **choices: Unpack[Choices]) -> vis.VisualizeRequest:
    """Write a request.

    Parameters
    ----------
    model : str
        The model's name.
    **choices
        See `Choices`. None is as good as absent.

    Returns
    -------
    VisualizeRequest
        With only what was chosen.

    Raises
    ------
    InvalidRequest
        A name is unknown, a type does not fit, or the unit is not clear.
    OSError
        An image's file cannot be read.
    """
    given = {name: value for name, value in choices.items() if value is not None}
    if unknown := sorted(given.keys() - Choices.__annotations__.keys()):
        valid = ", ".join(Choices.__annotations__)
        raise InvalidRequest(unknown[0], given[unknown[0]], f"there is no such choice; there are: {valid}")
    first, *batch = objectives(given)
    request = vis.VisualizeRequest(objective=first, batch=batch)
    fill(request, {"model": model}, "request")
    for name in (*_PLAIN, *DELIVERY):
        fill(request, {name: given[name]} if name in given else {}, "request")
    if "regularizers" in given:
        _regularizers(request.regularization, given["regularizers"])
    for name in ("parameterization", "start", "optimizer", "control"):
        if name in given:
            choose(getattr(request, name), given[name], name)
    if "schedule" in given:
        schedule = named(method.Schedule.DESCRIPTOR, given["schedule"], "schedule")
        request.optimizer.schedule = schedule  # type: ignore[assignment]
    if "precision" in given:
        precision = named(method.Precision.DESCRIPTOR, given["precision"], "precision")
        request.precision = precision  # type: ignore[assignment]
    _canvas(request.canvas, given)
    _images(request, given)
    return request


def split_model(text: str, path: str) -> tuple[str, int]:
    """Read NAME or NAME/VERSION; version 0 means the newest.

    Parameters
    ----------
    text : str
        What to read.
    path : str
        What it is called in an error.

    Raises
    ------
    InvalidRequest
        The version is no number from 1.
    """
    name, slash, version = text.partition("/")
    if not name or (slash and not (version.isdecimal() and int(version) > 0)):
        raise InvalidRequest(path, text, "write NAME or NAME/VERSION, such as lesion-shapes/1")
    return name, int(version or 0)


def volume_count(request: vis.VisualizeRequest) -> int:
    """Return how many volumes a request asks for."""
    return (1 + len(request.batch)) * max(request.samples, 1)


def _canvas(canvas: method.Canvas, given: Mapping[str, Any]) -> None:
    if "canvas_mm" in given:
        edges = three(given["canvas_mm"], "canvas_mm", repeat=True)
        fill(canvas.size_mm, dict(zip("ijk", edges, strict=True)), "canvas_mm")
    if "center_mm" in given:
        point(canvas.center_mm, given["center_mm"], "center_mm")


def _regularizers(message: method.Regularization, chosen: object) -> None:
    message.SetInParent()
    if not chosen and not isinstance(chosen, str):
        return
    if not isinstance(chosen, Mapping):
        example = '{"total_variation": {"weight": 1}}'
        raise InvalidRequest("regularizers", chosen, f"give them by name, as in {example}, or [] for none")
    for name, fields in chosen.items():
        choose(message.regularizers.add(), {name: fields}, "regularizers")


def _images(request: vis.VisualizeRequest, given: Mapping[str, Any]) -> None:
    """Put in the images of people, and what else the result is compared with."""
    if "subject" in given:
        request.subject.nifti = nifti_bytes(given["subject"], "subject")
    if "transfer" in given:
        model, version = split_model(given["transfer"], "transfer")
        request.comparisons.transfer_model, request.comparisons.transfer_version = model, version
    real = given.get("real_images", {})
    if not isinstance(real, Mapping):
        raise InvalidRequest("real_images", type(real).__name__, "give lists of images by class name")
    for class_name, images in real.items():
        for image in images if isinstance(images, list | tuple) else [images]:
            entry = request.comparisons.real_images.add()
            fill(entry, {"class_name": class_name}, "real_images")
            entry.image.nifti = nifti_bytes(image, "real_images")
