"""The images that a request brings along: a subject, and real images to compare with."""

import hashlib
from dataclasses import dataclass

import numpy as np

from models import Bundle
from neurofv.v1 import method_pb2
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import ClassNotFound, InvalidField
from service.jobs.targets import label, targets
from service.settings import Settings
from service.volumes.subject import read_subject

# Two of a class say how alike two of a class are.
LEAST_SAME = 2
# Each takes a second to read.
MOST_REAL = 64


@dataclass(frozen=True)
class Images:
    """Images on the model's grid, model units.

    Attributes
    ----------
    subject : ndarray or None
        The subject's.
    real : tuple of (str, ndarray)
        Real images, each with its class.
    """

    subject: np.ndarray | None = None
    real: tuple[tuple[str, np.ndarray], ...] = ()

    def groups(self, class_name: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the real images of a class, and those of others."""
        same = [image for name, image in self.real if name == class_name]
        return same, [image for name, image in self.real if name != class_name]


def read(resolved: vis.VisualizeRequest, bundle: Bundle, settings: Settings) -> Images:
    """Bring a request's images onto the model's grid, and fill in their digests.

    Parameters
    ----------
    resolved : VisualizeRequest
        Changed in place.
    bundle : Bundle
        The model.
    settings : Settings
        The server's limits.

    Returns
    -------
    Images
        What was brought.

    Raises
    ------
    InvalidField
        An image is missing, not needed or unusable.
    """
    wanted = _wants_subject(resolved)
    if not resolved.HasField("subject"):
        if wanted:
            raise InvalidField("subject.nifti", f"is missing; {wanted} needs a person's image")
        return _comparisons(resolved, bundle, settings, None)
    if not wanted:
        raise InvalidField(
            "subject", "is not used; ask for start.subject or subject_activations, or leave it out"
        )
    subject = _in_range(read_one(resolved.subject, "subject", bundle, settings), bundle)
    return _comparisons(resolved, bundle, settings, subject)


def without_images(request: vis.VisualizeRequest) -> vis.VisualizeRequest:
    """Return a request as it may be repeated to anybody: with digests in place of images."""
    public = vis.VisualizeRequest()
    public.CopyFrom(request)
    if public.HasField("subject"):
        public.subject.ClearField("nifti")
    for real in public.comparisons.real_images:
        real.image.ClearField("nifti")
    return public


def check_same_input(bundle: Bundle, other: Bundle) -> None:
    """Make sure that a second model reads the volumes of the first.

    Raises
    ------
    InvalidField
        Its grid or its normalization is another, or it is no classifier.
    """
    mine, theirs = bundle.manifest.input, other.manifest.input
    same_grid = mine.shape == theirs.shape and np.allclose(mine.affine, theirs.affine, atol=1e-3)
    if not same_grid or mine.normalization != theirs.normalization:
        rule = (
            f"reads another grid or normalization than {label(bundle)}; name a model of the same input space"
        )
        raise InvalidField("comparisons.transfer_model", rule)
    if not other.manifest.classes:
        rule = f"is {label(other)}, which has no classes to answer with; name a classifier"
        raise InvalidField("comparisons.transfer_model", rule)


def _wants_subject(request: vis.VisualizeRequest) -> str:
    """Return what needs a subject's image, or an empty string."""
    if request.start.WhichOneof("kind") == "subject":
        return "start.subject"
    return next((target.path for target in targets(request) if target.kind == "subject_activations"), "")


def read_one(subject: method_pb2.Subject, path: str, bundle: Bundle, settings: Settings) -> np.ndarray:
    """Bring one image onto the model's grid, and fill in its digest.

    Parameters
    ----------
    subject : Subject
        Changed in place.
    path : str
        Its field's path, for errors.
    bundle : Bundle
        The model.
    settings : Settings
        The server's limits.

    Returns
    -------
    ndarray, (X, Y, Z), float32
        Model units, as the network reads images: they may lie beyond the range of an optimized volume.

    Raises
    ------
    InvalidField, SubjectUnusable
        It is missing or unusable.
    """
    if not subject.nifti:
        rule = "is empty; the service keeps no image, so send the file itself"
        raise InvalidField(f"{path}.nifti", rule)
    digest = hashlib.sha256(subject.nifti).hexdigest()
    if subject.sha256 and subject.sha256.lower() != digest:
        raise InvalidField(f"{path}.sha256", "does not fit the file; send the file that it was taken of")
    subject.sha256 = digest
    mask = bundle.prior().mask().numpy()
    return read_subject(subject.nifti, bundle.manifest, mask, f"{path}.nifti", settings.max_image_bytes)


def _in_range(image: np.ndarray, bundle: Bundle) -> np.ndarray:
    """Clip what is optimized, or compared with that, to the range in which it stays."""
    return np.clip(image, *bundle.manifest.input.intensity_range)


def _comparisons(
    request: vis.VisualizeRequest, bundle: Bundle, settings: Settings, subject: np.ndarray | None
) -> Images:
    reals = request.comparisons.real_images
    if not reals:
        return Images(subject)
    if len(reals) > MOST_REAL:
        raise InvalidField("comparisons.real_images", f"are {len(reals)}, but at most {MOST_REAL} are read")
    first = targets(request)[0]
    if first.kind != "class_logit":
        rule = "need a class whose logit is driven by the first term; drive one, or leave them out"
        raise InvalidField("comparisons.real_images", rule)
    found = []
    for index, real in enumerate(reals):
        if real.class_name not in bundle.manifest.classes:
            raise ClassNotFound(real.class_name, bundle.manifest.classes, label(bundle))
        path = f"comparisons.real_images[{index}].image"
        image = _in_range(read_one(real.image, path, bundle, settings), bundle)
        found.append((real.class_name, image))
    images = Images(subject, tuple(found))
    same, other = images.groups(first.unit.class_name)
    if len(same) < LEAST_SAME or not other:
        rule = f"hold {len(same)} of class {first.unit.class_name} and {len(other)} of others; "
        rule += f"give at least {LEAST_SAME} of it and one of another"
        raise InvalidField("comparisons.real_images", rule)
    return images
