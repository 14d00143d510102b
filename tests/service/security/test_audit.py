"""The audit log: nothing in it changes unseen, and nothing is lost by a crash."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurofv.audit_log import Verdict, read_head, read_lines, verify
from service.errors import StorageFull
from service.security.audit import AuditBroken, AuditLog
from service.security.identity import Principal, Role

ANN = Principal("ann", Role.SUBMITTER)
ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of six records."""
    file = tmp_path / "audit.log"
    log = AuditLog(file)
    for number in range(6):
        log.record(ANN, "job.create", f"jobs/{number}", model="lesion-shapes", steps=number, note="ünï\n")
    log.close()
    return file


def _check(path: Path, head: str | None = None) -> Verdict:
    return verify(read_lines(path), head)


def test_a_log_verifies_and_goes_on(path: Path) -> None:
    verdict = _check(path)
    assert (verdict.records, verdict.fault) == (6, None)
    assert read_head(path) == verdict.head
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(Path(f"{path}.head").stat().st_mode) == 0o600
    log = AuditLog(path)
    log.record("server", "job.expire", "jobs/1")
    assert len(list(log.lines(4))) == 3
    log.close()
    assert _check(path, verdict.head).fault is None
    assert path.read_bytes().isascii()


def test_values_are_bounded_and_escaped(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log")
    facts = {f"fact_{number}": "\x1b[31m\u2028" + 9000 * "ä" for number in range(60)}
    log.record("a\nb" * 500, "x", "y", **facts, **{"Not a name": 1})  # type: ignore[arg-type]
    log.close()
    line = (tmp_path / "log").read_bytes()
    assert line.count(b"\n") == 1
    assert len(line) < 70_000
    assert b"\x1b" not in line
    assert _check(tmp_path / "log").fault is None


def _lines(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


TAMPERED = {
    "altered": (lambda lines: [*lines[:2], lines[2].replace(b'"ann"', b'"bob"'), *lines[3:]], 3, "altered"),
    "removed": (lambda lines: lines[:2] + lines[3:], 3, "records 3 to 3 were removed"),
    "first removed": (lambda lines: lines[1:], 1, "records 1 to 1 were removed"),
    "duplicated": (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4, "repeated"),
    "reordered": (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], 3, "moved"),
    "written with blanks": (lambda lines: [lines[0].replace(b",", b", "), *lines[1:]], 1, "altered"),
    "a line of something else": (lambda lines: [*lines[:1], b"{}\n", *lines[1:]], 2, "no record"),
    "an empty line": (lambda lines: [*lines[:1], b"\n", *lines[1:]], 2, "no record"),
    "torn": (lambda lines: [*lines[:5], lines[5][:40]], 6, "no record"),
}


@pytest.mark.parametrize(("change", "sequence", "words"), TAMPERED.values(), ids=TAMPERED)
def test_what_was_changed_is_named(path: Path, change: Callable, sequence: int, words: str) -> None:
    _lines(path, change)
    fault = _check(path).fault
    assert fault is not None
    assert (fault.sequence, words in fault.what) == (sequence, True), fault


def test_a_record_that_was_replaced_with_a_good_hash_breaks_the_next_link(path: Path, tmp_path: Path) -> None:
    other = AuditLog(tmp_path / "other")
    for _ in range(3):
        other.record("eve", "job.create", "jobs/2")
    other.close()
    forged = (tmp_path / "other").read_bytes().splitlines(keepends=True)
    _lines(path, lambda lines: forged[:3] + lines[3:])
    fault = _check(path).fault
    assert fault is not None
    assert (fault.sequence, "replaced" in fault.what) == (4, True)


def test_a_cut_end_is_found_with_a_head(path: Path) -> None:
    head = _check(path).head
    _lines(path, lambda lines: lines[:-1])
    assert _check(path).fault is None
    fault = _check(path, head).fault
    assert fault is not None
    assert (fault.sequence, "cut off" in fault.what) == (6, True)
    with pytest.raises(AuditBroken, match="line 6"):
        AuditLog(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_found(path: Path, data: st.DataObject) -> None:
    good = path.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != good[at]))
    try:
        path.write_bytes(good[:at] + bytes([byte]) + good[at + 1 :])
        assert _check(path).fault is not None
        with pytest.raises(AuditBroken, match="line"):
            AuditLog(path)
    finally:
        path.write_bytes(good)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_removed_or_added_bytes_are_found(path: Path, data: st.DataObject) -> None:
    good, head = path.read_bytes(), _check(path).head
    at = data.draw(st.integers(0, len(good) - 1))
    removed = data.draw(st.integers(0, 400))
    added = data.draw(st.binary(max_size=20))
    bad = good[:at] + added + good[at + removed :]
    try:
        path.write_bytes(bad)
        assert (_check(path, head).fault is None) == (bad == good)
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize("kept", [1, 60, -1])
def test_a_torn_last_line_is_cut_off_and_told(path: Path, kept: int) -> None:
    """The record whose writing was interrupted was never acknowledged: its act has not begun."""
    log = AuditLog(path)
    before = path.read_bytes()
    log.record(ANN, "job.cancel", "jobs/1")
    whole = path.read_bytes()[len(before) :]
    log.close()
    path.write_bytes(before + whole[:kept])
    Path(f"{path}.head").write_text(f"{6:020d} {_check_head(before)}\n")
    AuditLog(path).close()
    *_, last = read_lines(path)
    assert '"action":"audit.recovered"' in last
    assert f'"bytes_cut":{len(whole[:kept])}' in last
    assert _check(path, read_head(path)).records == 7


def _check_head(content: bytes) -> str:
    return verify(content.decode().splitlines()).head


def test_a_head_behind_the_log_is_what_a_crash_leaves(path: Path) -> None:
    lines = path.read_text().splitlines()
    Path(f"{path}.head").write_text(f"{4:020d} {verify(lines[:4]).head}\n")
    log = AuditLog(path)
    assert log.head == (6, verify(lines).head)
    log.close()
    assert read_head(path) == verify(lines).head


@pytest.mark.parametrize("text", ["", "hello\n", f"{9:020d} {64 * '0'}\n", f"{6:020d} {64 * 'a'}\n", None])
def test_a_head_that_does_not_fit_refuses_the_start(path: Path, text: str | None) -> None:
    head = Path(f"{path}.head")
    head.unlink() if text is None else head.write_text(text)
    with pytest.raises(AuditBroken):
        AuditLog(path)


def test_a_removed_log_is_noticed(path: Path) -> None:
    path.unlink()
    with pytest.raises(AuditBroken, match="6 records"):
        AuditLog(path)


def test_one_server_writes_a_log(path: Path) -> None:
    first = AuditLog(path)
    with pytest.raises(AuditBroken, match="another server"):
        AuditLog(path)
    first.close()
    AuditLog(path).close()


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic"):
        AuditLog(tmp_path / "link")


def test_a_full_disk_refuses_and_leaves_the_log_whole(path: Path) -> None:
    log = AuditLog(path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # The system writes what there is room for, then refuses, as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, hard))
        for _ in range(3):
            with pytest.raises(StorageFull):
                log.record(ANN, "job.create", "jobs/9")
            assert path.read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.record(ANN, "job.create", "jobs/10")
    log.close()
    assert _check(path, read_head(path)).records == 7


def test_many_threads_write_one_chain(path: Path) -> None:
    log = AuditLog(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: log.record(ANN, "job.create", f"jobs/{number}"), range(200)))
    log.close()
    assert _check(path, read_head(path)) == Verdict(206, read_head(path) or "")


WRITER = """
import sys, itertools
from pathlib import Path
from service.security.audit import AuditLog
log = AuditLog(Path(sys.argv[1]))
for number in itertools.count():
    log.record("ann", "job.create", f"jobs/{number}")
    print(number, flush=True)
"""


@pytest.mark.parametrize("passes", [1, 3, 40])
def test_a_killed_writer_loses_nothing_that_was_acknowledged(tmp_path: Path, passes: int) -> None:
    path, flag = tmp_path / "audit.log", tmp_path / "flag"
    flag.touch()
    environment = os.environ | {"NEUROFV_FAILPOINT": f"audit.after_write:{passes}:{flag}"}
    run = subprocess.run(
        [sys.executable, "-c", WRITER, str(path)], env=environment, cwd=ROOT, capture_output=True, check=False
    )
    assert run.returncode == -signal.SIGKILL
    assert len(run.stdout.split()) == passes - 1
    AuditLog(path).close()
    assert _check(path, read_head(path)).records == passes


def test_writers_killed_at_random_moments_leave_a_chain(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "audit.log", 0
    for wait in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            for _ in range(1 + 37 * wait):
                writer.stdout.readline()
            writer.kill()
            acknowledged += 1 + 37 * wait + len(writer.stdout.read().splitlines())
    AuditLog(path).close()
    verdict = _check(path, read_head(path))
    assert verdict.fault is None
    assert acknowledged <= verdict.records <= acknowledged + 2 * 8
