import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from neurofv.v1 import method_pb2 as _method_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_QUEUED: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_SUCCEEDED: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLING: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]

class VolumeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VOLUME_KIND_UNSPECIFIED: _ClassVar[VolumeKind]
    VOLUME_KIND_INTERMEDIATE: _ClassVar[VolumeKind]
    VOLUME_KIND_FINAL: _ClassVar[VolumeKind]
    VOLUME_KIND_GRADIENT: _ClassVar[VolumeKind]
    VOLUME_KIND_JACOBIAN: _ClassVar[VolumeKind]
    VOLUME_KIND_OPACITY: _ClassVar[VolumeKind]

class VolumeFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VOLUME_FORMAT_UNSPECIFIED: _ClassVar[VolumeFormat]
    VOLUME_FORMAT_NIFTI1_GZ: _ClassVar[VolumeFormat]

class StopReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STOP_REASON_UNSPECIFIED: _ClassVar[StopReason]
    STOP_REASON_STEPS: _ClassVar[StopReason]
    STOP_REASON_PLATEAU: _ClassVar[StopReason]
    STOP_REASON_ACTIVATION: _ClassVar[StopReason]
    STOP_REASON_TIME: _ClassVar[StopReason]
    STOP_REASON_DEAD: _ClassVar[StopReason]
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_SUCCEEDED: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLING: JobState
JOB_STATE_CANCELLED: JobState
VOLUME_KIND_UNSPECIFIED: VolumeKind
VOLUME_KIND_INTERMEDIATE: VolumeKind
VOLUME_KIND_FINAL: VolumeKind
VOLUME_KIND_GRADIENT: VolumeKind
VOLUME_KIND_JACOBIAN: VolumeKind
VOLUME_KIND_OPACITY: VolumeKind
VOLUME_FORMAT_UNSPECIFIED: VolumeFormat
VOLUME_FORMAT_NIFTI1_GZ: VolumeFormat
STOP_REASON_UNSPECIFIED: StopReason
STOP_REASON_STEPS: StopReason
STOP_REASON_PLATEAU: StopReason
STOP_REASON_ACTIVATION: StopReason
STOP_REASON_TIME: StopReason
STOP_REASON_DEAD: StopReason

class ProbeRequest(_message.Message):
    __slots__ = ("model", "version", "image", "units", "behind_nonlinearities", "control")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    BEHIND_NONLINEARITIES_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    image: _method_pb2.Subject
    units: _containers.RepeatedCompositeFieldContainer[_method_pb2.Channel]
    behind_nonlinearities: bool
    control: _method_pb2.Control
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., image: _Optional[_Union[_method_pb2.Subject, _Mapping]] = ..., units: _Optional[_Iterable[_Union[_method_pb2.Channel, _Mapping]]] = ..., behind_nonlinearities: _Optional[bool] = ..., control: _Optional[_Union[_method_pb2.Control, _Mapping]] = ...) -> None: ...

class ProbeResponse(_message.Message):
    __slots__ = ("model", "version", "model_digest", "image_sha256", "units", "logits", "control")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SHA256_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    model_digest: str
    image_sha256: str
    units: _containers.RepeatedCompositeFieldContainer[ProbedUnit]
    logits: _containers.RepeatedScalarFieldContainer[float]
    control: _method_pb2.Control
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., model_digest: _Optional[str] = ..., image_sha256: _Optional[str] = ..., units: _Optional[_Iterable[_Union[ProbedUnit, _Mapping]]] = ..., logits: _Optional[_Iterable[float]] = ..., control: _Optional[_Union[_method_pb2.Control, _Mapping]] = ...) -> None: ...

class ProbedUnit(_message.Message):
    __slots__ = ("layer", "channel", "mean", "maximum", "voxel", "point_mm")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    VOXEL_FIELD_NUMBER: _ClassVar[int]
    POINT_MM_FIELD_NUMBER: _ClassVar[int]
    layer: str
    channel: int
    mean: float
    maximum: float
    voxel: _method_pb2.Voxel
    point_mm: _method_pb2.Point
    def __init__(self, layer: _Optional[str] = ..., channel: _Optional[int] = ..., mean: _Optional[float] = ..., maximum: _Optional[float] = ..., voxel: _Optional[_Union[_method_pb2.Voxel, _Mapping]] = ..., point_mm: _Optional[_Union[_method_pb2.Point, _Mapping]] = ...) -> None: ...

class EstimateRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: VisualizeRequest
    def __init__(self, request: _Optional[_Union[VisualizeRequest, _Mapping]] = ...) -> None: ...

class EstimateResponse(_message.Message):
    __slots__ = ("request", "voxels", "volumes", "voxel_steps", "step_seconds", "seconds", "peak_bytes", "device", "threads", "busy", "jobs_waiting")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    VOXELS_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    VOXEL_STEPS_FIELD_NUMBER: _ClassVar[int]
    STEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    JOBS_WAITING_FIELD_NUMBER: _ClassVar[int]
    request: VisualizeRequest
    voxels: int
    volumes: int
    voxel_steps: int
    step_seconds: float
    seconds: float
    peak_bytes: int
    device: str
    threads: int
    busy: bool
    jobs_waiting: int
    def __init__(self, request: _Optional[_Union[VisualizeRequest, _Mapping]] = ..., voxels: _Optional[int] = ..., volumes: _Optional[int] = ..., voxel_steps: _Optional[int] = ..., step_seconds: _Optional[float] = ..., seconds: _Optional[float] = ..., peak_bytes: _Optional[int] = ..., device: _Optional[str] = ..., threads: _Optional[int] = ..., busy: _Optional[bool] = ..., jobs_waiting: _Optional[int] = ...) -> None: ...

class VisualizeRequest(_message.Message):
    __slots__ = ("model", "version", "objective", "parameterization", "start", "transforms", "regularization", "optimizer", "seed", "steps", "snapshot_every", "canvas", "stopping", "batch", "samples", "subject", "comparisons", "precision", "request_id", "detach", "control")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERIZATION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    TRANSFORMS_FIELD_NUMBER: _ClassVar[int]
    REGULARIZATION_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_EVERY_FIELD_NUMBER: _ClassVar[int]
    CANVAS_FIELD_NUMBER: _ClassVar[int]
    STOPPING_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    COMPARISONS_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DETACH_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    objective: _method_pb2.Objective
    parameterization: _method_pb2.Parameterization
    start: _method_pb2.Start
    transforms: _method_pb2.Transforms
    regularization: _method_pb2.Regularization
    optimizer: _method_pb2.Optimizer
    seed: int
    steps: int
    snapshot_every: int
    canvas: _method_pb2.Canvas
    stopping: _method_pb2.Stopping
    batch: _containers.RepeatedCompositeFieldContainer[_method_pb2.Objective]
    samples: int
    subject: _method_pb2.Subject
    comparisons: Comparisons
    precision: _method_pb2.Precision
    request_id: str
    detach: bool
    control: _method_pb2.Control
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., objective: _Optional[_Union[_method_pb2.Objective, _Mapping]] = ..., parameterization: _Optional[_Union[_method_pb2.Parameterization, _Mapping]] = ..., start: _Optional[_Union[_method_pb2.Start, _Mapping]] = ..., transforms: _Optional[_Union[_method_pb2.Transforms, _Mapping]] = ..., regularization: _Optional[_Union[_method_pb2.Regularization, _Mapping]] = ..., optimizer: _Optional[_Union[_method_pb2.Optimizer, _Mapping]] = ..., seed: _Optional[int] = ..., steps: _Optional[int] = ..., snapshot_every: _Optional[int] = ..., canvas: _Optional[_Union[_method_pb2.Canvas, _Mapping]] = ..., stopping: _Optional[_Union[_method_pb2.Stopping, _Mapping]] = ..., batch: _Optional[_Iterable[_Union[_method_pb2.Objective, _Mapping]]] = ..., samples: _Optional[int] = ..., subject: _Optional[_Union[_method_pb2.Subject, _Mapping]] = ..., comparisons: _Optional[_Union[Comparisons, _Mapping]] = ..., precision: _Optional[_Union[_method_pb2.Precision, str]] = ..., request_id: _Optional[str] = ..., detach: _Optional[bool] = ..., control: _Optional[_Union[_method_pb2.Control, _Mapping]] = ...) -> None: ...

class Comparisons(_message.Message):
    __slots__ = ("transfer_model", "transfer_version", "real_images")
    TRANSFER_MODEL_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_VERSION_FIELD_NUMBER: _ClassVar[int]
    REAL_IMAGES_FIELD_NUMBER: _ClassVar[int]
    transfer_model: str
    transfer_version: int
    real_images: _containers.RepeatedCompositeFieldContainer[RealImage]
    def __init__(self, transfer_model: _Optional[str] = ..., transfer_version: _Optional[int] = ..., real_images: _Optional[_Iterable[_Union[RealImage, _Mapping]]] = ...) -> None: ...

class RealImage(_message.Message):
    __slots__ = ("image", "class_name")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    image: _method_pb2.Subject
    class_name: str
    def __init__(self, image: _Optional[_Union[_method_pb2.Subject, _Mapping]] = ..., class_name: _Optional[str] = ...) -> None: ...

class VisualizeResponse(_message.Message):
    __slots__ = ("sequence", "time", "accepted", "state_changed", "progress", "volume_begin", "volume_chunk", "volume_end", "completed", "volume_skipped")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    STATE_CHANGED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    VOLUME_BEGIN_FIELD_NUMBER: _ClassVar[int]
    VOLUME_CHUNK_FIELD_NUMBER: _ClassVar[int]
    VOLUME_END_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    VOLUME_SKIPPED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    accepted: Accepted
    state_changed: StateChanged
    progress: Progress
    volume_begin: VolumeBegin
    volume_chunk: VolumeChunk
    volume_end: VolumeEnd
    completed: Completed
    volume_skipped: VolumeSkipped
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., accepted: _Optional[_Union[Accepted, _Mapping]] = ..., state_changed: _Optional[_Union[StateChanged, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., volume_begin: _Optional[_Union[VolumeBegin, _Mapping]] = ..., volume_chunk: _Optional[_Union[VolumeChunk, _Mapping]] = ..., volume_end: _Optional[_Union[VolumeEnd, _Mapping]] = ..., completed: _Optional[_Union[Completed, _Mapping]] = ..., volume_skipped: _Optional[_Union[VolumeSkipped, _Mapping]] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ("job", "request")
    JOB_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    job: str
    request: VisualizeRequest
    def __init__(self, job: _Optional[str] = ..., request: _Optional[_Union[VisualizeRequest, _Mapping]] = ...) -> None: ...

class StateChanged(_message.Message):
    __slots__ = ("state", "attempt", "from_step")
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FROM_STEP_FIELD_NUMBER: _ClassVar[int]
    state: JobState
    attempt: int
    from_step: int
    def __init__(self, state: _Optional[_Union[JobState, str]] = ..., attempt: _Optional[int] = ..., from_step: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("step", "steps", "objective", "regularizers", "step_seconds", "batch")
    class RegularizersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    REGULARIZERS_FIELD_NUMBER: _ClassVar[int]
    STEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    step: int
    steps: int
    objective: float
    regularizers: _containers.ScalarMap[str, float]
    step_seconds: float
    batch: _containers.RepeatedCompositeFieldContainer[ItemProgress]
    def __init__(self, step: _Optional[int] = ..., steps: _Optional[int] = ..., objective: _Optional[float] = ..., regularizers: _Optional[_Mapping[str, float]] = ..., step_seconds: _Optional[float] = ..., batch: _Optional[_Iterable[_Union[ItemProgress, _Mapping]]] = ...) -> None: ...

class ItemProgress(_message.Message):
    __slots__ = ("objective", "regularizers")
    class RegularizersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    REGULARIZERS_FIELD_NUMBER: _ClassVar[int]
    objective: float
    regularizers: _containers.ScalarMap[str, float]
    def __init__(self, objective: _Optional[float] = ..., regularizers: _Optional[_Mapping[str, float]] = ...) -> None: ...

class VolumeBegin(_message.Message):
    __slots__ = ("id", "kind", "format", "step", "bytes", "sha256", "shape", "affine", "file_name", "item")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    AFFINE_FIELD_NUMBER: _ClassVar[int]
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: VolumeKind
    format: VolumeFormat
    step: int
    bytes: int
    sha256: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    affine: _containers.RepeatedScalarFieldContainer[float]
    file_name: str
    item: int
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[_Union[VolumeKind, str]] = ..., format: _Optional[_Union[VolumeFormat, str]] = ..., step: _Optional[int] = ..., bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., affine: _Optional[_Iterable[float]] = ..., file_name: _Optional[str] = ..., item: _Optional[int] = ...) -> None: ...

class VolumeChunk(_message.Message):
    __slots__ = ("id", "offset", "data")
    ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    id: str
    offset: int
    data: bytes
    def __init__(self, id: _Optional[str] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class VolumeEnd(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class VolumeSkipped(_message.Message):
    __slots__ = ("id", "step", "item")
    ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    id: str
    step: int
    item: int
    def __init__(self, id: _Optional[str] = ..., step: _Optional[int] = ..., item: _Optional[int] = ...) -> None: ...

class Completed(_message.Message):
    __slots__ = ("evaluation", "provenance", "batch")
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    evaluation: Evaluation
    provenance: Provenance
    batch: _containers.RepeatedCompositeFieldContainer[Evaluation]
    def __init__(self, evaluation: _Optional[_Union[Evaluation, _Mapping]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., batch: _Optional[_Iterable[_Union[Evaluation, _Mapping]]] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("objective", "terms", "step", "stop_reason", "redirected_steps", "spectrum_distance", "saturated_share", "total_variation", "agreement", "transfer", "path", "smallest_jacobian", "largest_jacobian", "recomputed")
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    REDIRECTED_STEPS_FIELD_NUMBER: _ClassVar[int]
    SPECTRUM_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    SATURATED_SHARE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_VARIATION_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    SMALLEST_JACOBIAN_FIELD_NUMBER: _ClassVar[int]
    LARGEST_JACOBIAN_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTED_FIELD_NUMBER: _ClassVar[int]
    objective: float
    terms: _containers.RepeatedCompositeFieldContainer[TermEvaluation]
    step: int
    stop_reason: StopReason
    redirected_steps: int
    spectrum_distance: float
    saturated_share: float
    total_variation: float
    agreement: float
    transfer: Transfer
    path: _containers.RepeatedCompositeFieldContainer[PathSimilarity]
    smallest_jacobian: float
    largest_jacobian: float
    recomputed: bool
    def __init__(self, objective: _Optional[float] = ..., terms: _Optional[_Iterable[_Union[TermEvaluation, _Mapping]]] = ..., step: _Optional[int] = ..., stop_reason: _Optional[_Union[StopReason, str]] = ..., redirected_steps: _Optional[int] = ..., spectrum_distance: _Optional[float] = ..., saturated_share: _Optional[float] = ..., total_variation: _Optional[float] = ..., agreement: _Optional[float] = ..., transfer: _Optional[_Union[Transfer, _Mapping]] = ..., path: _Optional[_Iterable[_Union[PathSimilarity, _Mapping]]] = ..., smallest_jacobian: _Optional[float] = ..., largest_jacobian: _Optional[float] = ..., recomputed: _Optional[bool] = ...) -> None: ...

class Transfer(_message.Message):
    __slots__ = ("model", "version", "class_name", "probability", "same")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    SAME_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    class_name: str
    probability: float
    same: bool
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., class_name: _Optional[str] = ..., probability: _Optional[float] = ..., same: _Optional[bool] = ...) -> None: ...

class PathSimilarity(_message.Message):
    __slots__ = ("layer", "similarity")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    layer: str
    similarity: float
    def __init__(self, layer: _Optional[str] = ..., similarity: _Optional[float] = ...) -> None: ...

class TermEvaluation(_message.Message):
    __slots__ = ("unit", "activation", "percentile", "real_p95", "real_maximum", "ratio_to_best", "selectivity_rank", "layer_units", "held_out")
    UNIT_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    REAL_P95_FIELD_NUMBER: _ClassVar[int]
    REAL_MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    RATIO_TO_BEST_FIELD_NUMBER: _ClassVar[int]
    SELECTIVITY_RANK_FIELD_NUMBER: _ClassVar[int]
    LAYER_UNITS_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_FIELD_NUMBER: _ClassVar[int]
    unit: str
    activation: float
    percentile: float
    real_p95: float
    real_maximum: float
    ratio_to_best: float
    selectivity_rank: int
    layer_units: int
    held_out: HeldOut
    def __init__(self, unit: _Optional[str] = ..., activation: _Optional[float] = ..., percentile: _Optional[float] = ..., real_p95: _Optional[float] = ..., real_maximum: _Optional[float] = ..., ratio_to_best: _Optional[float] = ..., selectivity_rank: _Optional[int] = ..., layer_units: _Optional[int] = ..., held_out: _Optional[_Union[HeldOut, _Mapping]] = ...) -> None: ...

class HeldOut(_message.Message):
    __slots__ = ("activation", "mean", "p5")
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    P5_FIELD_NUMBER: _ClassVar[int]
    activation: float
    mean: float
    p5: float
    def __init__(self, activation: _Optional[float] = ..., mean: _Optional[float] = ..., p5: _Optional[float] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("model", "version", "model_digest", "request", "volume_sha256", "software", "device", "threads", "started", "finished", "synthetic", "volumes", "subject_sha256")
    class SoftwareEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class VolumesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    VOLUME_SHA256_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    SYNTHETIC_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_SHA256_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    model_digest: str
    request: VisualizeRequest
    volume_sha256: str
    software: _containers.ScalarMap[str, str]
    device: str
    threads: int
    started: _timestamp_pb2.Timestamp
    finished: _timestamp_pb2.Timestamp
    synthetic: bool
    volumes: _containers.ScalarMap[str, str]
    subject_sha256: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., model_digest: _Optional[str] = ..., request: _Optional[_Union[VisualizeRequest, _Mapping]] = ..., volume_sha256: _Optional[str] = ..., software: _Optional[_Mapping[str, str]] = ..., device: _Optional[str] = ..., threads: _Optional[int] = ..., started: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., finished: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., synthetic: _Optional[bool] = ..., volumes: _Optional[_Mapping[str, str]] = ..., subject_sha256: _Optional[str] = ...) -> None: ...
