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

class Measure(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEASURE_UNSPECIFIED: _ClassVar[Measure]
    MEASURE_DOT: _ClassVar[Measure]
    MEASURE_COSINE: _ClassVar[Measure]

class Comparison(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPARISON_UNSPECIFIED: _ClassVar[Comparison]
    COMPARISON_INVERSION: _ClassVar[Comparison]
    COMPARISON_CARICATURE: _ClassVar[Comparison]

class Precision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRECISION_UNSPECIFIED: _ClassVar[Precision]
    PRECISION_FLOAT32: _ClassVar[Precision]
    PRECISION_BFLOAT16: _ClassVar[Precision]
    PRECISION_FLOAT16: _ClassVar[Precision]

class Schedule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCHEDULE_UNSPECIFIED: _ClassVar[Schedule]
    SCHEDULE_CONSTANT: _ClassVar[Schedule]
    SCHEDULE_COSINE: _ClassVar[Schedule]
SENSE_UNSPECIFIED: Sense
SENSE_MAXIMIZE: Sense
SENSE_MINIMIZE: Sense
MEASURE_UNSPECIFIED: Measure
MEASURE_DOT: Measure
MEASURE_COSINE: Measure
COMPARISON_UNSPECIFIED: Comparison
COMPARISON_INVERSION: Comparison
COMPARISON_CARICATURE: Comparison
PRECISION_UNSPECIFIED: Precision
PRECISION_FLOAT32: Precision
PRECISION_BFLOAT16: Precision
PRECISION_FLOAT16: Precision
SCHEDULE_UNSPECIFIED: Schedule
SCHEDULE_CONSTANT: Schedule
SCHEDULE_COSINE: Schedule

class Objective(_message.Message):
    __slots__ = ("terms", "behind_nonlinearities")
    TERMS_FIELD_NUMBER: _ClassVar[int]
    BEHIND_NONLINEARITIES_FIELD_NUMBER: _ClassVar[int]
    terms: _containers.RepeatedCompositeFieldContainer[ObjectiveTerm]
    behind_nonlinearities: bool
    def __init__(self, terms: _Optional[_Iterable[_Union[ObjectiveTerm, _Mapping]]] = ..., behind_nonlinearities: _Optional[bool] = ...) -> None: ...

class ObjectiveTerm(_message.Message):
    __slots__ = ("channel", "neuron", "class_logit", "whole_layer", "direction", "subject_activations", "weight", "sense")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    NEURON_FIELD_NUMBER: _ClassVar[int]
    CLASS_LOGIT_FIELD_NUMBER: _ClassVar[int]
    WHOLE_LAYER_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SENSE_FIELD_NUMBER: _ClassVar[int]
    channel: Channel
    neuron: Neuron
    class_logit: ClassLogit
    whole_layer: WholeLayer
    direction: Direction
    subject_activations: SubjectActivations
    weight: float
    sense: Sense
    def __init__(self, channel: _Optional[_Union[Channel, _Mapping]] = ..., neuron: _Optional[_Union[Neuron, _Mapping]] = ..., class_logit: _Optional[_Union[ClassLogit, _Mapping]] = ..., whole_layer: _Optional[_Union[WholeLayer, _Mapping]] = ..., direction: _Optional[_Union[Direction, _Mapping]] = ..., subject_activations: _Optional[_Union[SubjectActivations, _Mapping]] = ..., weight: _Optional[float] = ..., sense: _Optional[_Union[Sense, str]] = ...) -> None: ...

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
    __slots__ = ("class_name", "contrast")
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    CONTRAST_FIELD_NUMBER: _ClassVar[int]
    class_name: str
    contrast: bool
    def __init__(self, class_name: _Optional[str] = ..., contrast: _Optional[bool] = ...) -> None: ...

class WholeLayer(_message.Message):
    __slots__ = ("layer",)
    LAYER_FIELD_NUMBER: _ClassVar[int]
    layer: str
    def __init__(self, layer: _Optional[str] = ...) -> None: ...

class Direction(_message.Message):
    __slots__ = ("layer", "weights", "measure", "voxel", "point_mm")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    VOXEL_FIELD_NUMBER: _ClassVar[int]
    POINT_MM_FIELD_NUMBER: _ClassVar[int]
    layer: str
    weights: _containers.RepeatedScalarFieldContainer[float]
    measure: Measure
    voxel: Voxel
    point_mm: Point
    def __init__(self, layer: _Optional[str] = ..., weights: _Optional[_Iterable[float]] = ..., measure: _Optional[_Union[Measure, str]] = ..., voxel: _Optional[_Union[Voxel, _Mapping]] = ..., point_mm: _Optional[_Union[Point, _Mapping]] = ...) -> None: ...

class SubjectActivations(_message.Message):
    __slots__ = ("layer", "comparison")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    layer: str
    comparison: Comparison
    def __init__(self, layer: _Optional[str] = ..., comparison: _Optional[_Union[Comparison, str]] = ...) -> None: ...

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
    __slots__ = ("voxels", "fourier", "laplacian_pyramid", "maco", "patch", "deformation")
    VOXELS_FIELD_NUMBER: _ClassVar[int]
    FOURIER_FIELD_NUMBER: _ClassVar[int]
    LAPLACIAN_PYRAMID_FIELD_NUMBER: _ClassVar[int]
    MACO_FIELD_NUMBER: _ClassVar[int]
    PATCH_FIELD_NUMBER: _ClassVar[int]
    DEFORMATION_FIELD_NUMBER: _ClassVar[int]
    voxels: Voxels
    fourier: Fourier
    laplacian_pyramid: LaplacianPyramid
    maco: Maco
    patch: Patch
    deformation: Deformation
    def __init__(self, voxels: _Optional[_Union[Voxels, _Mapping]] = ..., fourier: _Optional[_Union[Fourier, _Mapping]] = ..., laplacian_pyramid: _Optional[_Union[LaplacianPyramid, _Mapping]] = ..., maco: _Optional[_Union[Maco, _Mapping]] = ..., patch: _Optional[_Union[Patch, _Mapping]] = ..., deformation: _Optional[_Union[Deformation, _Mapping]] = ...) -> None: ...

class Voxels(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Fourier(_message.Message):
    __slots__ = ("decay",)
    DECAY_FIELD_NUMBER: _ClassVar[int]
    decay: float
    def __init__(self, decay: _Optional[float] = ...) -> None: ...

class LaplacianPyramid(_message.Message):
    __slots__ = ("levels",)
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    levels: int
    def __init__(self, levels: _Optional[int] = ...) -> None: ...

class Maco(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Patch(_message.Message):
    __slots__ = ("size_mm", "sparsity", "real")
    SIZE_MM_FIELD_NUMBER: _ClassVar[int]
    SPARSITY_FIELD_NUMBER: _ClassVar[int]
    REAL_FIELD_NUMBER: _ClassVar[int]
    size_mm: float
    sparsity: float
    real: bool
    def __init__(self, size_mm: _Optional[float] = ..., sparsity: _Optional[float] = ..., real: _Optional[bool] = ...) -> None: ...

class Deformation(_message.Message):
    __slots__ = ("smoothness_mm", "reach_mm")
    SMOOTHNESS_MM_FIELD_NUMBER: _ClassVar[int]
    REACH_MM_FIELD_NUMBER: _ClassVar[int]
    smoothness_mm: float
    reach_mm: float
    def __init__(self, smoothness_mm: _Optional[float] = ..., reach_mm: _Optional[float] = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ("noise", "reference_brain", "zeros", "subject")
    NOISE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_BRAIN_FIELD_NUMBER: _ClassVar[int]
    ZEROS_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    noise: Noise
    reference_brain: ReferenceBrain
    zeros: Zeros
    subject: SubjectImage
    def __init__(self, noise: _Optional[_Union[Noise, _Mapping]] = ..., reference_brain: _Optional[_Union[ReferenceBrain, _Mapping]] = ..., zeros: _Optional[_Union[Zeros, _Mapping]] = ..., subject: _Optional[_Union[SubjectImage, _Mapping]] = ...) -> None: ...

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

class Zeros(_message.Message):
    __slots__ = ("deviation",)
    DEVIATION_FIELD_NUMBER: _ClassVar[int]
    deviation: float
    def __init__(self, deviation: _Optional[float] = ...) -> None: ...

class SubjectImage(_message.Message):
    __slots__ = ("deviation",)
    DEVIATION_FIELD_NUMBER: _ClassVar[int]
    deviation: float
    def __init__(self, deviation: _Optional[float] = ...) -> None: ...

class Subject(_message.Message):
    __slots__ = ("nifti", "sha256")
    NIFTI_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    nifti: bytes
    sha256: str
    def __init__(self, nifti: _Optional[bytes] = ..., sha256: _Optional[str] = ...) -> None: ...

class Control(_message.Message):
    __slots__ = ("random_weights",)
    RANDOM_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    random_weights: RandomWeights
    def __init__(self, random_weights: _Optional[_Union[RandomWeights, _Mapping]] = ...) -> None: ...

class RandomWeights(_message.Message):
    __slots__ = ("seed",)
    SEED_FIELD_NUMBER: _ClassVar[int]
    seed: int
    def __init__(self, seed: _Optional[int] = ...) -> None: ...

class Transforms(_message.Message):
    __slots__ = ("jitter_mm", "rotation_degrees", "scale", "flip", "crop_first", "crop_last", "noise", "gain", "gamma", "bias_field", "copies")
    JITTER_MM_FIELD_NUMBER: _ClassVar[int]
    ROTATION_DEGREES_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    FLIP_FIELD_NUMBER: _ClassVar[int]
    CROP_FIRST_FIELD_NUMBER: _ClassVar[int]
    CROP_LAST_FIELD_NUMBER: _ClassVar[int]
    NOISE_FIELD_NUMBER: _ClassVar[int]
    GAIN_FIELD_NUMBER: _ClassVar[int]
    GAMMA_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    jitter_mm: float
    rotation_degrees: float
    scale: float
    flip: float
    crop_first: float
    crop_last: float
    noise: float
    gain: float
    gamma: float
    bias_field: float
    copies: int
    def __init__(self, jitter_mm: _Optional[float] = ..., rotation_degrees: _Optional[float] = ..., scale: _Optional[float] = ..., flip: _Optional[float] = ..., crop_first: _Optional[float] = ..., crop_last: _Optional[float] = ..., noise: _Optional[float] = ..., gain: _Optional[float] = ..., gamma: _Optional[float] = ..., bias_field: _Optional[float] = ..., copies: _Optional[int] = ...) -> None: ...

class Regularization(_message.Message):
    __slots__ = ("regularizers",)
    REGULARIZERS_FIELD_NUMBER: _ClassVar[int]
    regularizers: _containers.RepeatedCompositeFieldContainer[Regularizer]
    def __init__(self, regularizers: _Optional[_Iterable[_Union[Regularizer, _Mapping]]] = ...) -> None: ...

class Regularizer(_message.Message):
    __slots__ = ("l1", "l2", "total_variation", "gaussian_blur", "gradient_blur", "decay", "intensity_clip", "brain_mask", "image_distance", "feature_distance", "spectrum_match", "activation_ceiling", "diversity")
    L1_FIELD_NUMBER: _ClassVar[int]
    L2_FIELD_NUMBER: _ClassVar[int]
    TOTAL_VARIATION_FIELD_NUMBER: _ClassVar[int]
    GAUSSIAN_BLUR_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_BLUR_FIELD_NUMBER: _ClassVar[int]
    DECAY_FIELD_NUMBER: _ClassVar[int]
    INTENSITY_CLIP_FIELD_NUMBER: _ClassVar[int]
    BRAIN_MASK_FIELD_NUMBER: _ClassVar[int]
    IMAGE_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    FEATURE_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    SPECTRUM_MATCH_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_CEILING_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    l1: L1
    l2: L2
    total_variation: TotalVariation
    gaussian_blur: GaussianBlur
    gradient_blur: GradientBlur
    decay: Decay
    intensity_clip: IntensityClip
    brain_mask: BrainMask
    image_distance: ImageDistance
    feature_distance: FeatureDistance
    spectrum_match: SpectrumMatch
    activation_ceiling: ActivationCeiling
    diversity: Diversity
    def __init__(self, l1: _Optional[_Union[L1, _Mapping]] = ..., l2: _Optional[_Union[L2, _Mapping]] = ..., total_variation: _Optional[_Union[TotalVariation, _Mapping]] = ..., gaussian_blur: _Optional[_Union[GaussianBlur, _Mapping]] = ..., gradient_blur: _Optional[_Union[GradientBlur, _Mapping]] = ..., decay: _Optional[_Union[Decay, _Mapping]] = ..., intensity_clip: _Optional[_Union[IntensityClip, _Mapping]] = ..., brain_mask: _Optional[_Union[BrainMask, _Mapping]] = ..., image_distance: _Optional[_Union[ImageDistance, _Mapping]] = ..., feature_distance: _Optional[_Union[FeatureDistance, _Mapping]] = ..., spectrum_match: _Optional[_Union[SpectrumMatch, _Mapping]] = ..., activation_ceiling: _Optional[_Union[ActivationCeiling, _Mapping]] = ..., diversity: _Optional[_Union[Diversity, _Mapping]] = ...) -> None: ...

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

class GradientBlur(_message.Message):
    __slots__ = ("length_mm",)
    LENGTH_MM_FIELD_NUMBER: _ClassVar[int]
    length_mm: float
    def __init__(self, length_mm: _Optional[float] = ...) -> None: ...

class Decay(_message.Message):
    __slots__ = ("rate",)
    RATE_FIELD_NUMBER: _ClassVar[int]
    rate: float
    def __init__(self, rate: _Optional[float] = ...) -> None: ...

class IntensityClip(_message.Message):
    __slots__ = ("low", "high")
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    low: float
    high: float
    def __init__(self, low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class BrainMask(_message.Message):
    __slots__ = ("margin_mm",)
    MARGIN_MM_FIELD_NUMBER: _ClassVar[int]
    margin_mm: float
    def __init__(self, margin_mm: _Optional[float] = ...) -> None: ...

class ImageDistance(_message.Message):
    __slots__ = ("weight",)
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    weight: float
    def __init__(self, weight: _Optional[float] = ...) -> None: ...

class FeatureDistance(_message.Message):
    __slots__ = ("layer", "weight")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    layer: str
    weight: float
    def __init__(self, layer: _Optional[str] = ..., weight: _Optional[float] = ...) -> None: ...

class SpectrumMatch(_message.Message):
    __slots__ = ("weight",)
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    weight: float
    def __init__(self, weight: _Optional[float] = ...) -> None: ...

class ActivationCeiling(_message.Message):
    __slots__ = ("percentile",)
    PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    percentile: float
    def __init__(self, percentile: _Optional[float] = ...) -> None: ...

class Diversity(_message.Message):
    __slots__ = ("layer", "weight")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    layer: str
    weight: float
    def __init__(self, layer: _Optional[str] = ..., weight: _Optional[float] = ...) -> None: ...

class Stopping(_message.Message):
    __slots__ = ("look_every", "plateau_looks", "plateau_gain", "activation", "seconds")
    LOOK_EVERY_FIELD_NUMBER: _ClassVar[int]
    PLATEAU_LOOKS_FIELD_NUMBER: _ClassVar[int]
    PLATEAU_GAIN_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    look_every: int
    plateau_looks: int
    plateau_gain: float
    activation: float
    seconds: float
    def __init__(self, look_every: _Optional[int] = ..., plateau_looks: _Optional[int] = ..., plateau_gain: _Optional[float] = ..., activation: _Optional[float] = ..., seconds: _Optional[float] = ...) -> None: ...

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
