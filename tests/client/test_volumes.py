from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurofv import InvalidRequest, Volume, VolumeCorrupt
from neurofv.files import write_atomically
from neurofv.v1 import visualization_service_pb2 as vis
from neurofv.volumes import Assembler
from tests.client.streams import AFFINE, SHAPE, announcement, carried, file_of, some_volume

DATA = file_of(some_volume())


def assemble(events: list[vis.VisualizeResponse]) -> Volume:
    assembler, volume = Assembler(), None
    for event in events:
        match event.WhichOneof("event"):
            case "volume_begin":
                assembler.begin(event.volume_begin)
            case "volume_chunk":
                assembler.chunk(event.volume_chunk)
            case "volume_end":
                volume = assembler.end(event.volume_end)
    assembler.close()
    assert volume is not None
    return volume


@given(st.lists(st.integers(0, len(DATA)), max_size=12))
def test_any_cutting_gives_the_same_volume(cuts: list[int]) -> None:
    assert assemble(carried(announcement(DATA), DATA, cuts)).bytes == DATA


def test_a_volume_knows_itself() -> None:
    volume = assemble(carried(announcement(DATA), DATA))
    image = volume.nifti()
    np.testing.assert_allclose(image.get_fdata(), some_volume(), atol=1e-6)
    np.testing.assert_array_equal(image.affine, AFFINE)
    np.testing.assert_array_equal(volume.affine, AFFINE)
    assert volume.shape == SHAPE == image.shape
    assert (volume.step, volume.final) == (3, True)


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_one_changed_byte_is_found(place: int, change: int) -> None:
    spoiled = bytearray(DATA)
    spoiled[place] ^= change
    with pytest.raises(VolumeCorrupt, match="SHA-256"):
        assemble(carried(announcement(DATA), bytes(spoiled)))


@given(st.data())
def test_a_lost_doubled_or_swapped_chunk_is_found(data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(1, len(DATA) - 1), min_size=2, max_size=6, unique=True))
    events = carried(announcement(DATA), DATA, cuts)
    place = data.draw(st.integers(1, len(cuts)))
    match data.draw(st.sampled_from(["lose", "double", "swap"])):
        case "lose":
            del events[place]
        case "double":
            events.insert(place, events[place])
        case "swap":
            events[place], events[place + 1] = events[place + 1], events[place]
    with pytest.raises(VolumeCorrupt):
        assemble(events)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bytes": len(DATA) - 1}, "longer than"),
        ({"bytes": len(DATA) + 1}, "ends after"),
        ({"bytes": 0}, "0 bytes"),
        ({"shape": (20, 24, 19)}, "shape"),
        ({"affine": np.diag([2.0, 2, 2, 1]).ravel().tolist()}, "affine"),
        ({"affine": [1.0]}, "affine"),
        ({"format": 7}, "format 7"),
    ],
)
def test_what_differs_from_the_announcement_is_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(VolumeCorrupt, match=words):
        assemble(carried(announcement(DATA, **changes), DATA))


@pytest.mark.parametrize(
    "data",
    [
        b"no archive",
        gzip.compress(b"short", mtime=0),
        gzip.compress(bytes(400), mtime=0),
        DATA[:40],
        gzip.compress(b"x" * 999, mtime=0),
    ],
)
def test_what_is_no_nifti_is_refused_although_its_digest_is_right(data: bytes) -> None:
    with pytest.raises(VolumeCorrupt, match="NIfTI"):
        assemble(carried(announcement(data), data))


def test_pieces_out_of_turn_are_refused() -> None:
    begin = announcement(DATA)
    with pytest.raises(VolumeCorrupt, match="not begun"):
        Assembler().chunk(vis.VolumeChunk(id="final", data=b"x"))
    with pytest.raises(VolumeCorrupt, match="not begun"):
        Assembler().end(vis.VolumeEnd(id="final"))
    assembler = Assembler()
    assembler.begin(begin)
    with pytest.raises(VolumeCorrupt, match="'other'"):
        assembler.chunk(vis.VolumeChunk(id="other", data=b"x"))
    with pytest.raises(VolumeCorrupt, match="breaks off"):
        assembler.begin(begin)
    with pytest.raises(VolumeCorrupt, match="breaks off"):
        assembler.close()


def test_save_writes_a_file_or_into_a_directory(tmp_path: Path) -> None:
    volume = assemble(carried(announcement(DATA), DATA))
    assert volume.save(tmp_path / "deep" / "a.nii.gz").read_bytes() == DATA
    assert volume.save(tmp_path) == tmp_path / "space-MNI152NLin6Asym_model-tiny_desc-final_fv.nii.gz"
    volume.save(f"{tmp_path}/new/")
    assert nibabel.load(tmp_path / "new" / volume.file_name).shape == SHAPE
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    for wrong in ("a.nii", "a", ".nii.gz", "a.nii.gz.txt"):
        with pytest.raises(InvalidRequest, match=r"\.nii\.gz"):
            volume.save(tmp_path / wrong)


@pytest.mark.parametrize(
    "name", ["../../evil.nii.gz", "/etc/passwd", "a\\..\\evil.nii.gz", "", ".hidden.nii.gz"]
)
def test_a_server_cannot_choose_the_directory(name: str, tmp_path: Path) -> None:
    volume = assemble(carried(announcement(DATA, file_name=name), DATA))
    assert volume.save(tmp_path).parent == tmp_path
    assert volume.file_name in {"evil.nii.gz", "volume.nii.gz"}


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    in_the_way = tmp_path / "a.nii.gz"
    in_the_way.mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(in_the_way, DATA)
    assert list(tmp_path.rglob("*")) == [in_the_way]
