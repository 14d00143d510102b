from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelSummary]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelSummary, _Mapping]]] = ...) -> None: ...

class ModelSummary(_message.Message):
    __slots__ = ("name", "version", "ready", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    ready: bool
    reason: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., ready: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "digest", "input", "classes", "classifier_layer", "layers", "card", "license")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    CLASSIFIER_LAYER_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    CARD_FIELD_NUMBER: _ClassVar[int]
    LICENSE_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    digest: str
    input: InputSpace
    classes: _containers.RepeatedScalarFieldContainer[str]
    classifier_layer: str
    layers: _containers.RepeatedCompositeFieldContainer[Layer]
    card: str
    license: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., digest: _Optional[str] = ..., input: _Optional[_Union[InputSpace, _Mapping]] = ..., classes: _Optional[_Iterable[str]] = ..., classifier_layer: _Optional[str] = ..., layers: _Optional[_Iterable[_Union[Layer, _Mapping]]] = ..., card: _Optional[str] = ..., license: _Optional[str] = ...) -> None: ...

class InputSpace(_message.Message):
    __slots__ = ("shape", "voxel_size_mm", "affine", "orientation", "space", "intensity_low", "intensity_high")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    VOXEL_SIZE_MM_FIELD_NUMBER: _ClassVar[int]
    AFFINE_FIELD_NUMBER: _ClassVar[int]
    ORIENTATION_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    INTENSITY_LOW_FIELD_NUMBER: _ClassVar[int]
    INTENSITY_HIGH_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    voxel_size_mm: _containers.RepeatedScalarFieldContainer[float]
    affine: _containers.RepeatedScalarFieldContainer[float]
    orientation: str
    space: str
    intensity_low: float
    intensity_high: float
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., voxel_size_mm: _Optional[_Iterable[float]] = ..., affine: _Optional[_Iterable[float]] = ..., orientation: _Optional[str] = ..., space: _Optional[str] = ..., intensity_low: _Optional[float] = ..., intensity_high: _Optional[float] = ...) -> None: ...

class Layer(_message.Message):
    __slots__ = ("name", "type", "channels", "output_shape", "stride", "receptive_field_voxels", "receptive_field_mm", "whole_input")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    RECEPTIVE_FIELD_VOXELS_FIELD_NUMBER: _ClassVar[int]
    RECEPTIVE_FIELD_MM_FIELD_NUMBER: _ClassVar[int]
    WHOLE_INPUT_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    channels: int
    output_shape: _containers.RepeatedScalarFieldContainer[int]
    stride: _containers.RepeatedScalarFieldContainer[float]
    receptive_field_voxels: _containers.RepeatedScalarFieldContainer[float]
    receptive_field_mm: _containers.RepeatedScalarFieldContainer[float]
    whole_input: bool
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ..., channels: _Optional[int] = ..., output_shape: _Optional[_Iterable[int]] = ..., stride: _Optional[_Iterable[float]] = ..., receptive_field_voxels: _Optional[_Iterable[float]] = ..., receptive_field_mm: _Optional[_Iterable[float]] = ..., whole_input: _Optional[bool] = ...) -> None: ...
