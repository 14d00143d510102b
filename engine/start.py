"""What the volume is before the first step."""

from dataclasses import dataclass
from typing import ClassVar

from engine.fields import Checked, number


@dataclass(frozen=True)
class Noise(Checked):
    """Middle grey with Gaussian noise.

    Parameters
    ----------
    deviation : float
        Standard deviation before the squashing into the intensity range.
    """

    deviation: float = number(0.01, minimum=0, maximum=10, doc="Noise before the squashing.")
    name: ClassVar[str] = "noise"
    on_brain: ClassVar[bool] = False


@dataclass(frozen=True)
class ReferenceBrain(Noise):
    """The mean training image with Gaussian noise.

    Parameters
    ----------
    deviation : float
        Standard deviation before the squashing into the intensity range.
    """

    name: ClassVar[str] = "reference_brain"
    on_brain: ClassVar[bool] = True


Start = Noise | ReferenceBrain
STARTS = {kind.name: kind for kind in (ReferenceBrain, Noise)}
