"""A full disk and a locked database: clear statuses, nothing lost, and recovery without a restart."""

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc

from benchmarks.reliability.ledger import BODIES, Ledger
from benchmarks.reliability.site import Site, site
from neurofv.v1 import job_service_pb2 as jobs
from tests.service.requests import failure

# Long enough to run while the fault lasts.
_LONG = BODIES[0].replace("steps: 120", "steps: 1200").replace("snapshot_every: 15", "snapshot_every: 40")
_LOCK = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
held.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
held.execute("ROLLBACK")
"""


def measure(seconds: float = 8.0, disk_mib: int = 32) -> dict[str, object]:
    """Let both faults happen while jobs are created and run.

    Parameters
    ----------
    seconds : float
        How long each lasts.
    disk_mib : int
        Size of the disk that is filled.
    """
    return {"disk_full": disk_full(seconds, disk_mib), "locked": locked(seconds)}


def disk_full(seconds: float, disk_mib: int = 32) -> dict[str, object]:
    """Fill the server's disk for a while, and return what callers were told."""
    with tempfile.TemporaryDirectory(prefix="neurofv-disk-") as folder:
        data = Path(folder) / "data"
        data.mkdir()
        mounted = _mount(data, disk_mib)
        try:
            with site(data=data, checkpoint_seconds=0.3) as place:
                fault = _filled(data / "filler") if mounted else _files_limited(place.pid)
                found = _weather(place, fault, seconds, ("RESOURCE_EXHAUSTED", "STORAGE_FULL"))
        finally:
            if mounted:
                subprocess.run(["umount", "--lazy", str(data)], check=False)
    return {"how": "ENOSPC on a tmpfs" if mounted else "EFBIG by RLIMIT_FSIZE", **found}


def locked(seconds: float) -> dict[str, object]:
    """Let another process hold the database's lock for a while, and return what callers were told."""
    with site(checkpoint_seconds=0.3) as place:
        return _weather(place, _held(place.data / "jobs.sqlite3"), seconds, ("UNAVAILABLE", "STORAGE_BUSY"))


def _weather(
    place: Site, fault: "Callable[[], Iterator[None]]", seconds: float, wanted: tuple[str, str]
) -> dict[str, object]:
    """Have jobs created, running, watched, cancelled and read while a fault lasts."""
    ledger = Ledger(place)
    ledger.learn((*BODIES, _LONG))
    running = ledger.create(_LONG)
    ledger.create(BODIES[2])  # it waits
    while not running.watcher.history.steps:
        time.sleep(0.01)
    told, reads = Counter[str](), Counter[str]()
    slowest = 0.0
    with contextmanager(fault)():
        end = time.monotonic() + seconds
        during = running.watcher.history.last
        while time.monotonic() < end:
            begun = time.monotonic()
            told[_outcome(lambda: ledger.create_once_or_raise(BODIES[3]))] += 1
            slowest = max(slowest, time.monotonic() - begun)
            reads[_outcome(lambda: place.server.jobs.GetJob(_named(running.name), timeout=20))] += 1
            time.sleep(0.1)
    cleared = time.monotonic()
    while _outcome(lambda: ledger.create_once_or_raise(BODIES[3])) != "OK":
        time.sleep(0.05)
    recovered = time.monotonic() - cleared
    ledger.settle()
    found = ledger.check()
    faults = [*ledger.faults, *_wrong(place, told, reads, " ".join(wanted))]
    return {
        **found,
        "creations": dict(told),
        "reads": dict(reads),
        "slowest_refusal_s": round(slowest, 2),
        "seconds_until_taken_again": round(recovered, 2),
        "events_before": during,
        "audit_records": ledger.check_audit(),
        "faults": faults,
    }


def _wrong(place: Site, told: Counter[str], reads: Counter[str], wanted: str) -> Iterator[str]:
    """Say what callers were told that they should not have been, and what became of the server."""
    unclear = sorted(set(told) - {wanted, "OK"})
    if unclear:
        yield f"creations were told {', '.join(unclear)}"
    if not told[wanted]:
        yield f"no creation was told {wanted}, so the fault was none"
    if set(reads) != {"OK"}:
        yield f"GetJob was told {', '.join(sorted(reads))}"
    if place.starts != 1 or not place.alive:
        yield "the server had to be started again"
    if place.stop() != 0:
        yield "the server did not shut down in good order"


def _named(name: str) -> jobs.GetJobRequest:
    return jobs.GetJobRequest(name=name)


def _outcome(ask: Callable[[], object]) -> str:
    """Return OK, or the code and the reason that the caller was told."""
    try:
        ask()
    except grpc.RpcError as error:
        try:
            code, reason, _ = failure(error)
        except AssertionError:
            return f"{error.code().name} without a reason"
        return f"{code.name} {reason}"
    return "OK"


def _mount(folder: Path, mib: int) -> bool:
    """Mount a small disk, where that is allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", str(folder)]
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False


def _filled(filler: Path) -> Callable[[], Iterator[None]]:
    """Return a fault: a file that takes every byte that is left, and whatever becomes free meanwhile."""

    def fault() -> Iterator[None]:
        done = threading.Event()

        def fill() -> None:
            with filler.open("ab", buffering=0) as file:
                while True:
                    try:
                        file.write(bytes(4096))
                    except OSError:
                        if done.wait(0.005):
                            return

        filling = threading.Thread(target=fill, daemon=True)
        filling.start()
        time.sleep(0.2)
        try:
            yield
        finally:
            done.set()
            filling.join()
            filler.unlink()

    return fault


def _files_limited(pid: int) -> Callable[[], Iterator[None]]:
    """Return a fault: no file of the server's may grow, where a disk cannot be mounted."""

    def fault() -> Iterator[None]:
        soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))

    return fault


def _held(database: Path) -> Callable[[], Iterator[None]]:
    """Return a fault: another process in an exclusive transaction."""

    def fault() -> Iterator[None]:
        command = [sys.executable, "-c", _LOCK, str(database)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": ""}
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"locked\n"
            yield
            other.communicate()

    return fault
