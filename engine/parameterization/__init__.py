"""How a volume is held while it is optimized."""

from engine.parameterization.base import FreeImage, Latent, Parameterization, Stage
from engine.parameterization.deformation import Deformation
from engine.parameterization.direct import Fourier, LaplacianPyramid, Voxels
from engine.parameterization.maco import Maco
from engine.parameterization.patch import Patch

PARAMETERIZATIONS: dict[str, type[Parameterization]] = {
    kind.name: kind for kind in (Fourier, Voxels, LaplacianPyramid, Maco, Patch, Deformation)
}

__all__ = [
    "PARAMETERIZATIONS",
    "Deformation",
    "Fourier",
    "FreeImage",
    "LaplacianPyramid",
    "Latent",
    "Maco",
    "Parameterization",
    "Patch",
    "Stage",
    "Voxels",
]
