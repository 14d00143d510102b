"""Real images, and where their classes come from."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from neurofv import InvalidRequest
from neurofv.audit.images import digest_of, examples, find_images
from neurofv.audit.plan import read_plan
from neurofv.v1 import model_service_pb2 as pb

MODEL = pb.Model(name="m", classes=["F", "M"])


def images(folder: Path, **fields: Any) -> Any:
    content = {"audit": 1, "model": "m", "units": [{"classes": "all"}], "images": str(folder), **fields}
    return find_images(read_plan(content), MODEL)


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_folders_name_classes(tmp_path: Path) -> None:
    write(tmp_path, "F/a.nii.gz", "M/b.nii", "others/c.mgz", "d.nii.gz", "F/notes.txt", "F/a_mask.nii.gz")
    found = images(tmp_path)
    assert {image.name: image.class_name for image in found} == {
        **{"F/a.nii.gz": "F", "M/b.nii": "M", "others/c.mgz": "", "d.nii.gz": ""}
    }
    before = digest_of(found)
    (tmp_path / "d.nii.gz").write_bytes(b"another")
    assert digest_of(images(tmp_path)) != before
    assert digest_of([]) == ""


def test_a_column_of_the_participants_names_classes(tmp_path: Path) -> None:
    write(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz", "sub-03_T1w.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tsex\nsub-01\tF\nsub-02\tM\nsub-03\tX\n")
    found = images(tmp_path, labels="sex")
    assert [image.class_name for image in found] == ["F", "M", ""]
    with pytest.raises(InvalidRequest, match="it has: participant_id, sex") as caught:
        images(tmp_path, labels="age")
    assert caught.value.field == "labels"
    (tmp_path / "participants.tsv").write_bytes("participant_id\tsex\nsub-01\tmännlich\n".encode("latin-1"))
    with pytest.raises(InvalidRequest, match="no UTF-8"):
        images(tmp_path, labels="sex")
    (tmp_path / "participants.tsv").unlink()
    with pytest.raises(InvalidRequest, match=r"participants\.tsv"):
        images(tmp_path, labels="sex")


def test_labels_that_are_not_the_models_classes_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz")
    table = tmp_path / "participants.tsv"
    for second in ("F", "n/a", "other"):
        table.write_text(f"participant_id\tsex\nsub-01\tF\nsub-02\t{second}\n")
        assert images(tmp_path, labels="sex")[0].class_name == "F"
    table.write_text("participant_id\tsex\nsub-01\tfemale\nsub-02\tmale\n")
    with pytest.raises(
        InvalidRequest, match="holds female, male, but the model's classes are F, M"
    ) as caught:
        images(tmp_path, labels="sex")
    assert (caught.value.field, caught.value.value) == ("labels", "sex")
    table.write_text("participant_id\tsex\n01\tF\n02\tM\n")
    with pytest.raises(InvalidRequest, match=r"which has 01, 02; sub-01_T1w\.nii\.gz is an image"):
        images(tmp_path, labels="sex")


def test_an_audits_own_files_are_no_images(tmp_path: Path) -> None:
    volumes = "audit/derivatives/neurofv/model-m_desc-final_fv.nii.gz"
    write(tmp_path, "F/a.nii.gz", "reference.nii.gz", "audit/reference.nii.gz", "audit/run.json", volumes)
    assert [image.name for image in images(tmp_path)] == ["F/a.nii.gz", "reference.nii.gz"]


def test_examples_are_sent_on_the_models_grid(tmp_path: Path) -> None:
    for name in ("F/a.nii", "M/b.nii"):
        (tmp_path / name).parent.mkdir()
        nibabel.save(nibabel.Nifti1Image(np.ones((80, 80, 80)), np.diag([1.0, 1, 1, 1])), tmp_path / name)
    space = pb.InputSpace(shape=[20, 20, 20], affine=np.diag([4.0, 4, 4, 1]).ravel())
    sent = examples(images(tmp_path), pb.Model(classes=["F", "M"], input=space))
    assert list(sent) == ["F", "M"]
    for [data] in sent.values():
        assert len(data) < 10_000
        volume = nibabel.Nifti1Image.from_bytes(gzip.decompress(data))
        assert volume.shape == (20, 20, 20)
        np.testing.assert_allclose(volume.get_fdata()[:19], 1, atol=1e-6)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"holds \.nii"):
        images(tmp_path)
    write(tmp_path, "F/a.nii.gz", "F/b.nii.gz", "M/c.nii.gz")
    paths = {"controls": {"real_images": True}}
    with pytest.raises(InvalidRequest, match="2 of F, 1 of M") as caught:
        images(tmp_path, **paths)
    assert caught.value.field == "controls.real_images"
    # One of another class is enough where only one is driven.
    assert len(images(tmp_path, **paths, units=[{"classes": ["F"]}])) == 3
