"""Brains on which patterns are pasted: real ones from a folder, or drawn from the bundle's prior."""

from pathlib import Path

import numpy as np
import torch

import engine
from models import Bundle
from service.errors import InvalidField
from service.volumes.subject import read_subject

COUNT = 16
# Between brains that lie on each other, folds differ over about this length.
_FWHM_MM = 8.0
_ENDINGS = (".nii", ".nii.gz", ".mgh", ".mgz")


def drawn(bundle: Bundle, background: np.ndarray, seed: int, count: int = COUNT) -> np.ndarray:
    """Draw brains: the mean brain, plus smooth noise of the deviation that real brains have at each voxel.

    Parameters
    ----------
    bundle : Bundle
        Its prior knows the deviation.
    background : ndarray, (X, Y, Z)
        The reference brain, model units.
    seed : int
        Of the draws.
    count : int
        How many.

    Returns
    -------
    ndarray, (count, X, Y, Z), float32
        Model units, within the intensity range.
    """
    space, prior = bundle.manifest.input, bundle.prior()
    grid = engine.Grid(space.shape, space.voxel_size_mm)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((count, *space.shape), generator=generator)
    smooth = grid.from_spectrum(grid.to_spectrum(noise) * grid.gaussian_transfer(_FWHM_MM).float())
    smooth = smooth / smooth.flatten(1).std(1).reshape(-1, 1, 1, 1)
    brains = torch.from_numpy(background) + smooth * prior.deviation() * prior.mask()
    found: np.ndarray = brains.clamp(*space.intensity_range).numpy()
    return found


def real(folder: Path | None, bundle: Bundle, max_bytes: int, count: int = COUNT) -> np.ndarray:
    """Read the first brains of a folder and of the folders in it, by name.

    Parameters
    ----------
    folder : Path or None
        Of NIfTI or FreeSurfer files in the model's space.
    bundle : Bundle
        The model.
    max_bytes : int
        Most bytes of a file, inflated.
    count : int
        How many.

    Returns
    -------
    ndarray, (n, X, Y, Z), float32
        Model units.

    Raises
    ------
    InvalidField
        There is no folder, or nothing in it.
    """
    field = "parameterization.patch.real"
    if folder is None:
        rule = "asks for real brains, but this server has none (NEUROFV_BRAINS); leave it out for drawn ones"
        raise InvalidField(field, rule)
    files = [file for file in sorted(folder.rglob("*")) if file.name.endswith(_ENDINGS) and file.is_file()]
    if not files:
        raise InvalidField(
            field, "asks for real brains, but the server's folder holds no NIfTI file and no .mgz"
        )
    mask = bundle.prior().mask().numpy()
    images = [
        read_subject(file.read_bytes(), bundle.manifest, mask, field, max_bytes) for file in files[:count]
    ]
    return np.clip(np.stack(images), *bundle.manifest.input.intensity_range)
