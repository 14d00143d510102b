from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Sense(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SENSE_UNSPECIFIED: _ClassVar[Sense]
    SENSE_MAXIMIZE: _ClassVar[Sense]
    SENSE_MINIMIZE: _ClassVar[Sense]

class Schedule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCHEDULE_UNSPECIFIED: _ClassVar[Schedule]
    SCHEDULE_CONSTANT: _ClassVar[Schedule]
    SCHEDULE_COSINE: _ClassVar[Schedule]
SENSE_UNSPECIFIED: Sense
SENSE_MAXIMIZE: Sense
SENSE_MINIMIZE: Sense
SCHEDULE_UNSPECIFIED: Schedule
SCHEDULE_CONSTANT: Schedule
SCHEDULE_COSINE: Schedule

class Objective(_message.Message):
    __slots__ = ("terms",)
    TERMS_FIELD_NUMBER: _ClassVar[int]
    terms: _containers.RepeatedCompositeFieldContainer[ObjectiveTerm]
    def __init__(self, terms: _Optional[_Iterable[_Union[ObjectiveTerm, _Mapping]]] = ...) -> None: ...

class ObjectiveTerm(_message.Message):
    __slots__ = ("channel", "neuron", "class_logit", "weight", "sense")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    NEURON_FIELD_NUMBER: _ClassVar[int]
    CLASS_LOGIT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SENSE_FIELD_NUMBER: _ClassVar[int]
    channel: Channel
    neuron: Neuron
    class_logit: ClassLogit
    weight: float
    sense: Sense
    def __init__(self, channel: _Optional[_Union[Channel, _Mapping]] = ..., neuron: _Optional[_Union[Neuron, _Mapping]] = ..., class_logit: _Optional[_Union[ClassLogit, _Mapping]] = ..., weight: _Optional[float] = ..., sense: _Optional[_Union[Sense, str]] = ...) -> None: ...

class Channel(_message.Message):
    __slots__ = ("layer", "channel")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    layer: str
    channel: int
    def __init__(self, layer: _Optional[str] = ..., channel: _Optional[int] = ...) -> None: ...

class Neuron(_message.Message):
    __slots__ = ("layer", "channel", "voxel", "point_mm")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    VOXEL_FIELD_NUMBER: _ClassVar[int]
    POINT_MM_FIELD_NUMBER: _ClassVar[int]
    layer: str
    channel: int
    voxel: Voxel
    point_mm: Point
    def __init__(self, layer: _Optional[str] = ..., channel: _Optional[int] = ..., voxel: _Optional[_Union[Voxel, _Mapping]] = ..., point_mm: _Optional[_Union[Point, _Mapping]] = ...) -> None: ...

class ClassLogit(_message.Message):
    __slots__ = ("class_name",)
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    class_name: str
    def __init__(self, class_name: _Optional[str] = ...) -> None: ...

class Voxel(_message.Message):
    __slots__ = ("i", "j", "k")
    I_FIELD_NUMBER: _ClassVar[int]
    J_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    i: int
    j: int
    k: int
    def __init__(self, i: _Optional[int] = ..., j: _Optional[int] = ..., k: _Optional[int] = ...) -> None: ...

class Point(_message.Message):
    __slots__ = ("x", "y", "z")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    Z_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    z: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., z: _Optional[float] = ...) -> None: ...

class Parameterization(_message.Message):
    __slots__ = ("voxels", "fourier")
    VOXELS_FIELD_NUMBER: _ClassVar[int]
    FOURIER_FIELD_NUMBER: _ClassVar[int]
    voxels: Voxels
    fourier: Fourier
    def __init__(self, voxels: _Optional[_Union[Voxels, _Mapping]] = ..., fourier: _Optional[_Union[Fourier, _Mapping]] = ...) -> None: ...

class Voxels(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Fourier(_message.Message):
    __slots__ = ("decay",)
    DECAY_FIELD_NUMBER: _ClassVar[int]
    decay: float
    def __init__(self, decay: _Optional[float] = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ("noise", "reference_brain")
    NOISE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_BRAIN_FIELD_NUMBER: _ClassVar[int]
    noise: Noise
    reference_brain: ReferenceBrain
    def __init__(self, noise: _Optional[_Union[Noise, _Mapping]] = ..., reference_brain: _Optional[_Union[ReferenceBrain, _Mapping]] = ...) -> None: ...

class Noise(_message.Message):
    __slots__ = ("deviation",)
    DEVIATION_FIELD_NUMBER: _ClassVar[int]
    deviation: float
    def __init__(self, deviation: _Optional[float] = ...) -> None: ...

class ReferenceBrain(_message.Message):
    __slots__ = ("deviation",)
    DEVIATION_FIELD_NUMBER: _ClassVar[int]
    deviation: float
    def __init__(self, deviation: _Optional[float] = ...) -> None: ...

class Transforms(_message.Message):
    __slots__ = ("jitter_mm", "rotation_degrees", "scale")
    JITTER_MM_FIELD_NUMBER: _ClassVar[int]
    ROTATION_DEGREES_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    jitter_mm: float
    rotation_degrees: float
    scale: float
    def __init__(self, jitter_mm: _Optional[float] = ..., rotation_degrees: _Optional[float] = ..., scale: _Optional[float] = ...) -> None: ...

class Regularization(_message.Message):
    __slots__ = ("regularizers",)
    REGULARIZERS_FIELD_NUMBER: _ClassVar[int]
    regularizers: _containers.RepeatedCompositeFieldContainer[Regularizer]
    def __init__(self, regularizers: _Optional[_Iterable[_Union[Regularizer, _Mapping]]] = ...) -> None: ...

class Regularizer(_message.Message):
    __slots__ = ("l1", "l2", "total_variation", "gaussian_blur")
    L1_FIELD_NUMBER: _ClassVar[int]
    L2_FIELD_NUMBER: _ClassVar[int]
    TOTAL_VARIATION_FIELD_NUMBER: _ClassVar[int]
    GAUSSIAN_BLUR_FIELD_NUMBER: _ClassVar[int]
    l1: L1
    l2: L2
    total_variation: TotalVariation
    gaussian_blur: GaussianBlur
    def __init__(self, l1: _Optional[_Union[L1, _Mapping]] = ..., l2: _Optional[_Union[L2, _Mapping]] = ..., total_variation: _Optional[_Union[TotalVariation, _Mapping]] = ..., gaussian_blur: _Optional[_Union[GaussianBlur, _Mapping]] = ...) -> None: ...

class L1(_message.Message):
    __slots__ = ("weight",)
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    weight: float
    def __init__(self, weight: _Optional[float] = ...) -> None: ...

class L2(_message.Message):
    __slots__ = ("weight",)
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    weight: float
    def __init__(self, weight: _Optional[float] = ...) -> None: ...

class TotalVariation(_message.Message):
    __slots__ = ("weight",)
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    weight: float
    def __init__(self, weight: _Optional[float] = ...) -> None: ...

class GaussianBlur(_message.Message):
    __slots__ = ("fwhm_mm",)
    FWHM_MM_FIELD_NUMBER: _ClassVar[int]
    fwhm_mm: float
    def __init__(self, fwhm_mm: _Optional[float] = ...) -> None: ...

class Optimizer(_message.Message):
    __slots__ = ("adam", "nadam", "sgd", "schedule")
    ADAM_FIELD_NUMBER: _ClassVar[int]
    NADAM_FIELD_NUMBER: _ClassVar[int]
    SGD_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    adam: Adam
    nadam: Nadam
    sgd: Sgd
    schedule: Schedule
    def __init__(self, adam: _Optional[_Union[Adam, _Mapping]] = ..., nadam: _Optional[_Union[Nadam, _Mapping]] = ..., sgd: _Optional[_Union[Sgd, _Mapping]] = ..., schedule: _Optional[_Union[Schedule, str]] = ...) -> None: ...

class Nadam(_message.Message):
    __slots__ = ("learning_rate",)
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    learning_rate: float
    def __init__(self, learning_rate: _Optional[float] = ...) -> None: ...

class Sgd(_message.Message):
    __slots__ = ("learning_rate", "momentum")
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    learning_rate: float
    momentum: float
    def __init__(self, learning_rate: _Optional[float] = ..., momentum: _Optional[float] = ...) -> None: ...

class Adam(_message.Message):
    __slots__ = ("learning_rate",)
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    learning_rate: float
    def __init__(self, learning_rate: _Optional[float] = ...) -> None: ...

class Canvas(_message.Message):
    __slots__ = ("size_mm", "center_mm")
    SIZE_MM_FIELD_NUMBER: _ClassVar[int]
    CENTER_MM_FIELD_NUMBER: _ClassVar[int]
    size_mm: Extent
    center_mm: Point
    def __init__(self, size_mm: _Optional[_Union[Extent, _Mapping]] = ..., center_mm: _Optional[_Union[Point, _Mapping]] = ...) -> None: ...

class Extent(_message.Message):
    __slots__ = ("i", "j", "k")
    I_FIELD_NUMBER: _ClassVar[int]
    J_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    i: float
    j: float
    k: float
    def __init__(self, i: _Optional[float] = ..., j: _Optional[float] = ..., k: _Optional[float] = ...) -> None: ...
