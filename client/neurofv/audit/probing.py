"""The search for shortcuts: real images with nuisances added are shown to the model, through the service."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nilearn import image as nilearn_image

from neurofv.audit.images import RealImage
from neurofv.audit.jobs import patient
from neurofv.audit.nuisances import Place, battery
from neurofv.audit.shortcuts import find_shortcuts
from neurofv.audit.weights import check_weights
from neurofv.client import Client
from neurofv.errors import InvalidRequest
from neurofv.v1 import model_service_pb2 as pb

# Enough for a median, and few enough for a battery of which each form is shown with each image.
_OF_A_CLASS, _WITHOUT_CLASSES = 4, 8
_RANDOM = {"random_weights": {"seed": 0}}


def search_shortcuts(
    client: Client,
    model: pb.Model,
    images: Sequence[RealImage],
    reference: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Look for nuisances that the model's answers follow.

    Parameters
    ----------
    client : Client
        The server.
    model : Model
        The model, with classes.
    images : sequence of RealImage
        A few of each class are taken, in order.
    reference : Path
        The model's reference brain, whose grid images are brought onto.
    say : callable
        Told what is under way.

    Returns
    -------
    dict
        `tested`, the kinds of nuisance, and `found`, as the report has them.

    Raises
    ------
    InvalidRequest
        The images do not serve.
    NeurofvError
        The server failed.
    """
    grid: Any = nibabel.load(reference)
    chosen = _few(images)
    volumes = [_on_grid(each, grid) for each in chosen]
    # Skulls are stripped, and what is not brain is 0.
    mask = np.mean([volume != 0 for volume in volumes], axis=0) >= 0.5
    ask = partial(_logits, client, model, grid.affine, say)
    try:
        found = find_shortcuts(
            partial(ask, None), volumes, grid.affine, mask, list(model.classes), partial(ask, _RANDOM)
        )
    except ValueError as error:
        raise InvalidRequest("images", f"{len(chosen)} images", str(error)) from None
    return {
        "tested": list(battery(Place(np.asarray(grid.affine, float), mask))),
        "found": [vars(each) for each in found],
    }


def _few(images: Sequence[RealImage]) -> list[RealImage]:
    """Return a few images of each class or, where classes are not known, the first ones."""
    labelled = [image for image in images if image.class_name]
    if not labelled:
        return list(images[:_WITHOUT_CLASSES])
    found: dict[str, list[RealImage]] = {}
    for image in labelled:
        found.setdefault(image.class_name, []).append(image)
    return [image for members in found.values() for image in members[:_OF_A_CLASS]]


def _on_grid(image: RealImage, grid: Any) -> np.ndarray:
    """Return an image's voxels on the model's grid."""
    loaded: Any = nibabel.load(image.path)
    squeezed = nibabel.Nifti1Image(np.squeeze(loaded.get_fdata(dtype=np.float32)), loaded.affine)
    moved = nilearn_image.resample_to_img(squeezed, grid, force_resample=True, copy_header=True)
    return np.asarray(moved.get_fdata(dtype=np.float32))


def _logits(
    client: Client,
    model: pb.Model,
    affine: np.ndarray,
    say: Callable[[str], None],
    control: dict[str, Any] | None,
    volume: np.ndarray,
) -> np.ndarray:
    say("looking for shortcuts" + (" of random weights" if control else ""))
    shown = nibabel.Nifti1Image(np.asarray(volume, np.float32), affine)
    answer = patient(client, lambda: client.probe(model.name, shown, version=model.version, control=control))
    check_weights(f"{model.name}/{model.version}", model.digest, answer.model_digest)
    return np.array(answer.logits)
