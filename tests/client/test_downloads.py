"""Volumes' files on their way in, on messages alone."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from neurofv import InvalidRequest, NeurofvError, VolumeCorrupt
from neurofv.downloads import Fetch, PartialFile, announced, assembled
from neurofv.errors import unreachable
from neurofv.retries import Patience
from neurofv.v1 import job_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis
from tests.client.streams import announcement, file_of, some_volume

DATA = file_of(some_volume())
BEGIN = announcement(DATA)


def piece(first: int, last: int, volume: vis.VolumeBegin | None = None) -> pb.ReadVolumeResponse:
    return pb.ReadVolumeResponse(volume=volume, offset=first, data=DATA[first:last])


def test_what_breaks_goes_on_at_its_last_byte() -> None:
    sink = io.BytesIO()
    fetch = Fetch("jobs/1", BEGIN, sink, Patience(60))
    fetch.take(piece(0, 100, BEGIN))
    assert fetch.broken(unreachable("host:1", "Socket closed")) < 1
    assert (fetch.next_call().offset, fetch.next_call().volume) == (100, "final")
    fetch.take(piece(100, len(DATA), BEGIN))
    fetch.end()
    assert fetch.over
    assert assembled(BEGIN, sink.getvalue()).bytes == DATA


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (piece(99, 200), "continues at byte 99"),
        (piece(101, 200), "continues at byte 101"),
        (piece(100, 200, announcement(DATA, sha256="0" * 64)), "another one"),
        (pb.ReadVolumeResponse(offset=100, data=bytes(len(DATA))), "longer"),
    ],
)
def test_pieces_that_do_not_fit_are_refused(wrong: pb.ReadVolumeResponse, words: str) -> None:
    fetch = Fetch("jobs/1", BEGIN, io.BytesIO(DATA[:100]), Patience(60))
    with pytest.raises(VolumeCorrupt, match=words) as caught:
        fetch.take(wrong)
    with pytest.raises(NeurofvError):
        fetch.broken(caught.value)


def test_an_end_too_early_is_found() -> None:
    fetch = Fetch("jobs/1", BEGIN, io.BytesIO(), Patience(60))
    fetch.take(piece(0, 100, BEGIN))
    with pytest.raises(VolumeCorrupt, match="ends after 100"):
        fetch.end()


@pytest.mark.parametrize("digest", ["", "../../../etc/x", "0" * 63 + "/"])
def test_a_digest_is_a_digest_before_it_names_a_file(digest: str) -> None:
    job = pb.Job(name="jobs/1", volumes=[announcement(DATA, sha256=digest)])
    with pytest.raises(VolumeCorrupt, match="no SHA-256"):
        announced(job, "final")


def test_the_names_of_a_server_are_no_paths(tmp_path: Path) -> None:
    file = PartialFile(tmp_path, announcement(DATA, file_name="../../x.nii.gz"))
    with file.open() as sink:
        sink.write(DATA)
    assert file.finish() == tmp_path / "x.nii.gz"
    with pytest.raises(InvalidRequest, match=r"\.nii\.gz"):
        PartialFile(tmp_path / "x.nii", BEGIN)
