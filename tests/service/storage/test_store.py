"""The jobs' store, on SQLite and on a real PostgreSQL."""

import hashlib
import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import ArtifactCorrupt, RequestIdReused, StorageBusy
from service.jobs.job import Job, Outcome, first_events
from service.observability.metrics import Metrics
from service.storage import files, schema
from service.storage.database import StorageUnusable
from service.storage.records import Change, Checkpoint, Record
from service.storage.store import Store
from service.volumes.nifti import VolumeFile

_SERVER_PROGRAMS = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of the test's own, on a free port; its URL."""
    if _SERVER_PROGRAMS is None:
        assert not os.environ.get("CI"), "install Debian's package postgresql"
        pytest.skip("PostgreSQL is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The server refuses to run as root, and root's temporary folders are closed to others.
    folder = Path(f"/tmp/neurofv-postgres-{os.getpid()}")
    folder.mkdir()
    user: dict[str, Any] = {}
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": folder}
    init = [_SERVER_PROGRAMS / "initdb", "-D", folder / "db", "-U", "neurofv", "-A", "trust", "-E", "UTF8"]
    subprocess.run(init, check=True, stdout=subprocess.DEVNULL, **user)
    command = [_SERVER_PROGRAMS / "postgres", "-D", folder / "db", "-p", str(port), "-h", "127.0.0.1"]
    with subprocess.Popen([*command, "-k", folder], stderr=subprocess.DEVNULL, **user) as server:
        url = f"postgresql+psycopg://neurofv@127.0.0.1:{port}/postgres"
        _await(url)
        yield url
        server.terminate()
    shutil.rmtree(folder)


def _await(url: str) -> None:
    engine = create_engine(url)
    end = time.monotonic() + 60
    while True:
        try:
            with engine.connect():
                break
        except Exception:
            assert time.monotonic() < end
            time.sleep(0.1)
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return ""
    found: str = request.getfixturevalue("postgres")
    engine = create_engine(found)
    with engine.begin() as connection:
        for table in schema.metadata.tables:
            connection.execute(text(f'DROP TABLE IF EXISTS "{table}"'))
    engine.dispose()
    return found


@pytest.fixture
def open_store(url: str, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """What opens the store, again and again."""
    opened: list[Store] = []

    def again() -> Store:
        for former in opened:
            former.close()
        opened[:] = [Store(url, tmp_path, Metrics({}), lambda change: None)]
        return opened[0]

    yield again
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    """An empty store."""
    return open_store()


def _row(number: int, owner: str = "ann") -> dict[str, Any]:
    empty = {"share_method": b"", "share_volumes": 1, "share_voxels": 1, "private": b"with images"}
    counts = dict.fromkeys(("told", "step", "crashes", "stored_bytes"), 0)
    named = {"id": f"{number:032x}", "owner": owner, "model": "m", "version": 1, "digest": "d"}
    state = {"state": int(vis.JOB_STATE_QUEUED), "created": time.time(), "pinned": False}
    return {**empty, **counts, **named, **state, "request": b"bare", "voxel_steps": 10, "last_sequence": 2}


def _create(store: Store, number: int, request_id: str = "", body: str = "", owner: str = "ann") -> Record:
    row = _row(number, owner)
    events = first_events(f"jobs/{row['id']}", vis.VisualizeRequest(model="m"))
    record, _ = store.create(row, events, request_id, body, time.time() + 60)
    return record


def _file(name: str, data: bytes, kind: "vis.VolumeKind" = vis.VOLUME_KIND_FINAL) -> VolumeFile:
    digest = hashlib.sha256(data).hexdigest()
    return VolumeFile(vis.VolumeBegin(id=name, kind=kind, bytes=len(data), sha256=digest), data)


def test_a_job_outlives_the_process(open_store: Callable[[], Store]) -> None:
    record = _create(open_store(), 7)
    store = open_store()
    assert store.get(record.id) == record
    assert store.unfinished() == [record]
    assert store.request(record.number) == b"with images"
    assert [event.WhichOneof("event") for event in store.events(record.number, 0, 10)] == [
        "accepted",
        "state_changed",
    ]


def test_a_request_id_gives_one_job(store: Store) -> None:
    first = _create(store, 1, "mine", "body")
    assert _create(store, 2, "mine", "body").id == first.id
    with pytest.raises(RequestIdReused):
        _create(store, 3, "mine", "other")
    assert _create(store, 4, "mine", "other", owner="bob").id != first.id
    assert store.known("ann", "mine", "body") == first
    assert store.known("ann", "yours", "body") is None
    assert len(store.page("", [], "", 0, 10)) == 2


def test_a_request_id_is_forgotten_when_its_day_is_over(store: Store) -> None:
    row = _row(1)
    events = first_events("jobs/x", vis.VisualizeRequest())
    store.create(row, events, "mine", "body", time.time() - 1)
    assert store.known("ann", "mine", "other") is None
    assert _create(store, 2, "mine", "other").id != row["id"]


def test_what_happens_is_stored_whole(open_store: Callable[[], Store]) -> None:
    store = open_store()
    job = Job(_create(store, 1))
    changes = [
        job.move(vis.JOB_STATE_RUNNING),
        job.tell(vis.VisualizeResponse(progress=vis.Progress(step=1))),
        job.save(Checkpoint(1, 1, b"one")),
        job.keep(_file("step1", b"snap", vis.VOLUME_KIND_INTERMEDIATE), 100),
        job.save(Checkpoint(2, 2, b"two")),
        job.keep(_file("final", b"whole"), 100),
        job.save(Checkpoint(3, 3, b"three")),
    ]
    store.commit(changes)
    store = open_store()
    (record,) = store.unfinished()
    assert (record.last_sequence, record.told, record.step) == (6, 3, 1)
    assert [event.sequence for event in store.events(record.number, 0, 99)] == [1, 2, 3, 4, 5, 6]
    assert [volume.name for volume in store.volumes(record.number)] == ["step1", "final"]
    assert store.newest_checkpoint(record) == Checkpoint(3, 3, b"three")
    assert record.stored_bytes == len(b"snap") + len(b"whole") + len(b"two") + len(b"three")
    ended = vis.VisualizeResponse(completed=vis.Completed())
    store.commit([job.end(Outcome(vis.JOB_STATE_SUCCEEDED, completed=ended), 60)])
    assert store.unfinished() == []
    assert store.request(record.number) == b"bare"
    assert store.newest_checkpoint(record) is None
    done = store.get(record.id)
    assert done is not None
    assert done.stored_bytes == len(b"snap") + len(b"whole")
    assert store.event(record.number, done.last_sequence).HasField("completed")


def test_a_damaged_checkpoint_gives_way_to_an_earlier_one(store: Store) -> None:
    job = Job(_create(store, 1))
    store.commit([job.save(Checkpoint(step, step, bytes([step]) * 9)) for step in (1, 2, 3)])
    record = job.record
    files = [store.files.checkpoint(record.id, step) for step in (1, 2, 3)]
    assert [file.exists() for file in files] == [False, True, True]
    files[2].write_bytes(b"\3" * 8 + b"\2")
    assert store.newest_checkpoint(record) == Checkpoint(2, 2, b"\2" * 9)
    files[1].unlink()
    assert store.newest_checkpoint(record) is None


def test_old_snapshots_make_room(store: Store) -> None:
    job = Job(_create(store, 1))
    kind = vis.VOLUME_KIND_INTERMEDIATE
    store.commit([job.keep(_file(f"s{number}", bytes(40), kind), 100) for number in range(4)])
    stored = {volume.name: volume for volume in store.volumes(job.number)}
    assert [name for name, volume in stored.items() if volume.kept] == ["s2", "s3"]
    there = {name: store.files.volume(job.id, volume.sequence).exists() for name, volume in stored.items()}
    assert there == {"s0": False, "s1": False, "s2": True, "s3": True}
    record = store.get(job.id)
    assert record is not None
    assert record.stored_bytes == 80


def test_nothing_is_stored_if_one_change_cannot_be(store: Store) -> None:
    job = Job(_create(store, 1))
    good = job.tell(vis.VisualizeResponse(progress=vis.Progress(step=1)))
    twice = Change(job.number, job.id, good.events)
    with pytest.raises(RuntimeError):
        store.commit([good, twice])
    assert [event.sequence for event in store.events(job.number, 0, 9)] == [1, 2]
    store.commit([good])
    assert [event.sequence for event in store.events(job.number, 0, 9)] == [1, 2, 3]


def test_what_is_deleted_is_gone_and_what_expired_is_remembered(store: Store) -> None:
    for number, expired in ((1, False), (2, True)):
        job = Job(_create(store, number, f"id{number}", "body"))
        store.commit([job.keep(_file("final", b"whole"), 9), job.end(Outcome(vis.JOB_STATE_CANCELLED), -1)])
        path = store.files.volume(job.id, 3)
        assert path.exists()
        assert [record.id for record in store.expired(time.time(), 9)] == [job.id]
        store.delete(job.record, expired=expired)
        assert store.get(job.id) is None
        assert not path.parent.exists()
        assert store.removed(job.id) == ("ann" if expired else None)
        assert store.known("ann", f"id{number}", "body") is None


def test_a_pinned_job_does_not_expire(store: Store) -> None:
    job = Job(_create(store, 1))
    store.commit([job.end(Outcome(vis.JOB_STATE_CANCELLED), -1)])
    store.pin(job.number, True)
    assert store.expired(time.time(), 9) == []
    store.pin(job.number, False)
    assert len(store.expired(time.time(), 9)) == 1


def test_files_of_nobody_are_removed(store: Store) -> None:
    job = Job(_create(store, 1))
    store.commit([job.keep(_file("final", b"whole"), 9)])
    stray = store.files.volume("f" * 32, 3)
    stray.parent.mkdir()
    stray.write_bytes(b"left behind")
    store.tidy(time.time())
    assert not stray.parent.exists()
    assert store.files.volume(job.id, 3).exists()


def test_usage_is_counted_for_each_owner(store: Store) -> None:
    _create(store, 1)
    job = Job(_create(store, 2))
    _create(store, 3, owner="bob")
    store.commit([job.keep(_file("final", b"whole"), 9), job.end(Outcome(vis.JOB_STATE_CANCELLED), 60)])
    usage = store.usage("ann")
    # The volume of the one that has ended, and the image of the one that has not.
    assert (usage.jobs, usage.voxel_steps, usage.stored_bytes) == (1, 10, len(b"whole" + b"with images"))
    assert store.usage("nobody").jobs == 0


def test_a_newer_schema_is_refused(open_store: Callable[[], Store], url: str, tmp_path: Path) -> None:
    open_store().close()
    engine = create_engine(url or f"sqlite:///{tmp_path / 'jobs.sqlite3'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE neurofv SET value = '99' WHERE key = 'schema'"))
    engine.dispose()
    with pytest.raises(StorageUnusable, match="schema 99"):
        open_store()


def test_a_database_belongs_to_one_server(store: Store, url: str, tmp_path: Path) -> None:
    other = tmp_path / "other" if url else tmp_path
    with pytest.raises(StorageUnusable, match="another server uses"):
        Store(url, other, Metrics({}), lambda change: None)


def test_a_locked_database_is_busy_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.storage.database._BUSY_SECONDS", 0.1)
    store = Store("", tmp_path, Metrics({}), lambda change: None)
    job = Job(_create(store, 1))
    change = job.tell(vis.VisualizeResponse(progress=vis.Progress(step=1)))
    holder = sqlite3.connect(tmp_path / "jobs.sqlite3", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageBusy):
        store.commit([change])
    with pytest.raises(StorageBusy):
        _create(store, 2)
    assert len(store.events(job.number, 0, 9)) == 2
    holder.execute("ROLLBACK")
    store.commit([change])
    assert len(store.events(job.number, 0, 9)) == 3
    store.close()


def test_a_volume_that_is_not_what_was_written_is_not_read(store: Store) -> None:
    job, data = Job(_create(store, 1)), os.urandom(3 << 20)
    store.commit([job.keep(_file("final", data), 9)])
    (volume,) = store.volumes(job.number)
    path = store.files.volume(job.id, volume.sequence)
    assert b"".join(files.blocks(path, volume.sha256, volume.bytes, "it", 1000)) == data[1000:]
    for damaged in (data[:-1], data + b"x", data[:-1] + bytes([data[-1] ^ 1]), b""):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactCorrupt):
            next(files.blocks(path, volume.sha256, volume.bytes, "it"))
    path.unlink()
    with pytest.raises(ArtifactCorrupt):
        next(files.blocks(path, volume.sha256, volume.bytes, "it"))
