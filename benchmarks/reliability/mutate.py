"""Requests that nobody means: valid ones with some fields spoiled, and bytes that are hardly any."""

import gzip
import random
from typing import Any

import nibabel
import numpy as np
from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from benchmarks.reliability import tiny
from benchmarks.reliability.tiny import NAME
from neurofv.v1 import visualization_service_pb2 as vis

_INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    50,
    10_000,
    2**31 - 1,
    -(2**31),
    2**63 - 1,
    -(2**63),
    2**32,
    2**32 - 1,
    2**64 - 1,
)
_FLOATS = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, 1e-3, 1e3, 5e-324, 1e-30, 1e30, 1.7e308, -1.7e308),
    *(float("nan"), float("inf"), float("-inf")),
)
_TEXTS = (
    *("", " ", "..", "/", "../../etc/passwd", "\x00", "%s%n", "' OR 1=1 --", "{}", "null", "-1", "1e309"),
    *(
        "a" * 65,
        "a" * 10_000,
        "\u202e\ud7ff\U0001f9e0" * 20,
        "jobs/",
        "jobs/" + "0" * 32,
        "jobs/../" + "f" * 29,
    ),
    *(NAME, "tiny/1", "blocks.0.conv", "blocks.1.conv", "classifier", "cube", "final", "item0", "snapshot-1"),
)
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}
_UNITS = (
    'channel { layer: "blocks.0.conv" channel: 1 }',
    'neuron { layer: "blocks.1.conv" channel: 2 voxel { i: 4 j: 5 k: 6 } }',
    'neuron { layer: "blocks.0.conv" channel: 0 point_mm { x: 2 y: -4 z: 8 } }',
    'class_logit { class_name: "cube" contrast: true }',
    'whole_layer { layer: "blocks.1.conv" }',
    'direction { layer: "blocks.1.conv" weights: [1, 0, -1, 2] measure: MEASURE_COSINE }',
)
_METHODS = (
    "",
    "parameterization { voxels {} } start { zeros { deviation: 0.1 } } optimizer { sgd { momentum: 0.5 } }",
    "parameterization { laplacian_pyramid {} } start { reference_brain {} } optimizer { nadam {} }",
    "parameterization { maco {} } stopping { look_every: 1 plateau_looks: 2 }",
    "parameterization { patch { size_mm: 12 sparsity: 0.1 } }",
    "parameterization { deformation { smoothness_mm: 6 reach_mm: 4 } } start { reference_brain {} }",
    "regularization { regularizers { l1 { weight: 0.1 } } regularizers { total_variation { weight: 1 } } "
    "regularizers { gaussian_blur { fwhm_mm: 2 } } regularizers { intensity_clip { low: 0 high: 1 } } }",
    "regularization { regularizers { brain_mask {} } regularizers { spectrum_match { weight: 1 } } "
    "regularizers { activation_ceiling { percentile: 0.9 } } regularizers { decay { rate: 0.1 } } }",
    "samples: 2 regularization { regularizers { diversity { weight: 1 } } regularizers { l2 {} } }",
    "transforms { jitter_mm: 2 rotation_degrees: 5 scale: 0.1 flip: 0.5 noise: 0.1 gain: 0.1 gamma: 0.1 "
    "bias_field: 0.1 copies: 2 } precision: PRECISION_BFLOAT16 canvas { size_mm { i: 16 j: 16 k: 16 } }",
    "control { random_weights { seed: 3 } }",
)
_PROBES = (
    "",
    'units { layer: "blocks.0.conv" channel: 1 } units { layer: "classifier" }',
    'units { layer: "blocks.1.conv" channel: 3 } control { random_weights { seed: 7 } } '
    "behind_nonlinearities: true",
)


class Mutator:
    """Makes requests from a seed.

    Parameters
    ----------
    seed : int
        The same seed gives the same requests.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        # Names of jobs and volumes that exist, so that not every request fails at once.
        self.names: list[str] = []
        axes = nibabel.Nifti1Image(np.ones((8, 8, 8), np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
        self._brain = tiny.image().to_bytes()
        self._images = (
            axes.to_bytes(),
            gzip.compress(axes.to_bytes()),
            gzip.compress(bytes(10**6)),
            b"\x1f\x8b",
        )

    def visualization(self) -> vis.VisualizeRequest:
        """Return a request that could be meant, with few steps."""
        text = f"objective {{ terms {{ {self.chance.choice(_UNITS)} }} }} {self.chance.choice(_METHODS)}"
        request = text_format.Merge(text, vis.VisualizeRequest(model=NAME, steps=2))
        if self.chance.random() < 0.1:
            request.subject.nifti = self.chance.choice(self._images)
            request.start.subject.deviation = 0.1
        return request

    def probe(self) -> vis.ProbeRequest:
        """Return a probe that could be meant."""
        request = text_format.Merge(self.chance.choice(_PROBES), vis.ProbeRequest(model=NAME))
        request.image.nifti = self.chance.choice((self._brain, self._brain, *self._images))
        return request

    def message(self, kind: type[Message]) -> Message:
        """Return a message of a type with some fields spoiled, but often not all."""
        message = kind()
        self._begin(message)
        for _ in range(self.chance.choice((0, 1, 1, 1, 2, 3, 8))):
            self._spoil(message, 0)
        return message

    def data(self, kind: type[Message]) -> bytes:
        """Return a request's bytes; every other one is damaged as bytes too."""
        message = self.message(kind)
        data = message.SerializeToString()
        return data if self.chance.random() < 0.5 else self._damage(data)

    def _begin(self, message: Message) -> None:
        """Fill in what makes the request reach further than its first check."""
        name = message.DESCRIPTOR.name
        if name == "VisualizeRequest":
            message.MergeFrom(self.visualization())
        elif name in ("CreateJobRequest", "EstimateRequest"):
            message.request.MergeFrom(self.visualization())  # type: ignore[attr-defined]
        elif name == "ProbeRequest":
            message.MergeFrom(self.probe())
        elif name == "GetModelRequest":
            message.name = NAME  # type: ignore[attr-defined]
        elif "name" in message.DESCRIPTOR.fields_by_name and self.names:
            message.name = self.chance.choice(self.names)  # type: ignore[attr-defined]
        if name == "ReadVolumeRequest":
            message.volume = "final"  # type: ignore[attr-defined]

    def _spoil(self, message: Message, depth: int) -> None:
        """Change one field, here or further in."""
        fields = message.DESCRIPTOR.fields
        if not fields:
            return
        filled = [field for field, _ in message.ListFields()]
        field = self.chance.choice(filled if filled and self.chance.random() < 0.6 else fields)
        if self.chance.random() < 0.08:
            message.ClearField(field.name)
        elif field.is_repeated:
            self._spoil_repeated(message, field, depth)
        elif field.message_type is not None:
            inner = getattr(message, field.name)
            inner.SetInParent()
            if depth < 6:
                self._spoil(inner, depth + 1)
        else:
            setattr(message, field.name, self._value(field))

    def _spoil_repeated(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        if _is_map(field.message_type):
            return
        found: Any = getattr(message, field.name)
        many = self.chance.choice((1, 1, 2, 3, 70, 2000))
        if field.message_type is None:
            found.extend(self._value(field) for _ in range(many))
        elif found and self.chance.random() < 0.5:
            self._spoil(self.chance.choice(found), depth + 1)
        else:
            template = found.add()
            if depth < 6:
                self._spoil(template, depth + 1)
            found.extend([template] * (min(many, 100) - 1))

    def _value(self, field: FieldDescriptor) -> object:
        kind = field.cpp_type
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return self.chance.random() < 0.5
        if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            return self.chance.choice((*_FLOATS, self.chance.uniform(-100, 100), self.chance.uniform(0, 1)))
        if kind == FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return self.chance.choice((*self._images, self.chance.randbytes(200), b""))
            return self.chance.choice((*_TEXTS, *self.names[-5:]))
        low, high = _RANGES[kind]
        values = [value for value in _INTEGERS if low <= value <= high]
        return self.chance.choice((*values, self.chance.randrange(0, 20)))

    def _damage(self, data: bytes) -> bytes:
        """Flip bits, cut, insert, repeat, or nest without end."""
        way, spoiled = self.chance.randrange(6), bytearray(data)
        if way == 0 and spoiled:
            for _ in range(self.chance.choice((1, 1, 2, 8, 64))):
                spoiled[self.chance.randrange(len(spoiled))] ^= 1 << self.chance.randrange(8)
        elif way == 1:
            del spoiled[self.chance.randrange(len(spoiled) + 1) :]
        elif way == 2:
            place = self.chance.randrange(len(spoiled) + 1)
            spoiled[place:place] = self.chance.randbytes(self.chance.choice((1, 2, 16, 256)))
        elif way == 3:
            spoiled = bytearray(self.chance.randbytes(self.chance.choice((1, 8, 100, 5000))))
        elif way == 4:
            spoiled = bytearray(
                bytes([self.chance.choice((0x0B, 0x1A, 0x0A))]) * self.chance.choice((99, 101, 9999))
            )
        elif way == 5:
            spoiled *= self.chance.choice((2, 3, 40))
        return bytes(spoiled)


def _is_map(kind: Descriptor | None) -> bool:
    return kind is not None and kind.GetOptions().map_entry
