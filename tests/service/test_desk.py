"""The desk and what stands behind it, at moments that a server process meets too seldom to wait for."""

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import grpc
import pytest

from benchmarks.reliability.quick import QuickExecutor
from models import ZOO
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import QueueFull, QuotaExceeded
from service.jobs.job import Job, Outcome
from service.jobs.watch import Watch
from service.storage.records import Change, Checkpoint, Record
from service.worker.process import WorkerProcess
from tests.house import House
from tests.server import RunningServer
from tests.service.requests import CUBE, SMALL, request

ASKED = request(CUBE, "steps: 3 snapshot_every: 0")


class Held(QuickExecutor):
    """Runs a job until it is paused, and then takes its time to say so."""

    seconds = 0.2

    async def run(self, jobs: Sequence[Job]) -> AsyncIterator[tuple[Job, Outcome]]:
        while not self._pausing:
            await asyncio.sleep(0.01)
        await asyncio.sleep(self.seconds)
        for job in jobs:
            yield job, Outcome(vis.JOB_STATE_QUEUED)


class Slow(Held):
    """Takes longer than the grace."""

    seconds = 60.0


async def _until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)


def _row(house: House, record: Record) -> Record:
    found = house.store.get(record.id)
    assert found is not None
    return found


def _runs(house: House, record: Record) -> Callable[[], bool]:
    return lambda: _row(house, record).state == vis.JOB_STATE_RUNNING


async def test_a_caller_who_leaves_while_the_job_is_stored_leaves_one_that_runs(tmp_path: Path) -> None:
    house = await House(tmp_path).open()
    asked = request(CUBE, "steps: 3", 'request_id: "mine"')
    # The model is read for the first time.
    first = await house.desk.create(ASKED)
    await _until(lambda: _row(house, first).over)
    holder = sqlite3.connect(tmp_path / "jobs.sqlite3", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    creating = asyncio.create_task(house.desk.create(asked))
    await asyncio.sleep(0.5)
    creating.cancel()
    holder.execute("ROLLBACK")
    with pytest.raises(asyncio.CancelledError):
        await creating
    await _until(lambda: len(house.store.page("", [], "", 0, 9)) == 2)
    again = await house.desk.create(asked)
    await _until(lambda: _row(house, again).over)
    assert _row(house, again).state == vis.JOB_STATE_SUCCEEDED
    assert len(house.store.page("", [], "", 0, 9)) == 2
    await house.close()


async def test_a_job_whose_commit_was_not_answered_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await House(tmp_path).open()
    create = house.store.create

    def unanswered(*arguments: object) -> None:
        create(*arguments)  # type: ignore[arg-type]
        raise ConnectionError("the answer to COMMIT was lost")

    monkeypatch.setattr(house.store, "create", unanswered)
    asked = request(CUBE, "steps: 3", 'request_id: "mine"')
    with pytest.raises(ConnectionError):
        await house.desk.create(asked)
    monkeypatch.undo()
    record = await house.desk.create(asked)
    await _until(lambda: _row(house, record).over)
    await house.close()


async def test_a_cancel_that_is_acknowledged_during_a_drain_holds(tmp_path: Path) -> None:
    house = await House(tmp_path, Held).open()
    record = await house.desk.create(ASKED)
    await _until(_runs(house, record))
    draining = asyncio.create_task(house.desk.dispatcher.drain(5))
    await asyncio.sleep(0.05)
    await house.desk.cancel(_row(house, record))
    await draining
    await house.close()
    house = await House(tmp_path).open()
    assert _row(house, record).state == vis.JOB_STATE_CANCELLED
    await house.close()


async def test_a_drain_is_no_attempt_however_long_the_step(tmp_path: Path) -> None:
    record = None
    for _ in range(4):
        house = await House(tmp_path, Slow).open()
        record = record or await house.desk.create(ASKED)
        await _until(_runs(house, record))
        assert _row(house, record).crashes == 0
        await house.close(grace_seconds=0.1)
    house = await House(tmp_path).open()
    await _until(lambda: _row(house, record).over)
    assert _row(house, record).state == vis.JOB_STATE_SUCCEEDED
    await house.close()


async def test_what_is_pinned_during_a_sweep_stays(tmp_path: Path) -> None:
    house = await House(tmp_path, retention_hours=0).open()
    records = [await house.desk.create(request(CUBE, "steps: 1", f"seed: {n}")) for n in range(20)]
    await _until(lambda: all(_row(house, record).over for record in records))
    sweeping = asyncio.create_task(house.sweeper.sweep())
    await _until(lambda: house.store.get(records[0].id) is None)
    pinned = await house.desk.pin(_row(house, records[-1]), True)
    assert pinned.pinned
    await sweeping
    assert _row(house, records[-1]).pinned
    assert sum(house.store.get(record.id) is not None for record in records) == 1
    await house.close()


async def test_a_checkpoint_that_cannot_be_read_costs_its_steps_alone(tmp_path: Path) -> None:
    house = await House(tmp_path, Held).open()
    record = await house.desk.create(ASKED)
    await _until(_runs(house, record))
    job = house.desk.live(record)
    assert job is not None
    await house.journal.add(job, job.save(Checkpoint(1, 0, b"earlier")))
    await house.journal.add(job, Change(job.number, job.id, columns={"told": 1}))
    await house.journal.add(job, job.save(Checkpoint(2, 0, b"newest")))
    await house.close()
    # Not a missing file, but one that the system will not read, as on a bad sector.
    newest = house.store.files.checkpoint(record.id, 2)
    newest.unlink()
    newest.mkdir()
    house = await House(tmp_path).open()
    found = house.store.newest_checkpoint(record)
    assert found == Checkpoint(1, 0, b"earlier")
    other = await house.desk.create(request(CUBE, "steps: 1"))
    await _until(lambda: _row(house, record).over and _row(house, other).over)
    assert house.deaths == []
    await house.close()


async def test_a_journal_that_fails_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = await House(tmp_path).open()

    def fail(*_: object) -> None:
        raise ValueError("nobody has foreseen this")

    monkeypatch.setattr(house.store, "commit", fail)
    await house.desk.create(ASKED)
    await _until(lambda: bool(house.deaths))
    assert isinstance(house.deaths[0], ValueError)
    await house.close(grace_seconds=0.1)


async def test_a_commit_whose_answer_was_lost_is_not_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.errors import StorageBusy

    house = await House(tmp_path).open()
    commit, calls = house.store.commit, []

    def unanswered(changes: Sequence[Change], tried: int = 0) -> None:
        calls.append(tried)
        commit(changes, tried)
        if len(calls) in (1, 3):
            raise StorageBusy("the answer to COMMIT was lost")

    monkeypatch.setattr(house.store, "commit", unanswered)
    record = await house.desk.create(ASKED)
    await _until(lambda: _row(house, record).over)
    assert any(calls)
    events = [event async for event in Watch(house.desk, record, house.metrics).events(0)]
    numbers = sorted({event.sequence for event in events})
    assert numbers == list(range(1, len(numbers) + 1))
    assert events[-1].HasField("completed")
    await house.close()


async def test_a_worker_waits_while_nothing_can_be_written(tmp_path: Path) -> None:
    """The server holds a bounded amount of what it reports, however long the database is locked."""
    house = await House(tmp_path, WorkerProcess, checkpoint_seconds=0).open()
    record = await house.desk.create(request(CUBE, SMALL, "steps: 5000 snapshot_every: 1"))
    job = house.desk.live(record)
    assert job is not None
    await _until(lambda: job.step > 3)
    holder = sqlite3.connect(tmp_path / "jobs.sqlite3", isolation_level=None, timeout=10)
    holder.execute("BEGIN IMMEDIATE")
    told = 0
    for _ in range(60):
        await asyncio.sleep(0.5)
        if job.told == told:
            break
        told = job.told
    else:
        raise AssertionError("the worker went on telling")
    assert house.journal.waiting_bytes < 100 << 20
    holder.execute("ROLLBACK")
    await _until(lambda: job.told > told)
    await house.desk.cancel(_row(house, record))
    await _until(lambda: _row(house, record).over)
    await house.close()


async def test_a_damaged_snapshot_is_skipped_and_what_follows_is_not_lost(tmp_path: Path) -> None:
    house = await House(tmp_path, WorkerProcess).open()
    record = await house.desk.create(request(CUBE, SMALL, "steps: 4 snapshot_every: 2"))
    await _until(lambda: _row(house, record).over, seconds=60)
    (snapshot,) = [volume for volume in house.store.volumes(record.number) if volume.snapshot]
    house.store.files.volume(record.id, snapshot.sequence).write_bytes(b"")
    events = [event async for event in Watch(house.desk, record, house.metrics).events(0)]
    assert [event.volume_skipped.id for event in events if event.HasField("volume_skipped")] == [
        snapshot.name
    ]
    assert events[-1].HasField("completed")
    await house.close()


async def test_twins_of_one_request_id_are_one_job_and_one_record(tmp_path: Path) -> None:
    house = await House(tmp_path, Held, caller_jobs=1).open()
    asked = request(CUBE, "steps: 3", 'request_id: "mine"')
    found = await asyncio.gather(*(house.desk.create(asked) for _ in range(4)))
    assert len({record.id for record in found}) == 1
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [line["action"] for line in lines] == ["job.create"]
    await house.close()


async def test_the_queue_is_not_overrun_by_many_at_once(tmp_path: Path) -> None:
    house = await House(tmp_path, Held, queue_length=2).open()
    found = await asyncio.gather(
        *(house.desk.create(request(CUBE, "steps: 1", f"seed: {n}")) for n in range(20)),
        return_exceptions=True,
    )
    taken = [each for each in found if isinstance(each, Record)]
    assert all(isinstance(each, Record | QueueFull) for each in found)
    # One may run already.
    assert 1 <= len(taken) <= 3
    await house.close()


async def test_an_image_counts_towards_what_its_owner_stores(tmp_path: Path) -> None:
    house = await House(tmp_path, Held, caller_bytes=1000).open()
    brain = (ZOO / "lesion-shapes" / "1" / "reference.nii.gz").read_bytes()
    asked = request(CUBE, SMALL, "steps: 1 start { subject {} }")
    asked.subject.nifti = brain
    with pytest.raises(QuotaExceeded, match="stored_bytes"):
        await house.desk.create(asked)
    await house.close()


async def test_an_image_is_overwritten_when_its_job_has_ended(tmp_path: Path) -> None:
    house = await House(tmp_path, Held).open()
    asked = request(CUBE, SMALL, "steps: 1 start { subject {} }")
    asked.subject.nifti = (ZOO / "lesion-shapes" / "1" / "reference.nii.gz").read_bytes()
    record = await house.desk.create(asked)
    part = asked.subject.nifti[1000:1200]

    def kept() -> bool:
        return any(part in file.read_bytes() for file in tmp_path.glob("jobs.sqlite3*"))

    assert kept()
    await _until(_runs(house, record))
    await house.desk.cancel(_row(house, record))
    await house.close()
    house = await House(tmp_path).open()
    await _until(lambda: _row(house, record).over)
    await _until(lambda: not kept())
    await house.close()


async def test_a_password_of_the_database_is_on_no_command_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'other.sqlite3'}?password=swordfish"
    house = await House(tmp_path, WorkerProcess, database=url).open()
    line = Path(f"/proc/{house.executor.pid}/cmdline").read_bytes()
    assert b"service.worker" in line
    assert b"swordfish" not in line
    await house.close()


def test_states_and_names_that_are_none_are_refused(server: RunningServer) -> None:
    from neurofv.v1 import job_service_pb2 as pb

    for asked in (pb.ListJobsRequest(states=[99]), pb.ListJobsRequest(model="a\0b")):
        with pytest.raises(grpc.RpcError) as caught:
            server.jobs.ListJobs(asked)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    many = pb.ListJobsRequest(states=[vis.JOB_STATE_FAILED] * 300_000)
    assert server.jobs.ListJobs(many, timeout=30) is not None
