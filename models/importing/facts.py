"""What a model file does not say of itself, and its owner must."""

from __future__ import annotations

from dataclasses import dataclass, field

from models.normalization import Normalization, Quantile
from models.onnx_graph.agreement import TOLERANCE

UNSTATED = "Not stated at import."


@dataclass(frozen=True)
class Facts:
    """What the owner of a network says of it.

    Attributes
    ----------
    name : str
        Of the bundle; pattern `models.manifest.NAME_PATTERN`.
    version : int
        Of the bundle.
    input_shape : tuple of int, optional
        Voxels along three axes; by default the reference's.
    classes : tuple of str
        In the order of the outputs. By default a network that ends in a softmax has the classes "0", "1",
        ..., and any other none.
    normalization : Normalization
        What the training pipeline did to an image's intensities.
    intensity_range : tuple of float, optional
        Lowest and highest model units of what is optimized; by default what the reference and the cohort
        hold. Images are not clipped to it.
    tolerance : float
        Largest difference from ONNX Runtime's output that is accepted, in parts of the largest output if that
        is above 1.
    space : str
        Name of the space in which the reference lies.
    license, intended_use, not_for : str
        Terms and purpose, for the card.
    """

    name: str
    version: int = 1
    input_shape: tuple[int, int, int] | None = None
    classes: tuple[str, ...] = ()
    normalization: Normalization = field(default_factory=lambda: Quantile(quantile=0.995))
    intensity_range: tuple[float, float] | None = None
    tolerance: float = TOLERANCE
    space: str = "unknown"
    license: str = UNSTATED
    intended_use: str = UNSTATED
    not_for: str = "Diagnosis or any other clinical decision."
