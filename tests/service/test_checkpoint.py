"""Checkpoints: as bytes, and as what a real worker sends and goes on from after `kill -9`."""

import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

import engine
from models import ZOO, read_bundle
from neurofv.v1 import visualization_service_pb2 as vis
from service.jobs.plan import make_plan
from service.settings import Settings
from service.worker import checkpoint, wire
from service.worker.checkpoint import Checkpoint, DamagedCheckpoint, Pace
from service.worker.process import ENVIRONMENT
from service.worker.wire import Kind
from tests.service.requests import CUBE, SMALL, request

ROOT = Path(__file__).parents[2]
STEPS = 9
TOLD = (Kind.EVENT, Kind.VOLUME, Kind.SUCCEEDED)
LAST = (Kind.SUCCEEDED, Kind.FAILED, Kind.STOPPED, Kind.PAUSED)
MADE_WITH = {"torch": "2", "threads": 1, "request": "ab"}


def resolved(*parts: str) -> bytes:
    settings = Settings(repository=ZOO, threads=1)
    asked = request(CUBE, SMALL, f"steps: {STEPS} snapshot_every: 2", *parts)
    return make_plan(asked, read_bundle(ZOO / "lesion-shapes" / "1"), settings).request.SerializeToString()


class Worker:
    """A real worker process, spoken to as the server does."""

    def __init__(self, environment: dict[str, str] | None = None, **settings: object) -> None:
        chosen = Settings(**{"repository": ZOO, "threads": 1, "checkpoint_seconds": 0, **settings})
        self.ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "service.worker", f"--fd={theirs.fileno()}"]
        command.append(f"--settings={chosen.model_dump_json()}")
        variables = ENVIRONMENT | os.environ | (environment or {})
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT, env=variables)
        theirs.close()
        assert wire.receive(self.ours).kind == Kind.READY

    def send(self, kind: Kind, job: int = 0, data: bytes = b"") -> None:
        self.ours.sendall(wire.Frame(kind, job, data).encode())

    def until(self, end: Callable[[wire.Frame], bool]) -> list[wire.Frame]:
        """Return the frames up to the first of a kind."""
        frames = [wire.receive(self.ours)]
        while not end(frames[-1]):
            frames.append(wire.receive(self.ours))
        return frames

    def life(self, job: int) -> list[wire.Frame]:
        """Return what is said until a job's end."""
        return self.until(lambda frame: frame.job == job and frame.kind in LAST)

    def until_checkpoint(self, step: int) -> list[wire.Frame]:
        """Return what is said up to the checkpoint of a step."""
        return self.until(lambda f: f.kind == Kind.CHECKPOINT and wire.unpack_state(f.data)[1] == step)

    def rest(self) -> list[wire.Frame]:
        """Return what the process had said whole before it died."""
        frames = []
        with suppress(EOFError):
            while True:
                frames.append(wire.receive(self.ours))
        return frames

    def go_on(self, job: int, data: bytes, told: int, step: int, saved: bytes) -> list[wire.Frame]:
        self.send(Kind.RESUME, job, wire.pack_state(told, step, saved))
        self.send(Kind.RUN, job, data)
        return self.life(job)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def running(environment: dict[str, str] | None = None, **settings: object) -> Iterator[Worker]:
    worker = Worker(environment, **settings)
    try:
        yield worker
    finally:
        worker.kill()
        worker.ours.close()


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with running() as one:
        yield one


@pytest.fixture(scope="module")
def whole(worker: Worker) -> list[wire.Frame]:
    """A job's life without a break."""
    worker.send(Kind.RUN, 1, resolved())
    return worker.life(1)


def told(frames: list[wire.Frame]) -> list[tuple[Kind, bytes]]:
    """Return what a caller gets to know, times aside."""
    found = []
    for frame in frames:
        data = frame.data
        if frame.kind in (Kind.EVENT, Kind.SUCCEEDED):
            event = vis.VisualizeResponse.FromString(data)
            event.progress.ClearField("step_seconds")
            for time in ("started", "finished"):
                event.completed.provenance.ClearField(time)
            data = event.SerializeToString(deterministic=True)
        if frame.kind in TOLD:
            found.append((frame.kind, data))
    return found


def checkpoints(frames: list[wire.Frame]) -> list[tuple[int, int, bytes]]:
    return [wire.unpack_state(frame.data) for frame in frames if frame.kind == Kind.CHECKPOINT]


def test_there_is_a_checkpoint_at_every_step_that_is_not_the_last(whole: list[wire.Frame]) -> None:
    assert [step for _, step, _ in checkpoints(whole)] == list(range(1, STEPS))
    for place, frame in enumerate(whole):
        if frame.kind == Kind.CHECKPOINT:
            count, step, data = wire.unpack_state(frame.data)
            assert count == len(told(whole[:place])) == step + step // 2
            assert data[8:].lstrip().startswith(b'{"__metadata__"')
    assert {kind for kind, _ in told(whole)} == set(TOLD)


def test_a_job_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    worker: Worker, whole: list[wire.Frame]
) -> None:
    """Every attempt dies a few frames behind a checkpoint; the newest that has arrived is gone on from."""
    life: list[wire.Frame] = []
    newest = (0, 0, b"")
    for last in (2, 5, 6):
        with running() as one:
            one.send(Kind.RESUME, 7, wire.pack_state(len(told(life)), *newest[1:]))
            one.send(Kind.RUN, 7, resolved())
            said = one.until_checkpoint(last)
            one.kill()
            said += one.rest()
        life += said
        newest = checkpoints(said)[-1]
        assert newest[1] >= last
    life += worker.go_on(7, resolved(), len(told(life)), *newest[1:])
    assert told(life) == told(whole)
    digest = vis.VisualizeResponse.FromString(life[-1].data).completed.provenance.volume_sha256
    assert digest == vis.VisualizeResponse.FromString(whole[-1].data).completed.provenance.volume_sha256


def test_from_every_checkpoint_nothing_is_told_twice(worker: Worker, whole: list[wire.Frame]) -> None:
    everything = told(whole)
    for count, step, data in checkpoints(whole)[::3]:
        # As much as had been told at the checkpoint, a little more, and all but the end.
        for known in (count, count + 2, len(everything) - 1):
            said = worker.go_on(2, resolved(), known, step, data)
            assert told(said) == everything[known:]
            assert [s for _, s, _ in checkpoints(said)] == list(range(step + 1, STEPS))
    said = worker.go_on(2, resolved(), 5, 0, b"")
    assert told(said) == everything[5:]


def test_the_start_of_a_job_that_goes_on_is_its_first_one(worker: Worker, whole: list[wire.Frame]) -> None:
    said = worker.go_on(2, resolved(), *checkpoints(whole)[4])
    ends = [vis.VisualizeResponse.FromString(frames[-1].data).completed for frames in (said, whole)]
    assert ends[0].provenance.started.ToDatetime() == ends[1].provenance.started.ToDatetime()


def test_a_checkpoint_of_no_use_costs_time_only(worker: Worker, whole: list[wire.Frame]) -> None:
    """A damaged one, one of another request, and one that is ahead of what was told."""
    count, step, data = checkpoints(whole)[3]
    flipped = bytearray(data)
    flipped[-1000] ^= 1
    worker.send(Kind.RUN, 3, resolved("seed: 9"))
    foreign = checkpoints(worker.life(3))[3][2]
    assert foreign != data
    for saved, known in ((bytes(flipped), count), (data[:-1], count), (foreign, count), (data, count - 1)):
        said = worker.go_on(2, resolved(), known, step, saved)
        assert told(said) == told(whole)[known:]
        assert [s for _, s, _ in checkpoints(said)] == list(range(1, STEPS))


def test_another_number_of_threads_begins_anew(whole: list[wire.Frame]) -> None:
    with running(threads=2) as other:
        said = other.go_on(2, resolved(), *checkpoints(whole)[3])
    assert [s for _, s, _ in checkpoints(said)] == list(range(1, STEPS))
    assert said[-1].kind == Kind.SUCCEEDED


def test_a_pause_puts_a_job_off_at_the_next_step(worker: Worker, whole: list[wire.Frame]) -> None:
    worker.send(Kind.RUN, 4, resolved())
    first = worker.until(lambda frame: frame.kind == Kind.EVENT)
    worker.send(Kind.RUN, 5, resolved())
    worker.send(Kind.JOIN, 6, resolved())
    worker.send(Kind.PAUSE)
    said = first + worker.life(6)
    own = [frame for frame in said if frame.job == 4]
    assert [frame.kind for frame in own[-2:]] == [Kind.CHECKPOINT, Kind.PAUSED]
    assert [(frame.job, frame.kind) for frame in said[len(own) :]] == [(5, Kind.PAUSED), (6, Kind.PAUSED)]
    count, step, data = checkpoints(own)[-1]
    assert count == len(told(own))
    assert step <= 4
    assert told(own) + told(worker.go_on(4, resolved(), count, step, data)) == told(whole)


def test_a_pause_with_nothing_to_do_says_nothing(worker: Worker, whole: list[wire.Frame]) -> None:
    worker.send(Kind.PAUSE)
    worker.send(Kind.PAUSE)
    worker.send(Kind.RUN, 8, resolved())
    assert told(worker.life(8)) == told(whole)


def test_jobs_that_shared_a_batch_go_on_alone(worker: Worker, whole: list[wire.Frame]) -> None:
    other, pair = resolved("seed: 9"), resolved("samples: 2 seed: 3")
    requests = {11: other, 12: pair, 13: resolved()}
    lives = {}
    for job, data in requests.items():
        worker.send(Kind.RUN, job, data)
        lives[job] = told(worker.life(job))
    assert lives[13] == told(whole)
    for job, data in requests.items():
        worker.send(Kind.RUN if job == 13 else Kind.JOIN, job, data)
    said = worker.until(lambda frame: frame.kind == Kind.EVENT)
    worker.send(Kind.CANCEL, 11)
    worker.send(Kind.PAUSE)
    said += worker.life(13)
    assert [frame.kind for frame in said if frame.job == 11][-1] == Kind.STOPPED
    for job in (12, 13):
        own = [frame for frame in said if frame.job == job]
        assert [frame.kind for frame in own[-2:]] == [Kind.CHECKPOINT, Kind.PAUSED]
        after = worker.go_on(job, requests[job], *checkpoints(own)[-1])
        assert told(own) + told(after) == lives[job]


@pytest.mark.parametrize(
    ("place", "count", "last"),
    [
        ("worker.step", 3, Kind.EVENT),
        ("worker.before_checkpoint", 2, Kind.VOLUME),
        ("worker.before_result", 1, Kind.VOLUME),
    ],
)
def test_a_worker_that_dies_at_a_failpoint_is_made_up_for(
    place: str, count: int, last: Kind, tmp_path: Path, worker: Worker, whole: list[wire.Frame]
) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    with running({"NEUROFV_FAILPOINT": f"{place}:{count}:{flag}"}) as one:
        one.send(Kind.RUN, 1, resolved())
        said = one.rest()
        assert one.process.wait(20) == -9
    assert said[-1].kind == last
    assert not flag.exists()
    _, step, data = checkpoints(said)[-1]
    assert step == {"worker.step": 2, "worker.before_checkpoint": 1, "worker.before_result": STEPS - 1}[place]
    assert told(said) + told(worker.go_on(2, resolved(), len(told(said)), step, data)) == told(whole)


def test_a_job_that_is_shorter_than_the_time_between_checkpoints_has_none(whole: list[wire.Frame]) -> None:
    with running(checkpoint_seconds=600.0) as one:
        one.send(Kind.RUN, 1, resolved())
        said = one.life(1)
    assert checkpoints(said) == []
    assert told(said) == told(whole)


def volume(**numbers: float) -> engine.ItemState:
    tensors = {
        "free.0": torch.randn(3, 5, generator=torch.Generator().manual_seed(0)),
        "optimizer.0.step": torch.tensor(3.0),
        "generator": torch.Generator().manual_seed(1).get_state(),
        "odd": torch.tensor([math.nan, -math.inf, -0.0, 1e-45]),
    }
    return engine.ItemState(tensors, {"alive": True, "seed": 2**63 - 1, "watch.score": -math.inf, **numbers})


def some(**numbers: float) -> Checkpoint:
    state = engine.State(4, 0.1 + 0.2, (volume(), volume(**numbers)))
    return Checkpoint(state, datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), 6)


def test_a_checkpoint_is_read_as_it_was_written() -> None:
    before = some(third=1 / 3, none=math.nan, tiny=5e-324)
    after = checkpoint.read(checkpoint.write(before, MADE_WITH), MADE_WITH)
    assert after is not None
    assert (after.told, after.started) == (before.told, before.started)
    assert (after.state.step, after.state.seconds) == (before.state.step, before.state.seconds)
    for own, other in zip(after.state.items, before.state.items, strict=True):
        assert repr(own.numbers) == repr(other.numbers)
        assert own.tensors.keys() == other.tensors.keys()
        for name, tensor in own.tensors.items():
            wanted = other.tensors[name]
            assert (tensor.dtype, tensor.shape) == (wanted.dtype, wanted.shape)
            assert tensor.numpy().tobytes() == wanted.numpy().tobytes()


def test_the_same_checkpoint_has_the_same_bytes() -> None:
    assert checkpoint.write(some(), MADE_WITH) == checkpoint.write(some(), MADE_WITH)


@pytest.mark.parametrize("name", MADE_WITH)
def test_a_checkpoint_that_was_made_with_anything_else_is_of_no_use(name: str) -> None:
    data = checkpoint.write(some(), MADE_WITH)
    assert checkpoint.read(data, {**MADE_WITH, name: "other"}) is None
    assert checkpoint.read(data, {**MADE_WITH, "more": 1}) is None


def test_what_the_bits_depend_on_is_in_the_fingerprint() -> None:
    settings, bundle = Settings(repository=ZOO), read_bundle(ZOO / "lesion-shapes" / "1")
    plans = [make_plan(request(CUBE, SMALL, f"seed: {seed}"), bundle, settings) for seed in (1, 1, 2)]
    first, same, other = (checkpoint.fingerprint(plan, torch.device("cpu")) for plan in plans)
    assert first == same
    assert {name for name in first if first[name] != other[name]} == {"request"}
    assert {"torch", "neurofv", "threads", "device", "model", "request"} <= set(first)
    assert first["model"] == bundle.digest


def test_no_damage_goes_unnoticed() -> None:
    data = checkpoint.write(some(), MADE_WITH)
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        with pytest.raises(DamagedCheckpoint, match="use an earlier one, or begin at step 1"):
            checkpoint.read(bytes(flipped), MADE_WITH)
    for other in (b"", b"\x80\x04K\x01.", data[:-1], data[: len(data) // 2], data + b"\0", data[1:]):
        with pytest.raises(DamagedCheckpoint):
            checkpoint.read(other, MADE_WITH)


def test_checkpoints_that_take_long_come_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])

    def spent(seconds: float, cost: float) -> float:
        """Return the share of 10 000 seconds of steps that goes into checkpoints."""
        now[0] = lost = 0.0
        pace = Pace(seconds)
        while now[0] < 10_000:
            now[0] += 1
            if pace.due():
                now[0] += cost
                lost += cost
                pace.sent()
        return lost / now[0]

    assert 0.02 < spent(10.0, 2.0) < 0.03
    assert spent(10.0, 0.01) == pytest.approx(0.001, rel=0.2)
    assert spent(0.0, 2.0) == pytest.approx(2 / 3, rel=0.01)
