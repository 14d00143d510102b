"""Volumes on their way in: from chunks to verified NIfTI files."""

import gzip
import hashlib
import io
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from neurofv.errors import InvalidRequest, VolumeCorrupt
from neurofv.files import write_atomically
from neurofv.v1 import visualization_service_pb2 as vis

SUFFIX = ".nii.gz"


@dataclass(frozen=True)
class Volume:
    """A volume that arrived complete and is what was announced.

    Attributes
    ----------
    begin : VolumeBegin
        Its announcement.
    bytes : bytes
        The file: gzip-compressed NIfTI-1.
    """

    begin: vis.VolumeBegin
    bytes: bytes

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        return self.begin.sha256

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each array axis."""
        return tuple(self.begin.shape)

    @property
    def affine(self) -> np.ndarray:
        """Voxel indices to mm, (4, 4)."""
        return np.array(self.begin.affine).reshape(4, 4)

    @property
    def step(self) -> int:
        """Optimizer steps done when it was taken."""
        return self.begin.step

    @property
    def id(self) -> str:
        """Its name in the stream; the provenance lists digests by it."""
        return self.begin.id

    @property
    def item(self) -> int:
        """Which volume of the batch it belongs to, from 0."""
        return self.begin.item

    @property
    def kind(self) -> str:
        """What it is: `intermediate`, `final`, `gradient`, `jacobian` or `opacity`.

        Empty for what only a newer server knows.
        """
        value = vis.VolumeKind.DESCRIPTOR.values_by_number.get(self.begin.kind)
        return value.name.removeprefix("VOLUME_KIND_").lower() if value else ""

    @property
    def final(self) -> bool:
        """Whether it is the result, and neither a snapshot nor a companion of the result."""
        return self.begin.kind == vis.VOLUME_KIND_FINAL

    @property
    def file_name(self) -> str:
        """The server's name for the file, in the manner of BIDS derivatives; never a path."""
        name = PurePosixPath(self.begin.file_name.replace("\\", "/")).name
        return name if name.endswith(SUFFIX) and not name.startswith(".") else f"volume{SUFFIX}"

    def nifti(self) -> nibabel.Nifti1Image:
        """Return the volume as an image: float32, model units, the model's anatomical space."""
        return nibabel.Nifti1Image.from_bytes(gzip.decompress(self.bytes))

    def save(self, path: str | Path) -> Path:
        """Write the file.

        Parameters
        ----------
        path : str or Path
            A name that ends in `.nii.gz`, or a directory, in which `file_name` is used.

        Returns
        -------
        Path
            Where it lies.

        Raises
        ------
        InvalidRequest
            The name has another ending.
        """
        path = target_path(path, self.file_name)
        write_atomically(path, self.bytes)
        return path


def target_path(path: str | Path, file_name: str) -> Path:
    """Return where a volume is to lie.

    Parameters
    ----------
    path : str or Path
        A name that ends in `.nii.gz`, or a directory.
    file_name : str
        The name to take within a directory.

    Raises
    ------
    InvalidRequest
        It is neither.
    """
    given, path = path, Path(path)
    if path.is_dir() or str(given).endswith(("/", "\\")):
        return path / file_name
    if not path.name.endswith(SUFFIX) or path.name == SUFFIX:
        raise InvalidRequest("path", str(given), f"name a file that ends in {SUFFIX}, or a directory")
    return path


class Assembler:
    """Puts one volume after another together from the events that carry them."""

    def __init__(self) -> None:
        self._begin: vis.VolumeBegin | None = None
        self._data = bytearray()

    def begin(self, begin: vis.VolumeBegin) -> None:
        """Take an announcement.

        Raises
        ------
        VolumeCorrupt
            The volume before is not complete, or this one is of no known format.
        """
        self.close()
        if begin.format != vis.VOLUME_FORMAT_NIFTI1_GZ:
            raise VolumeCorrupt(
                f"volume {begin.id!r} has format {begin.format}, which this client cannot read; update it"
            )
        if len(begin.affine) != 16 or begin.bytes <= 0:
            raise VolumeCorrupt(
                f"volume {begin.id!r} is announced with {begin.bytes} bytes "
                f"and {len(begin.affine)} numbers in its affine"
            )
        self._begin, self._data = begin, bytearray()

    def chunk(self, chunk: vis.VolumeChunk) -> None:
        """Take a piece.

        Raises
        ------
        VolumeCorrupt
            It is not the next piece of the volume that has begun.
        """
        begin = self._open(chunk.id)
        if chunk.offset != len(self._data):
            raise VolumeCorrupt(
                f"volume {begin.id!r} continues at byte {chunk.offset}, but {len(self._data)} have arrived"
            )
        if len(self._data) + len(chunk.data) > begin.bytes:
            raise VolumeCorrupt(f"volume {begin.id!r} is longer than the {begin.bytes} bytes announced")
        self._data += chunk.data

    def end(self, end: vis.VolumeEnd) -> Volume:
        """Verify and return the volume.

        Raises
        ------
        VolumeCorrupt
            Bytes are missing, or length, digest, shape or affine differ from the announcement.
        """
        begin, data = self._open(end.id), bytes(self._data)
        if len(data) != begin.bytes:
            raise VolumeCorrupt(f"volume {begin.id!r} ends after {len(data)} of {begin.bytes} bytes")
        if (digest := hashlib.sha256(data).hexdigest()) != begin.sha256:
            raise VolumeCorrupt(f"volume {begin.id!r} has SHA-256 {digest}, announced was {begin.sha256}")
        _check_header(begin, data)
        self._begin, self._data = None, bytearray()
        return Volume(begin, data)

    def drop(self, volume_id: str) -> None:
        """Forget what has come of a volume, if it is the one that is open."""
        if self._begin is not None and self._begin.id == volume_id:
            self._begin, self._data = None, bytearray()

    def close(self) -> None:
        """Make sure that no volume is open.

        Raises
        ------
        VolumeCorrupt
            One has begun and did not end.
        """
        if self._begin is not None:
            raise VolumeCorrupt(
                f"volume {self._begin.id!r} breaks off after {len(self._data)} of {self._begin.bytes} bytes"
            )

    def _open(self, volume_id: str) -> vis.VolumeBegin:
        if self._begin is None or self._begin.id != volume_id:
            raise VolumeCorrupt(f"a piece of volume {volume_id!r} has come, which has not begun")
        return self._begin


def _check_header(begin: vis.VolumeBegin, data: bytes) -> None:
    """Compare the file's own shape and affine with the announcement."""
    try:
        # Only the header is unpacked.
        with gzip.open(io.BytesIO(data)) as file:
            header = nibabel.Nifti1Header.from_fileobj(file)
    except (OSError, EOFError, zlib.error, WrapStructError, HeaderDataError) as error:
        raise VolumeCorrupt(f"volume {begin.id!r} is no gzip-compressed NIfTI-1 file: {error}") from None
    shape = header.get_data_shape()
    if tuple(shape) != tuple(begin.shape):
        raise VolumeCorrupt(f"volume {begin.id!r} has shape {shape}, announced was {tuple(begin.shape)}")
    announced = np.array(begin.affine).reshape(4, 4)
    # The file holds its affine in float32.
    if not np.allclose(header.get_best_affine(), announced, rtol=1e-5, atol=1e-4):
        raise VolumeCorrupt(f"volume {begin.id!r} has another affine than announced")
