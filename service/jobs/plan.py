"""From a request to a plan: every name looked up, every default filled in, every bound checked.

The server plans to answer bad requests at once; the worker plans the resolved
request again and gets the same spec.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

import engine
from models import Bundle, Layer, ModelError
from neurofv.v1 import method_pb2
from neurofv.v1 import visualization_service_pb2 as vis
from service.device import check_precision
from service.errors import InvalidField
from service.jobs import images, targets
from service.jobs.control import control_seed
from service.method import Method
from service.settings import Settings
from service.volumes.canvas import FADE_MM, Box, resolve

# The default canvas is so much larger than the receptive field, before it fades.
MARGIN = 1.5


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
        What the engine is to do, without the anatomy.
    box : Box
        The part of the model's grid that is optimized.
    images : Images
        What the request brought along.
    other : Bundle or None
        The second model, which is asked what it sees.
    """

    request: vis.VisualizeRequest
    bundle: Bundle
    spec: engine.Spec
    box: Box
    images: images.Images
    other: Bundle | None = None

    @property
    def control(self) -> int | None:
        """Seed with which the model's weights are shuffled; None for the model as it is."""
        return control_seed(self.request)

    def whole_grid_objectives(self) -> list[engine.Objective]:
        """Return each volume's objective as it reads the whole grid, whose activation maps are larger."""
        box = Box.whole(self.bundle.manifest.input)
        layers = {layer.name: layer for layer in self.bundle.layers()}
        asked = targets.objectives(self.request, self.bundle, box, layers)
        return [objective for objective in asked for _ in range(self.request.samples)]

    def driven_class(self, item: int) -> str:
        """Return the class whose logit is a volume's first term, or an empty string."""
        asked = [self.request.objective, *self.request.batch][item // self.request.samples]
        return asked.terms[0].class_logit.class_name


def make_plan(
    request: vis.VisualizeRequest, bundle: Bundle, settings: Settings, other: Bundle | None = None
) -> Plan:
    """Check a request against its model and the server's limits.

    Parameters
    ----------
    request : VisualizeRequest
        As it came; it is not changed.
    bundle : Bundle
        The model that it names.
    settings : Settings
        The server's limits.
    other : Bundle or None
        The second model, if it names one.

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
    control_seed(request)
    _check_limits(resolved, method, settings)
    targets.check(resolved, bundle)
    _name_models(resolved, bundle, other)
    method = _name_layers(method, resolved, bundle)
    method.write(resolved)
    box = _box(resolved, bundle, method, settings)
    targets.place_neurons(resolved)
    brought = images.read(resolved, bundle, settings)
    return Plan(resolved, bundle, _spec(resolved, bundle, box, method), box, brought, other)


def _name_models(resolved: vis.VisualizeRequest, bundle: Bundle, other: Bundle | None) -> None:
    """Fill in the models' versions; the second must read the volumes of the first."""
    resolved.model, resolved.version = bundle.manifest.name, bundle.manifest.version
    if other is not None:
        resolved.comparisons.transfer_version = other.manifest.version
        images.check_same_input(bundle, other)


def _box(resolved: vis.VisualizeRequest, bundle: Bundle, method: Method, settings: Settings) -> Box:
    """Return the part of the grid that is optimized, and fill in its size."""
    if not resolved.canvas.HasField("size_mm"):
        resolved.canvas.size_mm.CopyFrom(_default_size(resolved, bundle))
    volumes = (1 + len(resolved.batch)) * resolved.samples * method.choices["transforms"].copies
    middle, space = _middle(resolved, bundle), bundle.manifest.input
    return resolve(resolved.canvas, space, middle, settings.max_voxels, volumes)


def _check_limits(resolved: vis.VisualizeRequest, method: Method, settings: Settings) -> None:
    """Check what costs time and memory."""
    resolved.samples = resolved.samples or 1
    if resolved.samples < 0:
        raise InvalidField("samples", f"is {resolved.samples}, but must be a number from 1")
    terms = max(len(objective.terms) for objective in (resolved.objective, *resolved.batch))
    for field, actual, limit in (
        ("steps", method.choices["steps"], settings.max_steps),
        ("objective.terms", terms, settings.max_terms),
        ("batch", (1 + len(resolved.batch)) * resolved.samples, settings.max_batch),
    ):
        if actual > limit:
            rule = f"is {actual}, but the server's limit is {limit}"
            raise InvalidField(field, rule, limit=limit, actual=actual)
    check_precision(method.choices["precision"], settings.device)


def _spec(request: vis.VisualizeRequest, bundle: Bundle, box: Box, method: Method) -> engine.Spec:
    space = bundle.manifest.input
    layers = layers_on(bundle, box.shape)
    if layers is None:
        rule = f"makes a box of {box.shape} voxels, which the model cannot read; ask for a larger one"
        raise InvalidField("canvas.size_mm", rule)
    asked = targets.objectives(request, bundle, box, layers)
    seeds = [method.choices["seed"] + sample for sample in range(request.samples)]
    first, *batch = [engine.Item(objective, seed) for objective in asked for seed in seeds]
    _check_ceiling(method, asked, control_seed(request))
    left_right = next(axis for axis, letter in enumerate(space.orientation) if letter in "LR")
    try:
        return engine.Spec(
            grid=engine.Grid(box.shape, space.voxel_size_mm, left_right),
            objective=first.objective,
            intensity_range=space.intensity_range,
            batch=tuple(batch),
            **method.choices,
        )
    except engine.InvalidField as error:
        raise InvalidField(error.field, f"is {error.value}, but must be {error.rule}") from None


def _check_ceiling(method: Method, objectives: Sequence[engine.Objective], control: int | None) -> None:
    """Refuse a ceiling on units of which nobody knows how they behave on real images."""
    if not any(isinstance(choice, engine.ActivationCeiling) for choice in method.choices["regularizers"]):
        return
    for term in (term for objective in objectives for term in objective.terms):
        if term.real is None:
            rule = f"needs the activations of {term.unit} on real images, which the bundle does not hold; "
            rule += "drive a convolution or a class, or leave the ceiling out"
            if control is not None:
                rule = "needs activations on real images, which nobody knows of a control; leave one out"
            raise InvalidField("regularization.activation_ceiling", rule)


def _name_layers(method: Method, resolved: vis.VisualizeRequest, bundle: Bundle) -> Method:
    """Fill in the layers of regularizers that name none: the last local one up to the first unit's."""
    local = _last_local(bundle, targets.targets(resolved)[0].layer(bundle)).name
    chosen = []
    for regularizer in method.choices["regularizers"]:
        if hasattr(regularizer, "layer"):
            regularizer = replace(regularizer, layer=regularizer.layer or local)
            targets.layer_of(bundle, regularizer.layer)
        chosen.append(regularizer)
    return Method({**method.choices, "regularizers": tuple(chosen)})


def _default_size(request: vis.VisualizeRequest, bundle: Bundle) -> method_pb2.Extent:
    """Return edges that hold what the units see, with room to move.

    A unit that sees the whole input, such as a logit, mostly pools what
    earlier layers find: the last of them that is local sets the size.
    """
    whole = method_pb2.Extent()
    named = {target.layer(bundle) for target in targets.targets(request)}
    fields = [_last_local(bundle, name).receptive_field for name in named]
    space = bundle.manifest.input
    fades = [2 * FADE_MM / size for size in space.voxel_size_mm]
    edges = [MARGIN * max(sizes) + fade for *sizes, fade in zip(*fields, fades, strict=True)]
    if any(edge >= limit for edge, limit in zip(edges, space.shape, strict=True)):
        return whole
    shape = tuple(math.ceil(edge) for edge in edges)
    if layers_on(bundle, shape) is None:
        return whole
    i, j, k = (count * size for count, size in zip(shape, space.voxel_size_mm, strict=True))
    return method_pb2.Extent(i=i, j=j, k=k)


def layers_on(bundle: Bundle, shape: tuple[int, ...]) -> dict[str, Layer] | None:
    """Return the layers by name as they act on a box, or None if the model cannot read such a box."""
    try:
        return {layer.name: layer for layer in bundle.layers(shape)}  # type: ignore[arg-type]
    except (ModelError, RuntimeError, ValueError):
        return None


def _last_local(bundle: Bundle, name: str) -> Layer:
    """Return the last layer up to the named one that does not see the whole input; if none, the first."""
    layers = bundle.layers()
    found = layers[0]
    for layer in layers:
        if not layer.whole_input:
            found = layer
        if layer.name == name:
            break
    return found


def _middle(request: vis.VisualizeRequest, bundle: Bundle) -> np.ndarray:
    """Return the voxel in the middle of what is looked at: the neuron's place or the brain."""
    for target in targets.targets(request):
        if target.positioned:
            return target.place(bundle)
    inside = np.argwhere(bundle.prior().mask().numpy())
    return (inside.min(0) + inside.max(0)) / 2
