"""Feature visualization of neural networks in 1, 2 and 3 dimensions.

Pure mathematics on tensors: no file, no network connection, no global state.
`visualize` optimizes an input until a chosen unit fires and yields what happens
on the way.
"""

from engine.capture import UnknownLayer, activations, frozen
from engine.events import Event, Progress, Result, Snapshot
from engine.fields import InvalidField
from engine.grid import Grid
from engine.objective import Channel, ClassLogit, Neuron, Objective, Sense, Term, Unit, UnitOutOfRange
from engine.optimizer import Adam, Nadam, Schedule, Sgd
from engine.parameterization import Fourier, Voxels
from engine.regularizer import L1, L2, GaussianBlur, Regularizer, TotalVariation
from engine.start import Noise, ReferenceBrain
from engine.transform import Transforms
from engine.visualization import Diverged, Spec, evaluate, visualize

__all__ = [
    "L1",
    "L2",
    "Adam",
    "Channel",
    "ClassLogit",
    "Diverged",
    "Event",
    "Fourier",
    "GaussianBlur",
    "Grid",
    "InvalidField",
    "Nadam",
    "Neuron",
    "Noise",
    "Objective",
    "Progress",
    "ReferenceBrain",
    "Regularizer",
    "Result",
    "Schedule",
    "Sense",
    "Sgd",
    "Snapshot",
    "Spec",
    "Term",
    "TotalVariation",
    "Transforms",
    "Unit",
    "UnitOutOfRange",
    "UnknownLayer",
    "Voxels",
    "activations",
    "evaluate",
    "frozen",
    "visualize",
]
