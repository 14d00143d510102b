from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from neurofv import InvalidRequest, build_request
from neurofv.images import nifti_bytes
from tests.client.streams import AFFINE, file_of, some_volume

DATA = file_of(some_volume())


def test_files_are_sent_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "subject.nii.gz"
    path.write_bytes(DATA)
    for given in (DATA, path, str(path)):
        assert build_request("m", class_name="c", subject=given).subject.nifti == DATA
    with pytest.raises(FileNotFoundError):
        nifti_bytes(tmp_path / "none.nii", "subject")


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image, nibabel.MGHImage])
def test_an_image_of_nibabel_keeps_its_voxels_and_its_place(kind: type) -> None:
    image = kind(some_volume().astype(np.float32), AFFINE)
    data = nifti_bytes(image, "subject")
    read = nibabel.Nifti1Image.from_bytes(gzip.decompress(data))
    np.testing.assert_array_equal(read.get_fdata(), image.get_fdata())
    np.testing.assert_allclose(read.affine, AFFINE)
    assert nifti_bytes(image, "subject") == data


@pytest.mark.parametrize(
    ("name", "words"),
    [("", "folder.*dcm2niix"), ("IM0001", "DICOM.*dcm2niix"), ("brain.hdr", "pair"), ("brain.img", "pair")],
)
def test_what_is_no_image_by_itself_is_refused(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(100))
    pair = nibabel.Nifti1Pair(some_volume(), AFFINE)
    nibabel.save(pair, tmp_path / "brain.img")
    with pytest.raises(InvalidRequest, match=words):
        nifti_bytes(tmp_path / name, "subject")
