"""How a stream that breaks is taken up again, on messages alone."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from neurofv import NeurofvError, StreamBroken
from neurofv.course import Course
from neurofv.errors import from_status, unreachable
from neurofv.events import Collector, Order
from neurofv.retries import Patience
from neurofv.v1 import job_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import Draining, InvalidField, QueueFull, QuotaExceeded, StorageFull
from service.status import to_status
from tests.client.streams import SHAPE, a_request, a_stream, file_of, numbered, some_volume

STREAM = a_stream(snapshots=2, extras={"gradient": np.ones(SHAPE)})
BREAK = unreachable("host:1", "Socket closed")


def course(detach: bool = False, **options: float) -> Course:
    request = a_request()
    request.detach = detach
    return Course(request, Patience(options.get("seconds", 60.0)))


def rest(call: pb.WatchJobRequest) -> list[pb.WatchJobResponse]:
    return [pb.WatchJobResponse(event=event) for event in STREAM if event.sequence > call.after_sequence]


@pytest.mark.parametrize("place", range(len(STREAM) + 1))
def test_wherever_a_stream_breaks_the_rest_follows(place: int) -> None:
    taken, collector = course(), Collector()
    first = taken.next_call()
    assert isinstance(first, vis.VisualizeRequest)
    seen = [taken.take(event) for event in STREAM[:place]]
    assert 0 <= taken.broken(BREAK) < 1
    if taken.over:
        assert place == len(STREAM)
    elif place == 0:
        again = taken.next_call()
        assert again == first
        assert again.request_id
        seen += [taken.take(event) for event in STREAM]
        taken.end()
    else:
        again = taken.next_call()
        assert isinstance(again, pb.WatchJobRequest)
        assert again.name == "jobs/1"
        seen += [taken.take(response) for response in rest(again)]
        taken.end()
    for event in seen:
        collector.take(event)
    result = collector.result()
    assert result.volume.bytes == file_of(some_volume())
    assert [snapshot.step for snapshot in result.snapshots] == [1, 2]
    whole = [event.sequence for event in seen if event.WhichOneof("event") != "volume_chunk"]
    assert sorted(set(whole)) == list(range(1, STREAM[-1].sequence + 1))
    assert not taken.abandoned


def test_nothing_may_follow_the_result() -> None:
    taken = course()
    for event in STREAM:
        taken.take(event)
    with pytest.raises(StreamBroken, match="after the completed"):
        taken.take(numbered([STREAM[2]], after=STREAM[-1].sequence)[0])
    with pytest.raises(StreamBroken):
        taken.broken(StreamBroken("one event too many"))


def test_a_snapshot_that_made_room_during_the_break_is_told_as_skipped() -> None:
    begin = next(place for place, event in enumerate(STREAM) if event.HasField("volume_begin"))
    number, collector, order = STREAM[begin].sequence, Collector(), Order()
    for event in STREAM[: begin + 2]:
        collector.take(order.check(event))
    order.restart()
    skipped = vis.VisualizeResponse(sequence=number, volume_skipped=vis.VolumeSkipped(id="step00001", step=1))
    kinds = [
        collector.take(order.check(event)) for event in [skipped, *STREAM] if event.sequence > order.whole
    ]
    assert kinds[0] == skipped.volume_skipped
    assert [snapshot.step for snapshot in collector.result().snapshots] == [2]


def test_attempts_are_told() -> None:
    moved = vis.StateChanged(state=vis.JOB_STATE_RUNNING, attempt=2, from_step=40)
    stream = numbered([*STREAM[:3], vis.VisualizeResponse(state_changed=moved), *STREAM[3:]])
    collector = Collector()
    events = [collector.take(event) for event in stream]
    assert moved in events
    assert collector.result().volume.final


def test_watching_begins_behind_any_event() -> None:
    watched = Course(pb.WatchJobRequest(name="jobs/1", after_sequence=3), Patience(60))
    call = watched.next_call()
    assert [watched.take(response).sequence for response in rest(call)][:1] == [4]
    watched.end()
    nothing = Course(pb.WatchJobRequest(name="jobs/1", after_sequence=STREAM[-1].sequence), Patience(60))
    nothing.end()
    cut = Course(pb.WatchJobRequest(name="jobs/1", after_sequence=3), Patience(60))
    cut.take(pb.WatchJobResponse(event=STREAM[3 + 1 - 1]))
    with pytest.raises(StreamBroken):
        cut.end()


def test_who_leaves_after_a_break_leaves_a_job_that_runs() -> None:
    for detach in (False, True):
        taken = course(detach)
        for event in STREAM[:3]:
            taken.take(event)
        assert not taken.abandoned
        taken.broken(BREAK)
        assert taken.abandoned is not detach
    watched = Course(pb.WatchJobRequest(name="jobs/1"), Patience(60))
    watched.take(rest(watched.next_call())[0])
    watched.broken(BREAK)
    assert not watched.abandoned


@pytest.mark.parametrize(
    ("detach", "lost", "says"), [(False, True, True), (True, True, False), (False, False, False)]
)
def test_a_job_cancelled_for_a_lost_connection_names_the_remedy(detach: bool, lost: bool, says: bool) -> None:
    moved = vis.VisualizeResponse(state_changed=vis.StateChanged(state=vis.JOB_STATE_CANCELLED))
    taken = course(detach)
    for event in STREAM[:3]:
        taken.take(event)
    if lost:
        taken.broken(BREAK)
    taken.take(numbered([moved], after=3)[0])
    with pytest.raises(NeurofvError) as caught:
        taken.end()
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.CANCELLED, "JOB_CANCELLED")
    assert ("detach=True" in str(caught.value)) is says
    assert not taken.abandoned


def test_what_a_job_failed_of_is_told_once() -> None:
    taken = course()
    moved = vis.VisualizeResponse(state_changed=vis.StateChanged(state=vis.JOB_STATE_FAILED))
    for event in [*STREAM[:2], *numbered([moved], after=2)]:
        taken.take(event)
    assert taken.broken(BREAK) < 1  # its reason has not come yet
    with pytest.raises(NeurofvError, match="WORKER_LOST"):
        taken.broken(NeurofvError(grpc.StatusCode.UNAVAILABLE, "WORKER_LOST", "gone"))
    assert not taken.abandoned


def test_who_gives_up_is_told_how_to_go_on() -> None:
    taken = course(seconds=0)
    for event in STREAM[:3]:
        taken.take(event)
    with pytest.raises(NeurofvError, match="jobs/1 can be watched from event 3 on") as caught:
        taken.broken(unreachable("host:1", "Socket closed"))
    assert caught.value.metadata["after_sequence"] == "3"


@pytest.mark.parametrize("detach", [False, True])
def test_a_deadline_ends_the_job_only_if_nothing_is_detached(detach: bool) -> None:
    taken = course(detach)
    for event in STREAM[:3]:
        taken.take(event)
    said = "the call's deadline has passed; the server has stopped its work"
    with pytest.raises(NeurofvError) as caught:
        taken.broken(NeurofvError(grpc.StatusCode.DEADLINE_EXCEEDED, "", said))
    assert ("goes on; jobs/1 can be watched from event 3 on" in str(caught.value)) is detach
    assert (said in str(caught.value)) is not detach


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pauses_grow_until_the_time_is_over() -> None:
    clock = Clock()
    patience = Patience(20, clock=clock)
    pauses = []
    while clock.now < 20 - 1e-9:
        pauses.append(patience.pause(BREAK))
        clock.now += pauses[-1]
    with pytest.raises(NeurofvError, match="Socket closed"):
        patience.pause(BREAK)
    assert 0.1 <= pauses[0] <= 0.2
    assert 2.5 <= max(pauses) <= 5
    assert len(pauses) < 15
    patience.reward()
    assert patience.pause(BREAK) <= 0.2


def test_a_deadline_holds_for_all_calls_together() -> None:
    clock = Clock()
    patience = Patience(300, 10, clock)
    assert patience.timeout == 10
    clock.now = 4
    assert patience.timeout == 6
    clock.now = 9.95
    assert patience.pause(BREAK) <= 0.05 + 1e-9
    clock.now = 10
    with pytest.raises(NeurofvError):
        patience.pause(BREAK)


def test_the_servers_hint_is_kept_to() -> None:
    assert 5 <= Patience(60).pause(from_status(to_status(Draining()))) <= 6


@pytest.mark.parametrize(
    "error",
    [
        QueueFull("full"),
        QuotaExceeded("jobs waiting", "too many"),
        StorageFull("no room"),
        InvalidField("steps", "is -1"),
    ],
)
def test_a_refusal_is_never_tried_again(error: Exception) -> None:
    with pytest.raises(NeurofvError):
        Patience(60).pause(from_status(to_status(error)))


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name not in ("OK", "UNAVAILABLE")])
def test_only_unavailable_passes(code: grpc.StatusCode) -> None:
    with pytest.raises(NeurofvError):
        Patience(60).pause(NeurofvError(code, "", "no"))
