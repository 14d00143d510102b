"""NIfTI files of results."""

import gzip
import hashlib
import re
from dataclasses import dataclass

import nibabel
import numpy as np

from models.manifest import Manifest
from neurofv.v1 import visualization_service_pb2 as vis

CHUNK_BYTES = 1 << 20
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


def encode(
    volume: np.ndarray, manifest: Manifest, unit: str, kind: "vis.VolumeKind", step: int
) -> VolumeFile:
    """Write a volume as gzip-compressed NIfTI-1 in the model's anatomical space.

    The same volume gives the same bytes: the archive holds no time stamp.

    Parameters
    ----------
    volume : ndarray, (X, Y, Z)
        On the model's grid, model units.
    manifest : Manifest
        Of the model.
    unit : str
        What is visualized, as `layer:channel` or a class.
    kind : VolumeKind
        Snapshot or result.
    step : int
        Steps done.

    Returns
    -------
    VolumeFile
        With its SHA-256.
    """
    space = manifest.input
    image = nibabel.Nifti1Image(np.asarray(volume, dtype=np.float32), np.asarray(space.affine))
    code = "mni" if space.space.startswith("MNI") else "aligned"
    image.set_sform(image.affine, code)
    image.set_qform(image.affine, code)
    image.header.set_xyzt_units("mm")
    low, high = space.intensity_range
    image.header["cal_min"], image.header["cal_max"] = low, high
    image.header["descrip"] = f"neurofv {manifest.name}/{manifest.version} {unit}".encode()[:79]
    data = gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)
    final = kind == vis.VOLUME_KIND_FINAL
    label = "final" if final else f"step{step:05d}"
    begin = vis.VolumeBegin(
        id=label,
        kind=kind,
        format=vis.VOLUME_FORMAT_NIFTI1_GZ,
        step=step,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        shape=space.shape,
        affine=np.asarray(space.affine).ravel().tolist(),
        file_name=_file_name(manifest, unit, label),
    )
    return VolumeFile(begin, data)


def events(begin: vis.VolumeBegin, data: bytes) -> list[vis.VisualizeResponse]:
    """Cut a volume into the events that carry it."""
    chunks = [
        vis.VisualizeResponse(
            volume_chunk=vis.VolumeChunk(id=begin.id, offset=offset, data=data[offset : offset + CHUNK_BYTES])
        )
        for offset in range(0, len(data), CHUNK_BYTES)
    ]
    end = vis.VisualizeResponse(volume_end=vis.VolumeEnd(id=begin.id))
    return [vis.VisualizeResponse(volume_begin=begin), *chunks, end]


def _file_name(manifest: Manifest, unit: str, label: str) -> str:
    """Name a file as BIDS derivatives do; a synthetic image has no subject."""
    layer, _, channel = unit.rpartition(":")
    entities = {
        "space": manifest.input.space,
        "model": manifest.name,
        "layer": layer,
        "unit": channel,
        "desc": label,
    }
    return "_".join(f"{key}-{_UNSAFE.sub('', value)}" for key, value in entities.items()) + "_fv.nii.gz"
