"""Reading a model file that somebody else wrote: all of it into memory, within bounds, and nothing beside it.

Weights may lie in further files, as ONNX calls external data; these must be plain files of the model's own
folder. What is read is checked before anything is computed with it.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import DecodeError

from models.errors import OnnxUnreadable
from models.onnx_graph.functions import check_functions

OPSETS = range(11, 24)
"""Versions of ONNX's operators that are read."""
# protobuf's own limit of one message.
MAX_BYTES = (1 << 31) - 1
# What a value of the file's tensors takes, by ONNX's number of its type; what is not here is no number.
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}


@dataclass(frozen=True)
class Source:
    """A model file that was read.

    Attributes
    ----------
    model : onnx.ModelProto
        With every weight in it, and its first output alone.
    file : str
        The file's name.
    opset : int
        Version of ONNX's own operators.
    producer : str
        Who wrote it, with the version; empty if it does not say.
    input_name, output_name : str
        Of its one input and its output.
    input_shape : tuple of int or None
        The input's axes; None where the file leaves the length open.
    """

    model: onnx.ModelProto
    file: str
    opset: int
    producer: str
    input_name: str
    output_name: str
    input_shape: tuple[int | None, ...]


def read_onnx(path: str | Path, max_bytes: int = MAX_BYTES) -> Source:
    """Read an ONNX model with its external data, or refuse it with the reason.

    Parameters
    ----------
    path : str or Path
        The ``.onnx`` file.
    max_bytes : int
        Most bytes of the file and its external data together.

    Returns
    -------
    Source
        Checked by ONNX's own checker, shapes included.

    Raises
    ------
    OnnxUnreadable
        If the file is no such model, is cut off, too large, of another opset, keeps weights outside its
        folder, or has not one image as its input.
    """
    path = Path(path)
    data = _read(path.parent, path.name, max_bytes)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise OnnxUnreadable(path.name, "is no ONNX model, or is cut off; export it again") from None
    if not model.graph.node:
        raise OnnxUnreadable(path.name, "has no node: it is no ONNX model, or is cut off; export it again")
    if not model.graph.output:
        raise OnnxUnreadable(path.name, "has no output; export the network with the value it computes")
    opset = _opset(model, path.name)
    name, shape = _input(model, path.name)
    # What trains the network is not read.
    del model.training_info[:]
    _take_in(model, path, max_bytes - len(data))
    check_functions(model, path.name)
    _check(model, path.name)
    del model.graph.output[1:]
    _prune(model.graph)
    producer = f"{model.producer_name} {model.producer_version}".strip()
    return Source(model, path.name, opset, producer, name, model.graph.output[0].name, shape)


def _read(folder: Path, name: str, max_bytes: int, offset: int = 0, length: int | None = None) -> bytes:
    """Read a plain file, or a stretch of it; links, pipes and devices are refused."""
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise OnnxUnreadable(name, f"cannot be opened as a plain file ({error.strerror})") from None
    with os.fdopen(descriptor, "rb") as stream:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OnnxUnreadable(name, "is not a plain file")
        wanted = facts.st_size - offset if length is None else length
        if wanted > max_bytes:
            raise OnnxUnreadable(name, f"holds {wanted} bytes, but at most {max_bytes} are read")
        if wanted < 0 or offset + wanted > facts.st_size:
            raise OnnxUnreadable(name, f"has {facts.st_size} bytes, but {offset + wanted} are asked of it")
        stream.seek(offset)
        return stream.read(wanted)


def _opset(model: onnx.ModelProto, file: str) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        raise OnnxUnreadable(file, "does not say which version of ONNX's operators it uses; export it again")
    if versions[0] not in OPSETS:
        raise OnnxUnreadable(
            file,
            f"uses opset {versions[0]}, but {OPSETS[0]} to {OPSETS[-1]} are read; convert it with "
            "onnx.version_converter, or export it with such an opset",
        )
    return int(versions[0])


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor: of the graph, of the functions, and of the graphs inside their nodes."""
    graphs = [model.graph]
    attributes = [one for function in model.functions for one in function.attribute_proto]
    attributes += [one for function in model.functions for node in function.node for one in node.attribute]
    while graphs or attributes:
        sparse: list[onnx.SparseTensorProto] = []
        if attributes:
            one = attributes.pop()
            yield from [one.t] if one.HasField("t") else []
            yield from one.tensors
            sparse += [*one.sparse_tensors, one.sparse_tensor]
            graphs += [*one.graphs, one.g] if one.HasField("g") else one.graphs
        else:
            graph = graphs.pop()
            yield from graph.initializer
            sparse += graph.sparse_initializer
            attributes += [one for node in graph.node for one in node.attribute]
        for parts in sparse:
            yield from [getattr(parts, name) for name in ("values", "indices") if parts.HasField(name)]


def _take_in(model: onnx.ModelProto, path: Path, left: int) -> None:
    """Put the weights that lie in other files into the model, and hold every tensor to its own claims."""
    for tensor in _tensors(model):
        claimed = math.prod(tensor.dims) * _ITEM_BYTES.get(tensor.data_type, 1)
        label = f"tensor {tensor.name or '(no name)'!r} of shape {list(tensor.dims)}"
        if min(tensor.dims, default=1) < 0 or claimed > MAX_BYTES:
            raise OnnxUnreadable(path.name, f"{label} takes {claimed} bytes; at most {MAX_BYTES} are read")
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            data = _external(tensor, path, label, left)
            left -= len(data)
            tensor.raw_data = data
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
        if tensor.HasField("raw_data") and len(tensor.raw_data) != claimed:
            raise OnnxUnreadable(path.name, f"{label} holds {len(tensor.raw_data)} bytes, not {claimed}")


def _external(tensor: onnx.TensorProto, path: Path, label: str, left: int) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    place = PurePosixPath(entries.get("location", ""))
    if place.is_absolute() or ".." in place.parts or not place.parts:
        raise OnnxUnreadable(
            path.name, f"{label} lies in {str(place)!r}, outside the model's folder; put the file beside it"
        )
    folder = path.parent.resolve() / place.parent
    if folder.resolve() != folder:
        raise OnnxUnreadable(path.name, f"{label} lies in {str(place)!r}, behind a link; put the file there")
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries["length"]) if "length" in entries else None
    except ValueError:
        raise OnnxUnreadable(path.name, f"{label} says no whole number where its bytes lie") from None
    if offset < 0 or (length is not None and length < 0):
        raise OnnxUnreadable(path.name, f"{label} has a negative offset or length")
    try:
        return _read(folder, place.name, left, offset, length)
    except OnnxUnreadable as error:
        raise OnnxUnreadable(path.name, f"{label}: file {str(place)!r} {error.reason}") from None


def _check(model: onnx.ModelProto, file: str) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker's and the shape inference's errors have no common base
        text = " ".join(str(error).split())[:400]
        raise OnnxUnreadable(file, f"is not valid: {text}") from None


def _prune(graph: onnx.GraphProto) -> None:
    """Take out what the output does not depend on, which ONNX Runtime would compute all the same."""
    needed = {one.name for one in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    if len(kept) < len(graph.node):
        nodes = list(reversed(kept))
        del graph.node[:]
        graph.node.extend(nodes)


def _input(model: onnx.ModelProto, file: str) -> tuple[str, tuple[int | None, ...]]:
    """Return the name and the shape of the one input that is no weight."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(repr(value.name) for value in inputs) or "none"
        raise OnnxUnreadable(file, f"has the inputs {names}; export a network that reads one image")
    kind = inputs[0].type.tensor_type
    label = f"input {inputs[0].name!r}"
    if not kind.HasField("shape"):
        raise OnnxUnreadable(
            file, f"{label} says not how many axes it has; export it with the shape (batch, 1, X, Y, Z)"
        )
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in kind.shape.dim)
    if len(shape) != 5:
        raise OnnxUnreadable(
            file, f"{label} has {len(shape)} axes; networks of volumes, (batch, 1, X, Y, Z), are read"
        )
    if shape[1] not in (1, None):
        raise OnnxUnreadable(file, f"{label} has {shape[1]} channels; networks of one channel are read")
    if kind.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE):
        kind_name = onnx.TensorProto.DataType.Name(kind.elem_type)
        raise OnnxUnreadable(file, f"{label} is {kind_name}; networks of floating-point volumes are read")
    return inputs[0].name, shape
