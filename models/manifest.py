"""``bundle.json``: what a model is, where it comes from and what it may be used for."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import nibabel
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from models.normalization import Normalization

NAME_PATTERN = r"^[a-z0-9]([a-z0-9._-]{0,62})$"
FILE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
FileName = Annotated[str, Field(pattern=FILE_PATTERN)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(min_length=1)]
Row = tuple[float, float, float, float]
Head = Literal["softmax", "sigmoid"]


def _is_none(value: object) -> bool:
    return value is None


def _is_softmax(value: object) -> bool:
    return value == "softmax"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Architecture(_Frozen):
    """Which network of the registry this is.

    Attributes
    ----------
    name : str
        Key of `models.architectures.REGISTRY`.
    hyperparameters : dict
        What the architecture's constructor receives.
    """

    name: Name
    hyperparameters: dict[str, JsonValue] = {}


class InputSpace(_Frozen):
    """The grid, anatomical space and intensities that the network reads.

    Attributes
    ----------
    shape : tuple of int
        Voxels along the array's three axes.
    voxel_size_mm : tuple of float
        Edge lengths of a voxel, agreeing with `affine`.
    affine : tuple of 4 rows
        From voxel indices to millimetres, nibabel's convention.
    orientation : str
        Three letters as `nibabel.aff2axcodes` gives them for `affine`, e.g. ``"LAS"``.
    space : str
        Name of the template space, e.g. ``"MNI152NLin6Asym"``.
    normalization : Normalization
        How images become model units.
    intensity_range : tuple of float
        Lowest and highest value of an optimized volume, in model units.
    clipped : bool
        Whether images are clipped to that range too, as the network's training did.
    """

    shape: tuple[
        Annotated[int, Field(ge=1, le=1024)],
        Annotated[int, Field(ge=1, le=1024)],
        Annotated[int, Field(ge=1, le=1024)],
    ]
    voxel_size_mm: tuple[
        Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]
    ]
    affine: tuple[Row, Row, Row, Row]
    orientation: str = Field(pattern=r"^[LRPAIS]{3}$")
    space: Text
    normalization: Normalization
    intensity_range: tuple[float, float]
    clipped: bool = Field(default=True, exclude_if=bool)

    def normalize(self, image: np.ndarray) -> np.ndarray:
        """Bring an image from its own intensities into model units, as the network's training did.

        Parameters
        ----------
        image : numpy.ndarray
            float32, intensities in the scanner's units.

        Returns
        -------
        numpy.ndarray
            float32, of the same shape.

        Raises
        ------
        ValueError
            See the rules of `models.normalization`.
        """
        model = self.normalization.apply(image)
        return np.asarray(np.clip(model, *self.intensity_range)) if self.clipped else model

    @model_validator(mode="after")
    def _agree(self) -> InputSpace:
        affine = np.asarray(self.affine)
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9 or not np.array_equal(affine[3], [0, 0, 0, 1]):
            raise ValueError("affine must be invertible with last row 0 0 0 1")
        sizes = nibabel.affines.voxel_sizes(affine)
        if not np.allclose(sizes, self.voxel_size_mm, rtol=1e-4):
            raise ValueError(f"voxel_size_mm {self.voxel_size_mm} disagrees with affine, which says {sizes}")
        codes = "".join(nibabel.aff2axcodes(affine))
        if codes != self.orientation:
            raise ValueError(f"orientation {self.orientation!r} disagrees with affine, which says {codes!r}")
        if not self.intensity_range[0] < self.intensity_range[1]:
            raise ValueError(
                f"intensity_range must be (low, high) with low < high, got {self.intensity_range}"
            )
        return self


class Training(_Frozen):
    """Where the weights come from.

    Attributes
    ----------
    data, license : str
        The data set, by name and reference, and the terms it came under.
    subjects_train, subjects_test : tuple of str
        Identifiers, disjoint.
    seed : int
        What every random draw started from.
    software : dict of str
        Versions by package.
    recipe : dict
        Steps, rates, augmentation and whatever else repeats the training.
    """

    data: Text
    license: Text
    subjects_train: tuple[str, ...]
    subjects_test: tuple[str, ...]
    seed: int
    software: dict[str, str]
    recipe: dict[str, JsonValue]

    @model_validator(mode="after")
    def _disjoint(self) -> Training:
        both = sorted(set(self.subjects_train) & set(self.subjects_test))
        if both:
            raise ValueError(f"subjects are both in subjects_train and subjects_test: {', '.join(both[:5])}")
        return self


class Interval(_Frozen):
    """An estimate with its interval.

    Attributes
    ----------
    estimate, low, high : float
        The figure and the interval around it.
    level : float
        Coverage, e.g. 0.95.
    n : int
        Number of cases behind it.
    method : str
        How the interval was made, e.g. ``"bootstrap over subjects"``.
    """

    estimate: float
    low: float
    high: float
    level: float = Field(gt=0, lt=1)
    n: int = Field(ge=1)
    method: Text

    @model_validator(mode="after")
    def _ordered(self) -> Interval:
        if self.low > self.high:
            raise ValueError(f"low {self.low} lies above high {self.high}")
        return self


class Evaluation(_Frozen):
    """What the network achieves on subjects it never saw.

    Attributes
    ----------
    accuracy : Interval
        Share of right answers on held-out subjects.
    baselines : dict of Interval
        Accuracy of what must not inform, e.g. total intensity.
    chance : float
        Accuracy of guessing.
    per_class : dict of Interval
        Accuracy by true class.
    logit_quantiles : dict
        For each class, quantiles 0.05, 0.5 and 0.95 of that class's logit on real held-out images of that
        class.
    figures : dict of Interval
        Further figures by name, e.g. the area under the ROC curve; left out of the JSON where there are none.
    """

    accuracy: Interval
    baselines: dict[str, Interval]
    chance: float = Field(ge=0, le=1)
    per_class: dict[str, Interval]
    logit_quantiles: dict[str, dict[Literal["0.05", "0.5", "0.95"], float]]
    figures: dict[str, Interval] = Field(default={}, exclude_if=lambda figures: not figures)


class Import(_Frozen):
    """Where a network came from that was trained elsewhere.

    Attributes
    ----------
    source : str
        What was imported, e.g. ``"ONNX model tumor.onnx"``; a file's name, never its path.
    sha256 : str
        Of the imported file, in hex.
    producer : str
        Who wrote it, e.g. ``"pytorch 2.13.0"``; empty if it does not say.
    opset : int
        Version of ONNX's operators that it uses.
    agreement : float
        Largest absolute difference from ONNX Runtime's output on random volumes.
    software : dict of str
        Versions by package, at import.
    cohort : str
        Which images the prior was measured on; empty if there was none but the reference.
    """

    source: Text
    sha256: Digest
    producer: str
    opset: int
    agreement: float
    software: dict[str, str]
    cohort: str = ""


class Manifest(_Frozen):
    """Everything that ``bundle.json`` says.

    A network that was trained here says how, and how good it is; one that was imported says where it came
    from, and has classes only if it is a classifier.

    Attributes
    ----------
    schema_version : 1
        Version of this schema.
    name, version : str, int
        The model's name (pattern `NAME_PATTERN`) and whole-number version; they are its folder's names too.
    architecture : Architecture
        Which network.
    input : InputSpace
        What it reads.
    classes : tuple of str
        Names in the order of the logits; none if the network is no classifier.
    classifier_layer : str
        The layer whose output are the logits, before any softmax; empty without classes.
    probabilities : "softmax" or "sigmoid"
        How logits become probabilities: of classes that exclude each other, or of each class by itself.
    training : Training or None
        Provenance of a network that was trained here.
    evaluation : Evaluation or None
        Figures on held-out subjects, of such a network.
    imported : Import or None
        Provenance of a network that was trained elsewhere.
    license, intended_use, not_for : str
        Terms and purpose.
    files : dict of str
        SHA-256, in hex, of every other file of the bundle; filled in by `models.bundle.write_bundle`.
    """

    schema_version: Literal[1] = 1
    name: Name
    version: int = Field(ge=1)
    architecture: Architecture
    input: InputSpace
    classes: tuple[Text, ...] = ()
    classifier_layer: str = ""
    probabilities: Head = Field(default="softmax", exclude_if=_is_softmax)
    training: Training | None = Field(default=None, exclude_if=_is_none)
    evaluation: Evaluation | None = Field(default=None, exclude_if=_is_none)
    imported: Import | None = Field(default=None, exclude_if=_is_none)
    license: Text
    intended_use: Text
    not_for: Text
    files: dict[FileName, Digest] = {}

    @model_validator(mode="after")
    def _classes_agree(self) -> Manifest:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes must differ from each other, got {', '.join(self.classes)}")
        if len(self.classes) == 1 or bool(self.classes) != bool(self.classifier_layer):
            raise ValueError("classes (two or more) and classifier_layer go together; give both or neither")
        if (self.training is None) == (self.imported is None) or (self.training and not self.evaluation):
            raise ValueError("must have either training and evaluation, or imported")
        for field in ("per_class", "logit_quantiles") if self.evaluation else ():
            unknown = sorted(set(getattr(self.evaluation, field)) - set(self.classes))
            if unknown:
                raise ValueError(f"evaluation.{field} names unknown classes: {', '.join(unknown)}")
        return self

    def to_json(self) -> bytes:
        """Write the manifest the one canonical way: sorted keys, two spaces, UTF-8, newline at the end.

        Returns
        -------
        bytes
            The content of ``bundle.json``.
        """
        values = self.model_dump(mode="json")
        text = json.dumps(values, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
        return (text + "\n").encode()
