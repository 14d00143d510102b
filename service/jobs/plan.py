"""From a request to a plan: every name looked up, every default filled in, every bound checked.

The server plans to answer bad requests at once; the worker plans the resolved
request again and gets the same spec.
"""

import math
from dataclasses import dataclass

import numpy as np

import engine
import models
from engine.fields import InvalidField as BadNumber
from models import Bundle, Layer, ModelError
from neurofv.v1 import method_pb2
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import ClassNotFound, InvalidField, LayerNotFound, UnitOutOfRange
from service.method import Method
from service.real_images import spread
from service.settings import Settings
from service.volumes.canvas import FADE_MM, Box, resolve, to_voxel

# The default canvas is so much larger than the receptive field, before it fades.
_MARGIN = 1.5
_SENSES = {
    method_pb2.SENSE_UNSPECIFIED: engine.Sense.MAXIMIZE,
    method_pb2.SENSE_MAXIMIZE: engine.Sense.MAXIMIZE,
    method_pb2.SENSE_MINIMIZE: engine.Sense.MINIMIZE,
}


@dataclass(frozen=True)
class Plan:
    """A request that can be run.

    Attributes
    ----------
    request : VisualizeRequest
        With every default filled in.
    bundle : Bundle
        The model.
    spec : engine.Spec
        What the engine is to do, without the reference brain.
    box : Box
        The part of the model's grid that is optimized.
    """

    request: vis.VisualizeRequest
    bundle: Bundle
    spec: engine.Spec
    box: Box

    def whole_grid_objective(self) -> engine.Objective:
        """Return the objective as it reads the whole grid, whose activation maps are larger."""
        return _objective(self.request, self.bundle, Box.whole(self.bundle.manifest.input))


def make_plan(request: vis.VisualizeRequest, bundle: Bundle, settings: Settings) -> Plan:
    """Check a request against its model and the server's limits.

    Parameters
    ----------
    request : VisualizeRequest
        As it came; it is not changed.
    bundle : Bundle
        The model that it names.
    settings : Settings
        The server's limits.

    Returns
    -------
    Plan
        Ready to run.

    Raises
    ------
    ServiceError
        The request cannot be run; says which field is at fault.
    """
    resolved = vis.VisualizeRequest()
    resolved.CopyFrom(request)
    method = Method.read(request)
    _limit("steps", method.choices["steps"], settings.max_steps)
    _limit("objective.terms", len(request.objective.terms), settings.max_terms)
    method.write(resolved)
    resolved.model, resolved.version = bundle.manifest.name, bundle.manifest.version
    _check_terms(resolved, bundle)
    space = bundle.manifest.input
    if not resolved.canvas.HasField("size_mm"):
        resolved.canvas.size_mm.CopyFrom(_default_size(resolved, bundle))
    box = resolve(resolved.canvas, space, _middle(resolved, bundle), settings.max_voxels)
    _place_neurons(resolved)
    objective = _objective(resolved, bundle, box)
    spec = engine.Spec(
        grid=engine.Grid(box.shape, space.voxel_size_mm),
        objective=objective,
        intensity_range=space.intensity_range,
        **method.choices,
    )
    return Plan(resolved, bundle, spec, box)


def _limit(field: str, actual: int, limit: int) -> None:
    if actual > limit:
        raise InvalidField(
            field, f"is {actual}, but the server's limit is {limit}", limit=limit, actual=actual
        )


def _check_terms(request: vis.VisualizeRequest, bundle: Bundle) -> None:
    """Check what the terms name, on the whole grid, and fill in weights and senses."""
    if not request.objective.terms:
        raise InvalidField("objective.terms", "is empty; name at least one unit")
    for index, term in enumerate(request.objective.terms):
        path = f"objective.terms[{index}]"
        kind = term.WhichOneof("unit")
        if kind is None:
            raise InvalidField(path, "names no unit; give a channel, a neuron or a class_logit")
        if term.sense not in _SENSES:
            raise InvalidField(f"{path}.sense", f"is {term.sense}, which is no sense")
        term.sense = term.sense or method_pb2.SENSE_MAXIMIZE
        term.weight = _weight(term, path)
        if kind == "class_logit":
            if term.class_logit.class_name not in bundle.manifest.classes:
                raise ClassNotFound(term.class_logit.class_name, bundle.manifest.classes, _label(bundle))
            continue
        unit = getattr(term, kind)
        try:
            layer = bundle.layer(unit.layer)
        except models.LayerNotFound as error:
            raise LayerNotFound(unit.layer, error.valid, _label(bundle)) from None
        _check_channel(unit.channel, layer, f"{path}.{kind}.channel")


def _weight(term: method_pb2.ObjectiveTerm, path: str) -> float:
    if not term.HasField("weight"):
        return 1.0
    try:
        engine.Term(engine.Channel("", 0), weight=term.weight)
    except BadNumber as error:
        raise InvalidField(f"{path}.weight", f"is {error.value}, but must be {error.rule}") from None
    return term.weight


def _check_channel(channel: int, layer: Layer, path: str) -> None:
    if not 0 <= channel < layer.channels:
        rule = f"is {channel}, but {layer.name} has channels 0 to {layer.channels - 1}"
        raise UnitOutOfRange(path, rule, max=layer.channels - 1, actual=channel)


def _default_size(request: vis.VisualizeRequest, bundle: Bundle) -> method_pb2.Extent:
    """Return edges that hold what the units see, with room to move.

    A unit that sees the whole input, such as a logit, mostly pools what
    earlier layers find: the last of them that is local sets the size.
    """
    whole = method_pb2.Extent()
    fields = [_local_field(bundle, _layer_of(term, bundle)) for term in request.objective.terms]
    space = bundle.manifest.input
    fades = [2 * FADE_MM / size for size in space.voxel_size_mm]
    edges = [_MARGIN * max(sizes) + fade for *sizes, fade in zip(*fields, fades, strict=True)]
    if any(edge >= limit for edge, limit in zip(edges, space.shape, strict=True)):
        return whole
    shape = tuple(math.ceil(edge) for edge in edges)
    if _layers_on(bundle, shape) is None:
        return whole
    i, j, k = (count * size for count, size in zip(shape, space.voxel_size_mm, strict=True))
    return method_pb2.Extent(i=i, j=j, k=k)


def _layers_on(bundle: Bundle, shape: tuple[int, ...]) -> dict[str, Layer] | None:
    """Return the layers by name as they act on a box, or None if the model cannot read such a box."""
    try:
        return {layer.name: layer for layer in bundle.layers(shape)}  # type: ignore[arg-type]
    except (ModelError, RuntimeError, ValueError):
        return None


def _layer_of(term: method_pb2.ObjectiveTerm, bundle: Bundle) -> str:
    kind = str(term.WhichOneof("unit"))
    return bundle.manifest.classifier_layer if kind == "class_logit" else getattr(term, kind).layer


def _local_field(bundle: Bundle, name: str) -> tuple[int, ...]:
    """Return the receptive field, voxels, of the last local layer up to the named one."""
    field: tuple[int, ...] = bundle.manifest.input.shape
    for layer in bundle.layers():
        if not layer.whole_input:
            field = layer.receptive_field
        if layer.name == name:
            break
    return field


def _middle(request: vis.VisualizeRequest, bundle: Bundle) -> np.ndarray:
    """Return the voxel in the middle of what is looked at: the neuron's place or the brain."""
    for index, term in enumerate(request.objective.terms):
        if term.WhichOneof("unit") == "neuron" and term.neuron.WhichOneof("position"):
            return _place(term.neuron, bundle, f"objective.terms[{index}].neuron")
    inside = np.argwhere(bundle.prior().mask().numpy())
    return (inside.min(0) + inside.max(0)) / 2


def _place_neurons(resolved: vis.VisualizeRequest) -> None:
    """Put neurons that were given no place into the middle of the canvas."""
    for term in resolved.objective.terms:
        if term.WhichOneof("unit") == "neuron" and not term.neuron.WhichOneof("position"):
            term.neuron.point_mm.CopyFrom(resolved.canvas.center_mm)


def _place(neuron: method_pb2.Neuron, bundle: Bundle, path: str) -> np.ndarray:
    """Return the neuron's place in voxels of the whole grid."""
    space = bundle.manifest.input
    if neuron.WhichOneof("position") == "voxel":
        place = np.array([neuron.voxel.i, neuron.voxel.j, neuron.voxel.k], dtype=float)
    else:
        place = to_voxel(space, neuron.point_mm)
    if not Box.whole(space).contains(place):
        raise InvalidField(f"{path}.position", f"is not inside the model's grid of {space.shape} voxels")
    return place


def _objective(request: vis.VisualizeRequest, bundle: Bundle, box: Box) -> engine.Objective:
    """Return the objective on the box, whose activation maps are smaller than the grid's."""
    layers = _layers_on(bundle, box.shape)
    if layers is None:
        rule = f"makes a box of {box.shape} voxels, which the model cannot read; ask for a larger one"
        raise InvalidField("canvas.size_mm", rule)
    prior = bundle.prior()
    terms = []
    for index, term in enumerate(request.objective.terms):
        unit = _unit(term, bundle, box, layers, f"objective.terms[{index}]")
        terms.append(engine.Term(unit, term.weight, _SENSES[term.sense], spread(prior, unit)))
    return engine.Objective(tuple(terms))


def _unit(
    term: method_pb2.ObjectiveTerm, bundle: Bundle, box: Box, layers: dict[str, Layer], path: str
) -> engine.Channel:
    kind = term.WhichOneof("unit")
    if kind == "class_logit":
        index = bundle.manifest.classes.index(term.class_logit.class_name)
        return engine.ClassLogit(bundle.manifest.classifier_layer, index)
    if kind == "channel":
        return engine.Channel(term.channel.layer, term.channel.channel)
    layer = layers[term.neuron.layer]
    if not layer.output_shape:
        return engine.Neuron(layer.name, term.neuron.channel)
    place = _place(term.neuron, bundle, f"{path}.neuron")
    if not box.contains(place):
        raise InvalidField(
            f"{path}.neuron.position", "lies outside the canvas; move the canvas or leave it out"
        )
    # Units sit `stride` voxels apart, the first one in the middle of the first stride.
    stride = np.array(layer.stride)
    nearest = np.rint((place - box.start - (stride - 1) / 2) / stride).astype(int)
    position = np.clip(nearest, 0, np.array(layer.output_shape) - 1)
    return engine.Neuron(layer.name, term.neuron.channel, tuple(int(value) for value in position))


def _label(bundle: Bundle) -> str:
    return f"model {bundle.manifest.name}/{bundle.manifest.version}"
