"""Jobs that wait at the same time share a batch, and none of them notices."""

import os
import signal
import threading
import time
from collections.abc import Callable

import grpc
import pytest

from models import ZOO, read_bundle
from neurofv.v1 import visualization_service_pb2 as vis
from service.jobs import sharing
from service.jobs.plan import make_plan
from service.jobs.sharing import Room, Share, company
from service.settings import Settings
from tests.server import RunningServer
from tests.service.requests import CUBE, Stream, failure, request

CANVAS = "canvas { center_mm { x: 0 y: -18 z: 18 } size_mm { i: 48 j: 48 k: 48 } }"
RUN = f"{CANVAS} snapshot_every: 4 steps: 12"
LAYER = "blocks.1.conv"
HELD = (CUBE, CANVAS, "steps: 5000 snapshot_every: 0")
SHARED = "neurofv_jobs_shared_total"


def _channel(number: int, field: str = "objective") -> str:
    return f'{field} {{ terms {{ channel {{ layer: "{LAYER}" channel: {number} }} }} }}'


# Which jobs go together.


def _share(*parts: str, settings: Settings | None = None) -> Share:
    bundle = read_bundle(ZOO / "lesion-shapes" / "1")
    return sharing.share_of(make_plan(request(*parts), bundle, settings or Settings(repository=ZOO)))


def _together(one: Share, other: Share) -> bool:
    return company(one, [other], Room(64, 8_000_000)) == [0]


@pytest.mark.parametrize(
    "parts",
    [
        (_channel(3), RUN),
        (_channel(5), RUN),
        (_channel(5), RUN, "seed: 9"),
        (_channel(5), RUN, "samples: 2"),
        (_channel(5), _channel(6, "batch"), RUN),
        (_channel(5), _channel(6), RUN),
    ],
)
def test_jobs_that_differ_in_their_volumes_go_together(parts: tuple[str, ...]) -> None:
    one = _share(_channel(3), RUN)
    assert _together(one, _share(*parts))
    assert _together(_share(*parts), one)


@pytest.mark.parametrize(
    "parts",
    [
        (CUBE, RUN),  # another layer
        (_channel(3).replace("blocks.1", "blocks.2"), RUN),
        (_channel(3), RUN.replace("steps: 12", "steps: 13")),
        (_channel(3), RUN.replace("snapshot_every: 4", "snapshot_every: 3")),
        (_channel(3), RUN.replace("i: 48", "i: 52")),
        (_channel(3), RUN.replace("x: 0", "x: 8")),
        (_channel(3), RUN, "optimizer { adam { learning_rate: 0.02 } }"),
        (_channel(3), RUN, "parameterization { voxels {} }"),
        (_channel(3), RUN, "transforms { jitter_mm: 1 }"),
        (_channel(3).replace("terms", "behind_nonlinearities: true terms"), RUN),
        (_channel(3), RUN, "control { random_weights {} }"),
    ],
)
def test_jobs_that_differ_in_anything_else_do_not(parts: tuple[str, ...]) -> None:
    one = _share(_channel(3), RUN)
    other = _share(*parts)
    assert other.method
    assert not _together(one, other)


def test_controls_go_together_if_their_weights_are_the_same() -> None:
    one, same, other = (
        _share(_channel(number), RUN, f"control {{ random_weights {{ seed: {seed} }} }}")
        for number, seed in ((3, 1), (4, 1), (4, 2))
    )
    assert _together(one, same)
    assert not _together(one, other)


@pytest.mark.parametrize(
    "parts",
    [
        ("stopping { seconds: 60 }",),
        ("stopping { plateau_looks: 2 }",),
        ("stopping { activation: 5 }",),
        ("parameterization { patch {} }",),
        ("regularization { regularizers { diversity {} } }",),
        ('comparisons { transfer_model: "lesion-shapes" }',),
    ],
)
def test_who_runs_alone(parts: tuple[str, ...]) -> None:
    one = _share(_channel(3), RUN, *parts)
    assert not _together(one, one)


def test_a_job_counts_its_volumes_and_the_voxels_at_once() -> None:
    found = _share(_channel(3), _channel(4, "batch"), RUN, "samples: 3 transforms { copies: 2 }")
    assert (found.volumes, found.voxels) == (6, 6 * 2 * 24**3)


def test_company_is_taken_in_order_as_far_as_it_fits() -> None:
    def job(volumes: int, voxels: int, method: bytes = b"m") -> Share:
        return Share(method, volumes, voxels)

    waiting = [job(1, 10), job(1, 10, b"other"), job(9, 10), job(1, 90), job(2, 20), job(1, 1)]
    assert company(job(1, 10), waiting, Room(4, 100)) == [0, 4]
    assert company(job(1, 10), waiting, Room(5, 100)) == [0, 4, 5]
    assert company(job(1, 10), waiting, sharing.NO_ROOM) == []
    assert company(sharing.ALONE, [sharing.ALONE], Room(4, 100)) == []


def test_a_cpu_shares_small_canvases_and_a_gpu_what_fits() -> None:
    settings = Settings(repository=ZOO)
    assert sharing.room(settings, "cpu") == Room(settings.max_batch, sharing.CPU_VOXELS)
    assert sharing.room(settings, "cuda") == Room(settings.max_batch, settings.max_voxels)
    few = Settings(repository=ZOO, max_voxels=1000)
    assert sharing.room(few, "cpu").voxels == 1000
    assert sharing.room(Settings(repository=ZOO, share_batches=False), "cuda") == sharing.NO_ROOM


# What the callers see.


class Call(threading.Thread):
    """A client of its own, which reads as fast as it can."""

    def __init__(self, server: RunningServer, *parts: str, model: str = "lesion-shapes") -> None:
        super().__init__(daemon=True)
        self.events: list[vis.VisualizeResponse] = []
        self.error: grpc.RpcError | None = None
        self.call = server.visualization.Visualize(request(*parts, model=model), timeout=240)
        self.start()

    def run(self) -> None:
        try:
            for event in self.call:
                self.events.append(event)
        except grpc.RpcError as error:
            self.error = error

    @property
    def steps(self) -> int:
        return sum(event.HasField("progress") for event in self.events)

    @property
    def stream(self) -> Stream:
        self.join(240)
        assert not self.is_alive()
        return Stream(self.events)

    def snapshots(self) -> dict[str, bytes]:
        stream = self.stream
        kinds = {name: begin.kind for name, begin in stream.begins.items()}
        return {name: stream.volumes[name] for name in kinds if kinds[name] == vis.VOLUME_KIND_INTERMEDIATE}

    def heard(self) -> list[vis.VisualizeResponse]:
        """Return all that came but snapshots, of which a newer one may take the place, without times."""
        kept, snapshots = [], self.snapshots()
        for event in self.events:
            which = event.WhichOneof("event")
            if which == "volume_skipped" or (
                which.startswith("volume_") and getattr(event, which).id in snapshots
            ):
                continue
            bare = vis.VisualizeResponse()
            bare.CopyFrom(event)
            bare.ClearField("time")
            bare.ClearField("sequence")
            match which:
                case "accepted":
                    bare.accepted.ClearField("job")
                case "progress":
                    bare.progress.ClearField("step_seconds")
                case "completed":
                    bare.completed.provenance.ClearField("started")
                    bare.completed.provenance.ClearField("finished")
            kept.append(bare)
        return kept


def _wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def _behind(server: RunningServer, *asked: tuple[str, ...], model: str = "lesion-shapes") -> list[Call]:
    """Let jobs wait behind another one, then cancel that; return the calls, that one first."""
    held = Call(server, *HELD, model=model)
    _wait(lambda: held.steps > 0)
    calls = []
    for parts in asked:
        calls.append(Call(server, *parts, model=model))
        _wait(lambda: server.metric("neurofv_queue_depth") == len(calls))
    held.call.cancel()
    return [held, *calls]


def _at_once(server: RunningServer, *asked: tuple[str, ...], model: str = "lesion-shapes") -> list[Call]:
    """Let jobs wait until all are there, then go; return their calls."""
    return _behind(server, *asked, model=model)[1:]


def _alone(server: RunningServer, *parts: str, model: str = "lesion-shapes") -> Call:
    call = Call(server, *parts, model=model)
    call.join(240)
    return call


def _assert_as_alone(
    server: RunningServer, calls: list[Call], asked: list[tuple[str, ...]], model: str = "lesion-shapes"
) -> None:
    """Send the requests again, one after the other, and compare all that came."""
    for call in calls:
        call.join(240)
    for call, parts in zip(calls, asked, strict=True):
        alone = _alone(server, *parts, model=model)
        assert call.heard() == alone.heard()
        assert (call.error is None) == (alone.error is None)
        mine, theirs = call.snapshots(), alone.snapshots()
        assert mine.keys() & theirs.keys() or not theirs
        for name in mine.keys() & theirs.keys():
            assert mine[name] == theirs[name], name


JOBS = [
    (_channel(3), RUN),
    (_channel(7), _channel(9, "batch"), RUN),
    (_channel(3), RUN, "seed: 4 samples: 2"),
    (_channel(11), RUN, "seed: 5"),
]


def test_jobs_that_share_a_batch_receive_what_they_receive_alone(server: RunningServer) -> None:
    before = server.metric(SHARED)
    calls = _at_once(server, *JOBS)
    _assert_as_alone(server, calls, JOBS)
    assert [call.stream.kinds()[-1] for call in calls] == ["completed"] * len(JOBS)
    assert server.metric(SHARED) == before + len(JOBS)
    assert server.metric("neurofv_jobs_running") == 0


def test_metrics_count_every_job_of_a_shared_batch(server: RunningServer) -> None:
    names = {
        'neurofv_jobs_finished_total{model="lesion-shapes",reason="",state="SUCCEEDED"}': 2,
        "neurofv_time_to_first_volume_seconds_count": 2,
        # The job that held the others up counts too.
        "neurofv_queue_wait_seconds_count": 3,
        'neurofv_job_duration_seconds_count{model="lesion-shapes"}': 3,
    }
    steps = 'neurofv_optimizer_steps_total{model="lesion-shapes"}'
    before, done = {name: server.metric(name) for name in names}, server.metric(steps)
    first, second = (_channel(3), RUN), (_channel(7), RUN)
    held, *calls = _behind(server, first, second)
    _wait(lambda: server.metric("neurofv_jobs_running") == 2)
    assert [call.stream.kinds()[-1] for call in calls] == ["completed"] * 2
    assert {name: server.metric(name) - before[name] for name in names} == names
    # Some steps of the cancelled job were counted and not received.
    assert 24 <= server.metric(steps) - done - held.steps < 36
    assert server.metric("neurofv_jobs_running") == 0


def test_a_cancelled_job_leaves_the_others_as_they_are(server: RunningServer) -> None:
    long = RUN.replace("steps: 12", "steps: 40")
    cancelled = 'neurofv_jobs_finished_total{model="lesion-shapes",reason="",state="CANCELLED"}'
    first, second, third = _at_once(server, *((_channel(number), long) for number in (3, 7, 9)))
    _wait(lambda: min(call.steps for call in (first, second, third)) > 1)
    before = server.metric(cancelled)
    first.call.cancel()
    _wait(lambda: server.metric(cancelled) == before + 1)
    assert second.steps < 40
    assert server.metric("neurofv_jobs_running") == 2
    _assert_as_alone(server, [second, third], [(_channel(number), long) for number in (7, 9)])


def test_when_all_are_cancelled_the_batch_stops(server: RunningServer) -> None:
    endless = RUN.replace("steps: 12", "steps: 5000")
    calls = _at_once(server, *((_channel(number), endless) for number in (3, 7)))
    _wait(lambda: min(call.steps for call in calls) > 1)
    for call in calls:
        call.call.cancel()
    _wait(lambda: server.metric("neurofv_jobs_running") == 0, 10)
    assert _alone(server, *JOBS[0]).stream.kinds()[-1] == "completed"


def test_a_job_that_diverges_fails_alone(server: RunningServer) -> None:
    # With so much weight the objective is within single precision at first, and beyond it at step 3.
    term = f'terms {{ weight: 3.93e35 channel {{ layer: "{LAYER}" channel: 3 }} }} '
    huge = f"objective {{ {32 * term} }}"
    run = RUN.replace("snapshot_every: 4", "snapshot_every: 2")
    asked = [(_channel(7), run), (huge, run), (_channel(9), run)]
    before = server.metric(SHARED)
    calls = _at_once(server, *asked)
    _assert_as_alone(server, calls, asked)
    assert server.metric(SHARED) == before + 3
    assert [call.error is None for call in calls] == [True, False, True]
    _, reason, metadata = failure(calls[1].error)
    assert (reason, metadata["step"]) == ("OPTIMISATION_DIVERGED", "3")
    assert calls[1].steps == 2
    (warning,) = (entry for entry in server.log if entry["event"] == "shared_batch_failed")
    assert (warning["reason"], warning["jobs_again_alone"]) == ("OPTIMISATION_DIVERGED", 3)


def test_a_dead_unit_is_its_own_jobs_error(server: RunningServer) -> None:
    before = server.metric(SHARED)
    asked = [(_channel(4), RUN), (_channel(5), RUN), (_channel(4), RUN, "samples: 2")]
    calls = _at_once(server, *asked, model="lifeless")
    _assert_as_alone(server, calls, asked, model="lifeless")
    assert failure(calls[0].error)[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "UNIT_DEAD")
    assert calls[0].steps == calls[2].steps == 8
    assert calls[1].error is calls[2].error is None
    assert server.metric(SHARED) == before + 3


def test_a_lost_worker_costs_every_job_of_its_batch_an_attempt() -> None:
    running = RunningServer(ZOO, threads=1)
    alone = [_alone(running, *job).stream for job in (JOBS[0], JOBS[3])]
    long = RUN.replace("steps: 12", "steps: 200")
    calls = _at_once(running, *((_channel(number), long) for number in (3, 7)))
    _wait(lambda: min(call.steps for call in calls) > 1)
    (worker,) = running.workers()
    os.kill(worker, signal.SIGKILL)
    for call in calls:
        assert call.stream.kinds()[-1] == "completed"
        assert call.stream.kinds().count("progress") == 200
        attempts = [event.state_changed.attempt for event in call.events if event.state_changed.attempt]
        assert attempts == [1, 2]
    again = [_alone(running, *job).stream for job in (JOBS[0], JOBS[3])]
    for one, other in zip(alone, again, strict=True):
        assert one.begins["final"].sha256 == other.begins["final"].sha256
    assert running.stop() == 0


def test_share_batches_false_runs_jobs_one_after_the_other() -> None:
    running = RunningServer(ZOO, threads=1, share_batches=False)
    calls = _at_once(running, JOBS[0], JOBS[3])
    assert [call.stream.kinds()[-1] for call in calls] == ["completed"] * 2
    assert running.metric(SHARED) == 0
    assert running.stop() == 0
