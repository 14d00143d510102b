"""Small parts by themselves: the wire, a job's outbox, NIfTI files, settings, the stubs."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models import ZOO, read_bundle
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import OutOfMemory
from service.jobs.job import Job, JobFailed, Outcome
from service.settings import Settings
from service.status import reason_of, to_status
from service.volumes import nifti
from service.worker import wire

ROOT = Path(__file__).parents[2]
MANIFEST = read_bundle(ZOO / "lesion-shapes" / "1").manifest


@given(kind=st.sampled_from(wire.Kind), job=st.integers(0, 2**64 - 1), data=st.binary(max_size=3000))
def test_frames_survive_the_wire(kind: wire.Kind, job: int, data: bytes) -> None:
    frame = wire.Frame(kind, job, data)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(frame.encode())
        assert wire.receive(theirs) == frame
        ours.sendall(frame.encode()[:5])
        ours.close()
        with pytest.raises(EOFError):
            wire.receive(theirs)


def test_an_absurd_frame_is_refused_before_it_is_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(wire._HEADER.pack(wire.Kind.EVENT, 1, 2**40))
        with pytest.raises(ConnectionError, match="larger than any volume"):
            wire.receive(theirs)


def _file(step: int, kind: int = vis.VOLUME_KIND_INTERMEDIATE, size: int = 10) -> nifti.VolumeFile:
    begin = vis.VolumeBegin(id=f"v{step}", kind=kind, step=step, bytes=size)
    return nifti.VolumeFile(begin, bytes(size))


async def _collect(job: Job) -> list[vis.VisualizeResponse]:
    return [event async for event in job.stream()]


def test_unread_snapshots_give_way_to_newer_ones() -> None:
    job = Job(1, vis.VisualizeRequest())
    for step in range(1, 6):
        job.publish(vis.VisualizeResponse(progress=vis.Progress(step=step)))
        job.publish(_file(step))
    job.publish(_file(6, vis.VOLUME_KIND_FINAL))
    assert job.end(
        Outcome(vis.JOB_STATE_SUCCEEDED, completed=vis.VisualizeResponse(completed=vis.Completed()))
    )
    assert not job.end(Outcome(vis.JOB_STATE_FAILED))
    events = asyncio.run(_collect(job))
    assert [event.volume_begin.id for event in events if event.HasField("volume_begin")] == ["v5", "v6"]
    assert [event.progress.step for event in events if event.HasField("progress")] == [1, 2, 3, 4, 5]
    assert job.coalesced == 4
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


def test_a_failed_job_raises_its_status_after_the_last_event() -> None:
    job = Job(1, vis.VisualizeRequest())
    job.end(Outcome(vis.JOB_STATE_FAILED, status_pb2.Status(code=13, message="why")))
    seen = []

    async def follow() -> None:
        async for event in job.stream():
            seen.append(event)

    with pytest.raises(JobFailed, match="why"):
        asyncio.run(follow())
    assert seen[-1].state_changed.state == vis.JOB_STATE_FAILED


@pytest.mark.parametrize("size", [1, nifti.CHUNK_BYTES, nifti.CHUNK_BYTES + 1, 3 * nifti.CHUNK_BYTES])
def test_chunks_cover_the_file(size: int) -> None:
    file = _file(1, size=size)
    begin, *chunks, end = nifti.events(file.begin, file.data)
    assert begin.HasField("volume_begin")
    assert end.HasField("volume_end")
    assert b"".join(chunk.volume_chunk.data for chunk in chunks) == file.data
    assert all(0 < len(chunk.volume_chunk.data) <= 1 << 20 for chunk in chunks)


def test_the_same_volume_gives_the_same_bytes() -> None:
    volume = np.random.default_rng(0).random(MANIFEST.input.shape)
    source = nifti.Source(MANIFEST, "classifier:2", vis.VOLUME_KIND_FINAL, 9)
    files = [nifti.encode(volume, source) for _ in range(2)]
    assert files[0] == files[1]
    assert files[0].begin.bytes == len(files[0].data)


def test_what_was_not_foreseen_stays_in_the_log() -> None:
    status = to_status(RuntimeError("the password is swordfish"))
    assert status.code == 13
    assert "swordfish" not in status.SerializeToString().decode("latin-1")
    assert reason_of(status) == "INTERNAL"


def test_a_device_out_of_memory_is_said_as_such() -> None:
    status = to_status(RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"))
    assert (status.code, reason_of(status)) == (8, OutOfMemory.reason)


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "neurofv.toml"
    file.write_text('port = 6000\nqueue_length = 3\nlog_level = "error"\n')
    monkeypatch.setenv("NEUROFV_CONFIG", str(file))
    monkeypatch.setenv("NEUROFV_PORT", "7000")
    settings = Settings()
    assert (settings.port, settings.queue_length, settings.log_level) == (7000, 3, "error")
    assert settings.repository == ZOO
    file.write_text("prot = 1\n")
    with pytest.raises(ValidationError, match="prot"):
        Settings()


def test_the_stubs_are_those_of_the_contract(tmp_path: Path) -> None:
    protos = sorted(path.relative_to(ROOT / "proto") for path in (ROOT / "proto").rglob("*.proto"))
    out = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", *out, *map(str, protos)]
    subprocess.run(command, check=True, cwd=ROOT / "proto")
    made = sorted(tmp_path.rglob("*_pb2*"))
    assert len(made) == 3 * len(protos)
    for file in made:
        assert file.read_bytes() == (ROOT / "client" / file.relative_to(tmp_path)).read_bytes(), file.name
