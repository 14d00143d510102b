from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from neurofv import InvalidRequest, Visualization, read_request
from neurofv.events import Collector
from tests.client.streams import AFFINE, SHAPE, a_request, a_stream, file_of, some_volume


def fold(**choices: Any) -> Visualization:
    collector = Collector()
    for response in a_stream(**choices):
        collector.take(response)
    return collector.result()


@pytest.fixture
def result() -> Visualization:
    return fold()


@pytest.fixture
def batch() -> Visualization:
    extras = {"gradient": np.ones(SHAPE), "jacobian": np.full(SHAPE, 2.0)}
    return fold(others=["torus", "sphere"], extras=extras)


def test_save_writes_volume_and_sidecar(result: Visualization, tmp_path: Path) -> None:
    nifti, sidecar = result.save(tmp_path / "cube.nii.gz")
    assert (nifti.name, sidecar.name) == ("cube.nii.gz", "cube.json")
    np.testing.assert_array_equal(nibabel.load(nifti).affine, AFFINE)
    record = json.loads(sidecar.read_text())
    described = ["file", "Description", "SpatialReference"]
    assert list(record) == [*described, "item", "job", "request", "evaluation", "provenance"]
    assert record["file"] == "cube.nii.gz"
    assert record["provenance"]["volume_sha256"] == result.volume.sha256
    assert record["provenance"]["synthetic"] is True
    assert "request" not in record["provenance"]
    assert result.provenance.HasField("request")
    assert record["evaluation"]["terms"][0]["real_p95"] == 8.0


def test_a_sidecar_gives_the_request_back(result: Visualization, tmp_path: Path) -> None:
    _, sidecar = result.save(tmp_path / "cube.nii.gz")
    assert read_request(sidecar) == a_request()


def test_zeros_are_written_out(result: Visualization) -> None:
    result.request.objective.terms[0].channel.layer = "blocks.0.conv"
    assert result.sidecar()["request"]["objective"]["terms"][0]["channel"]["channel"] == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"request": 3}', '{"request": {"color": "red"}}'])
def test_what_is_no_sidecar_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InvalidRequest, match="beside a volume"):
        read_request(path)


def test_an_image_of_a_person_is_put_back_into_the_request(result: Visualization, tmp_path: Path) -> None:
    result.request.subject.sha256 = "abc"
    _, sidecar = result.save(tmp_path / "cube.nii.gz")
    assert read_request(sidecar).subject.nifti == b""
    again = read_request(sidecar, subject=b"image")
    assert (again.subject.nifti, again.subject.sha256) == (b"image", "abc")


def test_extras_lie_beside_the_volume(batch: Visualization, tmp_path: Path) -> None:
    single = replace(batch, batch=())
    files = single.save(tmp_path / "cube.nii.gz")
    assert [path.name for path in files] == [
        *("cube.nii.gz", "cube.json", "cube_gradient.nii.gz", "cube_jacobian.nii.gz")
    ]
    assert (nibabel.load(files[-1]).get_fdata() == 2).all()
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_a_batch_is_saved_under_the_servers_names(batch: Visualization, tmp_path: Path) -> None:
    files = batch.save(tmp_path)
    start = "space-MNI152NLin6Asym_model-tiny_unit"
    assert [path.name for path in files] == [
        f"{start}-{item}_desc-{end}"
        for item in range(3)
        for end in ("final_fv.nii.gz", "final_fv.json", "gradient_fv.nii.gz", "jacobian_fv.nii.gz")
    ]
    for item, each in enumerate(batch.items):
        assert files[4 * item].read_bytes() == file_of(some_volume(item))
        record = json.loads(files[4 * item + 1].read_text())
        assert (record["file"], record["item"]) == (files[4 * item].name, item)
        assert record["evaluation"]["objective"] == each.evaluation.objective
        assert record["provenance"]["volume_sha256"] == each.volume.sha256
        assert read_request(files[4 * item + 1]) == a_request("torus", "sphere")


def test_a_batch_does_not_fit_into_one_file(batch: Visualization, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="directory for the 3 volumes") as caught:
        batch.save(tmp_path / "cube.nii.gz")
    assert str(tmp_path / "cube") in caught.value.remedy
    assert list(tmp_path.iterdir()) == []
    assert batch.save(tmp_path / "cube")[0].parent == tmp_path / "cube"
    # One of them does.
    assert batch.batch[1].save(tmp_path / "sphere.nii.gz")[0].is_file()


def test_volumes_of_the_same_name_do_not_replace_each_other(batch: Visualization, tmp_path: Path) -> None:
    for each in batch.items:
        each.volume.begin.file_name = "same.nii.gz"
    files = batch.save(tmp_path)
    assert len(set(files)) == len(files) == 12
    assert [path.name for path in files[::4]] == ["same.nii.gz", "same_item1.nii.gz", "same_item2.nii.gz"]
    assert files[4].read_bytes() == file_of(some_volume(1))


def test_names_for_people(result: Visualization, batch: Visualization) -> None:
    assert (result.label, result.title) == ("cube", "tiny/1 · cube")
    assert [each.title for each in batch.items] == ["tiny/1 · cube", "tiny/1 · torus", "tiny/1 · sphere"]
