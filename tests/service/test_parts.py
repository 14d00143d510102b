"""Small parts by themselves: the wire, NIfTI files, settings, the stubs."""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models import ZOO, read_bundle
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import OutOfMemory
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


@pytest.mark.parametrize(
    ("protos", "include", "home"),
    [("neurofv/v1", "proto", "client"), ("inference", "service/oip=proto/inference", ".")],
)
def test_the_stubs_are_those_of_the_contract(protos: str, include: str, home: str, tmp_path: Path) -> None:
    target = include.partition("=")[0] if "=" in include else protos
    files = sorted(f"{target}/{path.name}" for path in (ROOT / "proto" / protos).glob("*.proto"))
    out = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{include}", *out, *files], check=True, cwd=ROOT
    )
    made = sorted(tmp_path.rglob("*_pb2*"))
    assert len(made) == 3 * len(files) > 0
    for file in made:
        assert file.read_bytes() == (ROOT / home / file.relative_to(tmp_path)).read_bytes(), file.name
