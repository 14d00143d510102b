"""NIfTI files of results."""

import hashlib
import re
from dataclasses import dataclass

import nibabel
import numpy as np
from isal import igzip

from models.manifest import Manifest
from neurofv.v1 import visualization_service_pb2 as vis

_UNSAFE = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True)
class VolumeFile:
    """A file ready to be sent.

    Attributes
    ----------
    begin : VolumeBegin
        Its description.
    data : bytes
        Its content.
    """

    begin: vis.VolumeBegin
    data: bytes

    @property
    def is_snapshot(self) -> bool:
        """Whether it was taken on the way, and is no result."""
        return self.begin.kind == vis.VOLUME_KIND_INTERMEDIATE


@dataclass(frozen=True)
class Source:
    """What a volume is of.

    Attributes
    ----------
    manifest : Manifest
        Of the model.
    unit : str
        What is visualized, as `layer:channel`.
    kind : VolumeKind
        Snapshot, result or what belongs to it.
    step : int
        Steps done.
    item : int
        Which volume of the batch.
    seed : int or None
        Of its draws, if there are several samples.
    control : int or None
        Seed with which the model's weights were shuffled, if they were.
    """

    manifest: Manifest
    unit: str
    kind: "vis.VolumeKind"
    step: int
    item: int = 0
    seed: int | None = None
    control: int | None = None

    @property
    def label(self) -> str:
        """What it is among the volumes of its item."""
        name = vis.VolumeKind.Name(self.kind).removeprefix("VOLUME_KIND_").lower()
        return f"step{self.step:05d}" if self.kind == vis.VOLUME_KIND_INTERMEDIATE else name

    @property
    def id(self) -> str:
        """Its name in the stream; that of the first item is its label alone."""
        return f"item{self.item}.{self.label}" if self.item else self.label

    @property
    def file_name(self) -> str:
        """A name as BIDS derivatives have it; a synthetic image has no subject."""
        layer, _, channel = self.unit.rpartition(":")
        seed = "" if self.seed is None else f"seed{self.seed}"
        random = "" if self.control is None else f"random{self.control}"
        entities = {
            "space": self.manifest.input.space,
            "model": self.manifest.name,
            "layer": layer,
            "unit": channel,
            "desc": random + seed + self.label,
        }
        return "_".join(f"{key}-{_UNSAFE.sub('', value)}" for key, value in entities.items()) + "_fv.nii.gz"


def encode(volume: np.ndarray, source: Source) -> VolumeFile:
    """Write a volume as gzip-compressed NIfTI-1 in the model's anatomical space.

    The same volume gives the same bytes: the archive holds no time stamp.

    Parameters
    ----------
    volume : ndarray, (X, Y, Z)
        On the model's grid.
    source : Source
        What it is of.

    Returns
    -------
    VolumeFile
        With its SHA-256.
    """
    manifest = source.manifest
    space = manifest.input
    image = nibabel.Nifti1Image(np.asarray(volume, dtype=np.float32), np.asarray(space.affine))
    code = "mni" if space.space.startswith("MNI") else "aligned"
    image.set_sform(image.affine, code)
    image.set_qform(image.affine, code)
    image.header.set_xyzt_units("mm")
    low, high = space.intensity_range
    if source.kind not in (vis.VOLUME_KIND_INTERMEDIATE, vis.VOLUME_KIND_FINAL):
        low, high = float(volume.min()), float(volume.max())
    image.header["cal_min"], image.header["cal_max"] = low, high
    random = "" if source.control is None else f"random weights ({source.control}) "
    of = f"{manifest.name}/{manifest.version} {random}{source.unit}"
    image.header["descrip"] = f"neurofv {of}".encode()[:79]
    data = igzip.compress(image.to_bytes(), compresslevel=1, mtime=0)
    begin = vis.VolumeBegin(
        id=source.id,
        item=source.item,
        kind=source.kind,
        format=vis.VOLUME_FORMAT_NIFTI1_GZ,
        step=source.step,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        shape=space.shape,
        affine=np.asarray(space.affine).ravel().tolist(),
        file_name=source.file_name,
    )
    return VolumeFile(begin, data)
