"""Feature visualization of neural networks in 1, 2 and 3 dimensions.

Pure mathematics on tensors: no file, no network connection, no global state.
`visualize` optimizes inputs until chosen units fire and yields what happens on
the way; `engine.evaluation` and `engine.paths` judge what came out.
"""

from engine.anatomy import Anatomy, MissingAnatomy
from engine.events import Event, ItemProgress, ItemState, Progress, Result, Snapshot, State
from engine.fields import InvalidField
from engine.grid import Grid
from engine.network import Precision, Prepared, UnknownLayer, prepared
from engine.objective import (
    Channel,
    ClassLogit,
    Comparison,
    Direction,
    Measure,
    Neuron,
    Objective,
    Sense,
    SubjectActivations,
    Term,
    Unit,
    UnitOutOfRange,
    WholeLayer,
)
from engine.optimizer import Adam, Nadam, Schedule, Sgd
from engine.parameterization import Deformation, Fourier, LaplacianPyramid, Maco, Patch, Voxels
from engine.regularizer import (
    L1,
    L2,
    ActivationCeiling,
    BrainMask,
    Decay,
    Diversity,
    FeatureDistance,
    GaussianBlur,
    GradientBlur,
    ImageDistance,
    IntensityClip,
    NoRealActivations,
    Regularizer,
    SpectrumMatch,
    TotalVariation,
)
from engine.spec import Item, Spec
from engine.start import Noise, ReferenceBrain, SubjectImage, Zeros
from engine.state import StateMismatch
from engine.stopping import Stop, Stopping
from engine.transform import Transforms
from engine.visualization import Diverged, visualize

__all__ = [
    "L1",
    "L2",
    "ActivationCeiling",
    "Adam",
    "Anatomy",
    "BrainMask",
    "Channel",
    "ClassLogit",
    "Comparison",
    "Decay",
    "Deformation",
    "Direction",
    "Diverged",
    "Diversity",
    "Event",
    "FeatureDistance",
    "Fourier",
    "GaussianBlur",
    "GradientBlur",
    "Grid",
    "ImageDistance",
    "IntensityClip",
    "InvalidField",
    "Item",
    "ItemProgress",
    "ItemState",
    "LaplacianPyramid",
    "Maco",
    "Measure",
    "MissingAnatomy",
    "Nadam",
    "Neuron",
    "NoRealActivations",
    "Noise",
    "Objective",
    "Patch",
    "Precision",
    "Prepared",
    "Progress",
    "ReferenceBrain",
    "Regularizer",
    "Result",
    "Schedule",
    "Sense",
    "Sgd",
    "Snapshot",
    "Spec",
    "SpectrumMatch",
    "State",
    "StateMismatch",
    "Stop",
    "Stopping",
    "SubjectActivations",
    "SubjectImage",
    "Term",
    "TotalVariation",
    "Transforms",
    "Unit",
    "UnitOutOfRange",
    "UnknownLayer",
    "Voxels",
    "WholeLayer",
    "Zeros",
    "prepared",
    "visualize",
]
