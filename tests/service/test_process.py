"""The server and its worker as processes: killed, drained, misconfigured."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from models import ZOO, read_bundle
from neurofv.v1 import job_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis
from service.jobs.plan import make_plan
from service.jobs.watch import Watch
from service.settings import Settings
from service.worker import wire
from service.worker.process import WorkerProcess
from tests.house import House
from tests.server import RunningServer
from tests.service.requests import CUBE, SMALL, Stream, failure, request

ROOT = Path(__file__).parents[2]
LONG = request(CUBE, SMALL, "steps: 5000 snapshot_every: 0")
MEDIUM = request(CUBE, SMALL, "steps: 40 snapshot_every: 10")
SHORT = request(CUBE, SMALL, "steps: 2")


class Killable:
    """A server that a test may kill; the next test gets another in its place."""

    def __init__(self) -> None:
        self._server: RunningServer | None = None

    def server(self) -> RunningServer:
        """Return the server, started anew if it is gone."""
        if self._server is None or self._server.process.poll() is not None:
            self._server = RunningServer(ZOO, queue_length=1, grace_seconds=0.2)
        return self._server

    def kill(self) -> None:
        if self._server is not None:
            self._server.process.kill()
            self._server.process.wait()


@pytest.fixture(scope="module")
def killable() -> Iterator[Killable]:
    found = Killable()
    yield found
    found.kill()


@pytest.fixture
def own_server(killable: Killable) -> RunningServer:
    """A server that no other test uses at the same time, with nothing to do."""
    return killable.server()


def test_the_worker_starts_before_the_server_says_serving(own_server: RunningServer) -> None:
    assert own_server.check() == health_pb2.HealthCheckResponse.SERVING
    assert own_server.check("model/lesion-shapes") == health_pb2.HealthCheckResponse.SERVING
    assert len(own_server.workers()) == 1


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def _ended(pid: int, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while _alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not _alive(pid)


def test_a_killed_worker_costs_its_job_an_attempt(own_server: RunningServer) -> None:
    whole = Stream(list(own_server.visualization.Visualize(MEDIUM, timeout=120)))
    call = own_server.visualization.Visualize(MEDIUM, timeout=120)
    events = []
    for event in call:
        events.append(event)
        if event.progress.step == 20:
            (worker,) = own_server.workers()
            os.kill(worker, signal.SIGKILL)
    stream = Stream(events)
    assert stream.has_no_gaps()
    assert stream.kinds().count("progress") == 40
    attempts = [event.state_changed.attempt for event in events if event.state_changed.attempt]
    assert attempts == [1, 2]
    assert stream.begins["final"].sha256 == whole.begins["final"].sha256
    assert own_server.workers() != [worker]


def test_an_idle_worker_that_is_killed_comes_back_by_itself(own_server: RunningServer) -> None:
    (worker,) = own_server.workers()
    os.kill(worker, signal.SIGKILL)
    assert _ended(worker)
    end = time.monotonic() + 60
    serving = health_pb2.HealthCheckResponse.SERVING
    while own_server.workers() in ([], [worker]) or own_server.check() != serving:
        assert time.monotonic() < end, "no worker came back"
        time.sleep(0.1)
    assert own_server.get("/readyz")[0] == 200
    assert Stream(list(own_server.visualization.Visualize(SHORT, timeout=120))).kinds()[-1] == "completed"


async def test_a_worker_that_cannot_start_lets_jobs_wait(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The system refuses a new process for a while: jobs are taken, wait, and succeed afterwards."""
    changes: list[bool] = []

    async def note(ready: bool) -> None:
        changes.append(ready)

    house = await House(tmp_path, WorkerProcess, note).open()
    desk, worker = house.desk, house.executor
    spawn = asyncio.create_subprocess_exec

    async def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError("no process for you")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    while changes[-1]:
        await asyncio.sleep(0.05)
    record = await desk.create(SHORT)
    await asyncio.sleep(0.5)
    assert (await desk.find(record.name)).state == vis.JOB_STATE_QUEUED
    monkeypatch.setattr(asyncio, "create_subprocess_exec", spawn)
    events = [event async for event in Watch(desk, record, house.metrics).events(0)]
    assert events[-1].HasField("completed")
    await house.close()
    assert changes[0] is changes[-1] is True
    assert False in changes


def test_a_cancel_lets_at_most_the_step_at_work_finish() -> None:
    ours, theirs = socket.socketpair()
    settings = Settings(repository=ZOO, threads=1)
    command = [sys.executable, "-m", "service.worker", f"--fd={theirs.fileno()}"]
    command.append(f"--settings={settings.model_dump_json()}")
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT) as worker:
        theirs.close()
        assert wire.receive(ours).kind == wire.Kind.READY
        # On the whole grid a step takes far longer than this process could be held up between two lines.
        slow = request(CUBE, "steps: 5000 snapshot_every: 0 canvas { size_mm {} }")
        resolved = make_plan(slow, read_bundle(ZOO / "lesion-shapes" / "1"), settings).request
        for job in range(1, 4):
            ours.sendall(wire.Frame(wire.Kind.RUN, job, resolved.SerializeToString()).encode())
            for _ in range(2):
                assert wire.receive(ours).kind == wire.Kind.EVENT
            ours.sendall(wire.Frame(wire.Kind.CANCEL, job).encode())
            kinds = [wire.receive(ours).kind]
            while kinds[-1] == wire.Kind.EVENT:
                kinds.append(wire.receive(ours).kind)
            assert kinds[-1] == wire.Kind.STOPPED
            # The step at work when the cancel arrived, and one that was done while it travelled.
            assert len(kinds) - 1 <= 2
        ours.close()
        assert worker.wait(20) == 0


def test_ctrl_c_in_a_terminal_lets_the_running_job_go_on_at_the_next_start(tmp_path: Path) -> None:
    running = RunningServer(ZOO, threads=1, own_group=True, data=tmp_path)
    whole = Stream(list(running.visualization.Visualize(MEDIUM, timeout=120)))
    events = []

    def interrupt() -> None:
        for event in running.visualization.Visualize(MEDIUM, timeout=120):
            events.append(event)
            if event.progress.step == 10:
                os.killpg(running.process.pid, signal.SIGINT)

    with pytest.raises(grpc.RpcError) as caught:
        interrupt()
    assert failure(caught.value)[:2] == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    assert running.process.wait(30) == 0
    assert "text" not in {entry["event"] for entry in running.log}
    again = RunningServer(ZOO, threads=1, data=tmp_path)
    last = max(event.sequence for event in events if not event.HasField("volume_chunk"))
    watched = again.jobs.WatchJob(pb.WatchJobRequest(name=events[0].accepted.job, after_sequence=last))
    rest = Stream([answer.event for answer in watched])
    assert rest.has_no_gaps(after=last)
    assert rest.completed.provenance.volume_sha256 == whole.begins["final"].sha256
    moves = [event.state_changed for event in rest.events if event.state_changed.attempt]
    # A drain is no crash, and what was done is not done again.
    assert [(move.attempt, move.from_step >= 10) for move in moves] == [(1, True)]
    assert again.stop() == 0


def test_a_full_queue_refuses_and_says_when_to_come_back(own_server: RunningServer) -> None:
    running = own_server.visualization.Visualize(LONG, timeout=120)
    next(event for event in running if event.progress.step == 1)
    waiting = own_server.visualization.Visualize(LONG, timeout=120)
    next(waiting)
    with pytest.raises(grpc.RpcError) as caught:
        list(own_server.visualization.Visualize(LONG, timeout=120))
    assert failure(caught.value) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", {"limit": "1"})
    assert "RetryInfo" in str(dict(caught.value.trailing_metadata()))
    for call in (waiting, running):
        call.cancel()
    end = time.monotonic() + 60
    while own_server.metric("neurofv_queue_depth") or own_server.metric("neurofv_jobs_running"):
        assert time.monotonic() < end, "a cancelled job is still there"
        time.sleep(0.05)


def test_sigterm_drains_and_ends_with_zero(own_server: RunningServer) -> None:
    running = own_server.visualization.Visualize(LONG, timeout=120)
    next(event for event in running if event.progress.step == 1)
    waiting = own_server.visualization.Visualize(LONG, timeout=120)
    next(waiting)
    workers = own_server.workers()
    assert own_server.stop() == 0
    for call in (running, waiting):
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert failure(caught.value)[:2] == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    assert all(_ended(worker) for worker in workers)


def test_the_worker_ends_with_a_killed_server(own_server: RunningServer) -> None:
    (worker,) = own_server.workers()
    own_server.process.kill()
    assert _ended(worker)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"NEUROFV_PORT": "99999", "NEUROFV_DEVICE": "tpu"}, ["port", "device"]),
        ({"NEUROFV_CONFIG": "no/such/file.toml"}, ["NEUROFV_CONFIG"]),
        ({"NEUROFV_REPOSITORY": "no/such/folder"}, ["NEUROFV_REPOSITORY=no/such/folder"]),
        ({"NEUROFV_CONFIG": "README.md"}, ["README.md"]),
        ({"NEUROFV_HTTP_HOST": "192.0.2.1"}, ["NEUROFV_HTTP_HOST"]),
        # An address that this machine has not, with the door opened on purpose.
        ({"NEUROFV_HOST": "192.0.2.1", "NEUROFV_INSECURE": "true"}, ["gRPC cannot listen", "NEUROFV_HOST"]),
    ],
)
def test_bad_settings_end_the_server_with_a_reason(variables: dict[str, str], words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        env=os.environ | {"NEUROFV_PORT": "0", "NEUROFV_HTTP_PORT": "0"} | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert [word for word in words if word not in done.stderr] == []
    assert "Traceback" not in done.stderr
