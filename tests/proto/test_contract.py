"""What `make lint` asks of the contract: buf's rules, and that released clients go on working."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROTO = Path(__file__).parents[2] / "proto"
RELEASED = PROTO / "released.binpb"
BUF = Path(sys.executable).with_name("buf")


def _buf(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BUF, *arguments], capture_output=True, text=True, timeout=60)


def _change(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(proto: Path) -> None:
        text = (proto / file).read_text()
        assert text.count(old) == 1
        (proto / file).write_text(text.replace(old, new))

    return change


VISUALIZATION, JOBS = "neurofv/v1/visualization_service.proto", "neurofv/v1/job_service.proto"
BREAKS = {
    "a field renumbered": (
        _change(JOBS, "uint64 after_sequence = 2;", "uint64 after_sequence = 3;"),
        'field "2" with name "after_sequence"',
    ),
    "a field of another type": (
        _change(JOBS, "int64 offset = 3;", "string offset = 3;"),
        'changed type from "int64" to "string"',
    ),
    "a method taken away": (
        _change(JOBS, "  rpc PinJob(PinJobRequest) returns (PinJobResponse);\n", ""),
        'Previously present RPC "PinJob"',
    ),
    "a value of an enum taken away": (
        _change(VISUALIZATION, "  VOLUME_KIND_OPACITY = 5;\n", ""),
        'Previously present enum value "5"',
    ),
    "another protocol's field renumbered": (
        _change(
            "inference/open_inference.proto",
            "repeated bytes raw_input_contents = 7;",
            "repeated bytes raw_input_contents = 8;",
        ),
        "raw_input_contents",
    ),
}


@pytest.fixture
def proto(tmp_path: Path) -> Path:
    """A copy of the contract."""
    return Path(shutil.copytree(PROTO, tmp_path / "proto"))


def test_the_contract_follows_the_rules_and_breaks_nothing() -> None:
    for command in (("lint", PROTO), ("breaking", PROTO, "--against", RELEASED)):
        done = _buf(*command)
        assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize("what", BREAKS)
def test_a_change_that_breaks_clients_is_refused(proto: Path, what: str) -> None:
    change, complaint = BREAKS[what]
    change(proto)
    done = _buf("breaking", proto, "--against", RELEASED)
    assert done.returncode == 100
    assert complaint in done.stdout


def test_a_new_field_is_no_break(proto: Path) -> None:
    _change(JOBS, "uint64 after_sequence = 2;", "uint64 after_sequence = 2;\n  // New.\n  bool quiet = 3;")(
        proto
    )
    assert _buf("breaking", proto, "--against", RELEASED).returncode == 0


def test_a_field_without_a_comment_is_refused(proto: Path) -> None:
    _change(JOBS, "uint64 after_sequence = 2;", "uint64 after_sequence = 2;\n  bool quiet = 3;")(proto)
    done = _buf("lint", proto)
    assert done.returncode == 100
    assert 'Field "quiet" should have a non-empty comment' in done.stdout
