"""Tensors of the protocol: which there are, how they are read and written."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from models import Bundle
from service.errors import InvalidField
from service.oip import open_inference_pb2 as oip

VOLUME, NORMALIZED = "volume", "normalized"
LOGITS, PROBABILITIES, OUTPUT = "logits", "probabilities", "output"
# On the wire, whatever the machine.
FLOATS = np.dtype("<f4")
_TYPE = "FP32"
# What Triton's clients can ask for and nobody here could do, so that it must not pass unseen.
_UNSUPPORTED = ("shared_memory_region", "classification")
_LONGEST_NAME, _MOST_AXES = 64, 8


def describe(bundle: Bundle, versions: Iterable[int]) -> oip.ModelMetadataResponse:
    """Tell what a model reads and gives.

    Parameters
    ----------
    bundle : Bundle
        One version of the model.
    versions : iterable of int
        Those that are ready.
    """
    manifest = bundle.manifest
    answer = oip.ModelMetadataResponse(name=manifest.name, platform="pytorch_safetensors")
    answer.versions.extend(map(str, versions))
    answer.inputs.add(name=VOLUME, datatype=_TYPE, shape=(-1, 1, *manifest.input.shape))
    last = bundle.layers()[-1]
    shape = (-1, len(manifest.classes)) if manifest.classes else (-1, last.channels, *last.output_shape)
    for name in outputs_of(bundle):
        answer.outputs.add(name=name, datatype=_TYPE, shape=shape)
    return answer


def outputs_of(bundle: Bundle) -> Sequence[str]:
    """Return the names of what a model gives: a classifier's two, or a network's plain output."""
    return (LOGITS, PROBABILITIES) if bundle.manifest.classes else (OUTPUT,)


def add_output(answer: oip.ModelInferResponse, name: str, shape: Iterable[int], data: bytes) -> None:
    """Put a tensor into an answer."""
    answer.outputs.add(name=name, datatype=_TYPE, shape=shape)
    answer.raw_output_contents.append(data)


def wanted_outputs(request: oip.ModelInferRequest, bundle: Bundle) -> Sequence[str]:
    """Return the outputs that a request asks for; without any it asks for all.

    Raises
    ------
    InvalidField
        It asks for another one, or for one in a way that is not offered.
    """
    known = outputs_of(bundle)
    for index, output in enumerate(request.outputs):
        if output.name not in known:
            rule = f"is {_shown(output.name)}; {bundle.label} gives {' and '.join(known)}"
            raise InvalidField(f"outputs[{index}].name", rule)
        _check_parameters(output.parameters, f"outputs[{index}].parameters")
    names = [output.name for output in request.outputs]
    if len(set(names)) < len(names):
        raise InvalidField("outputs", "names an output twice; name each once")
    return names or known


def split(request: oip.ModelInferRequest, bundle: Bundle, most: int) -> list[oip.ModelInferRequest]:
    """Make a request of each volume of a request.

    Parameters
    ----------
    request : ModelInferRequest
        As it came.
    bundle : Bundle
        The model that it names.
    most : int
        Most volumes that it may hold.

    Returns
    -------
    list of ModelInferRequest
        Of one volume each, in raw bytes; `id` names the volume's field for errors.

    Raises
    ------
    InvalidField
        A tensor has another name, type, shape or size than the model's.
    """
    normalized = _is_normalized(request)
    count = _count(request, bundle.manifest.input.shape, most)
    data = _numbers(request, count * math.prod(bundle.manifest.input.shape))
    size, parts = len(data) // count, []
    for index in range(count):
        part = oip.ModelInferRequest(
            model_name=bundle.manifest.name,
            model_version=str(bundle.manifest.version),
            id="inputs[0]" if count == 1 else f"inputs[0][{index}]",
            raw_input_contents=[bytes(data[index * size : (index + 1) * size])],
        )
        part.parameters[NORMALIZED].bool_param = normalized
        parts.append(part)
    return parts


def _is_normalized(request: oip.ModelInferRequest) -> bool:
    _check_parameters(request.parameters, "parameters")
    if NORMALIZED not in request.parameters:
        return False
    if request.parameters[NORMALIZED].WhichOneof("parameter_choice") != "bool_param":
        raise InvalidField(f"parameters.{NORMALIZED}", "is no bool; send true or false as bool_param")
    return request.parameters[NORMALIZED].bool_param


def _count(request: oip.ModelInferRequest, grid: tuple[int, ...], most: int) -> int:
    """Return how many volumes the input's shape tells of."""
    if len(request.inputs) != 1 or request.inputs[0].name != VOLUME:
        names = ", ".join(_shown(tensor.name) for tensor in request.inputs[:_MOST_AXES]) or "nothing"
        raise InvalidField("inputs", f"holds {names}; send one tensor called {VOLUME!r}")
    tensor = request.inputs[0]
    if tensor.datatype != _TYPE:
        rule = f"is {_shown(tensor.datatype)}, but must be {_TYPE}; convert the volume"
        raise InvalidField("inputs[0].datatype", rule)
    _check_parameters(tensor.parameters, "inputs[0].parameters")
    shape = tuple(tensor.shape)
    count = 1 if shape == grid else shape[0] if shape[1:] == (1, *grid) else 0
    if count < 1:
        shown = list(shape[:_MOST_AXES])
        rule = f"is {shown}, but must be [batch, 1, {_listed(grid)}] or [{_listed(grid)}], the model's grid"
        raise InvalidField("inputs[0].shape", f"{rule}; resample the image")
    if count > most:
        rule = f"holds {count} volumes, but the server's limit is {most}; send fewer at once"
        raise InvalidField("inputs[0].shape", rule, limit=most, actual=count)
    return count


def _numbers(request: oip.ModelInferRequest, count: int) -> memoryview:
    """Return the input's numbers as bytes."""
    listed, raw = request.inputs[0].contents.fp32_contents, request.raw_input_contents
    if raw and listed:
        raise InvalidField("inputs[0].contents", "stands beside raw_input_contents; send one of them")
    if len(raw) > 1:
        raise InvalidField("raw_input_contents", f"holds {len(raw)} tensors for one input; send one")
    if raw:
        if len(raw[0]) != count * FLOATS.itemsize:
            rule = f"has {len(raw[0])} bytes, but the shape tells of {count * FLOATS.itemsize}; send them all"
            raise InvalidField("raw_input_contents[0]", rule)
        return memoryview(raw[0])
    if len(listed) != count:
        rule = f"has {len(listed)} numbers, but the shape tells of {count}; send them all, here or as "
        raise InvalidField("inputs[0].contents.fp32_contents", f"{rule}raw_input_contents")
    return memoryview(np.array(listed, FLOATS).tobytes())


def _check_parameters(parameters: Iterable[str], field: str) -> None:
    """Refuse parameters that change what comes back; others are hints that may be ignored."""
    for name in _UNSUPPORTED:
        if name in parameters:
            rule = "is not offered here; leave it out, and send and read tensors in the messages"
            raise InvalidField(f"{field}.{name}", rule)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…")


def _listed(shape: Iterable[int]) -> str:
    return ", ".join(map(str, shape))
