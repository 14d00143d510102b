"""What is sent again, counted at a server that answers by a script."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

import neurofv
from neurofv.retries import REPEATED
from neurofv.v1 import job_service_pb2 as pb
from neurofv.v1 import model_service_pb2 as models
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import Draining, QueueFull, QuotaExceeded, StorageFull
from tests.client.fakes import fake_server
from tests.client.streams import a_request, a_stream, file_of, some_volume

GONE = grpc.StatusCode.UNAVAILABLE
STREAM = a_stream(snapshots=2)
CUT = next(place for place, event in enumerate(STREAM) if event.HasField("volume_chunk")) + 1
CALLS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "ListModels": (lambda client: client.models(), models.ListModelsResponse()),
    "GetModel": (lambda client: client.model("tiny"), models.GetModelResponse()),
    "Estimate": (lambda client: client.estimate(a_request()), vis.EstimateResponse()),
    "Probe": (lambda client: client.probe("tiny", b"an image"), vis.ProbeResponse()),
    "CreateJob": (lambda client: client.create_job(a_request()), pb.CreateJobResponse()),
    "GetJob": (lambda client: client.job("jobs/1"), pb.GetJobResponse()),
    "ListJobs": (lambda client: listed(client), pb.ListJobsResponse()),
    "CancelJob": (lambda client: client.cancel_job("jobs/1"), pb.CancelJobResponse()),
    "PinJob": (lambda client: client.pin_job("jobs/1"), pb.PinJobResponse()),
    "DeleteJob": (lambda client: client.delete_job("jobs/1"), pb.DeleteJobResponse()),
}
SAFE = [method for methods in REPEATED.values() for method in methods]


def listed(client: Any) -> Any:
    if isinstance(client, neurofv.Client):
        return list(client.jobs())

    async def gather() -> list[pb.Job]:
        return [job async for job in client.jobs()]

    return gather()


def run(kind: str, target: str, act: Callable[[Any], Any], **options: Any) -> Any:
    """Do something with a client of either kind."""
    if kind == "sync":
        with neurofv.Client(target, **options) as client:
            return act(client)

    async def main() -> Any:
        async with neurofv.AsyncClient(target, **options) as client:
            return await act(client)

    return asyncio.run(main())


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("method", SAFE)
def test_safe_calls_are_repeated(kind: str, method: str) -> None:
    act, answer = CALLS[method]
    with fake_server(**{method: [GONE, GONE, answer]}) as (fake, target):
        run(kind, target, act)
    first, *others = fake.requests[method]
    assert others == [first, first]
    if method == "CreateJob":
        assert len(first.request.request_id) == 36


@pytest.mark.parametrize("method", CALLS)
def test_no_call_is_repeated_for_ever(kind: str, method: str) -> None:
    act, _ = CALLS[method]
    with fake_server(**{method: [GONE]}) as (fake, target), pytest.raises(neurofv.NeurofvError) as caught:
        run(kind, target, act)
    assert caught.value.code is GONE
    assert len(fake.requests[method]) == (4 if method in SAFE else 1)


@pytest.mark.parametrize(
    "refusal",
    [
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ABORTED,
        QueueFull("full"),
        QuotaExceeded("jobs waiting", "too many"),
        StorageFull("no room"),
    ],
)
@pytest.mark.parametrize("method", ["CreateJob", "GetJob", "Visualize"])
def test_nothing_else_is_tried_again(kind: str, method: str, refusal: Any) -> None:
    act = CALLS[method][0] if method in CALLS else lambda client: client.visualize(a_request())
    with fake_server(**{method: [refusal]}) as (fake, target), pytest.raises(neurofv.NeurofvError):
        run(kind, target, act)
    assert len(fake.requests[method]) == 1


def test_a_server_that_is_down_is_not_kept_down() -> None:
    with fake_server(GetJob=[GONE]) as (fake, target), neurofv.Client(target) as client:
        for _ in range(10):
            with pytest.raises(neurofv.NeurofvError):
                client.job("jobs/1")
    assert len(fake.requests["GetJob"]) < 20


def watched(request: pb.WatchJobRequest) -> list[pb.WatchJobResponse]:
    return [pb.WatchJobResponse(event=event) for event in STREAM if event.sequence > request.after_sequence]


def test_a_broken_stream_goes_on_behind_the_last_whole_event(kind: str) -> None:
    events: list[neurofv.Event] = []
    acts: dict[str, Any] = {"Visualize": [[*STREAM[:CUT], GONE]], "WatchJob": [GONE, watched]}
    with fake_server(**acts) as (fake, target):
        result = run(kind, target, lambda client: client.visualize(a_request(), on_event=events.append))
    assert result.volume.bytes == file_of(some_volume())
    assert [type(event).__name__ for event in events] == [
        *("Accepted", "StateChanged", "Progress", "Volume", "Progress", "Volume", "Volume", "Completed")
    ]
    assert len(fake.requests["Visualize"]) == 1
    assert [request.after_sequence for request in fake.requests["WatchJob"]] == [STREAM[CUT].sequence - 1] * 2
    assert "CancelJob" not in fake.requests


def test_before_the_answer_the_same_request_is_sent(kind: str) -> None:
    with fake_server(Visualize=[GONE, [GONE], STREAM]) as (fake, target):
        result = run(kind, target, lambda client: client.visualize(a_request()))
    first, *others = fake.requests["Visualize"]
    assert others == [first, first]
    assert len(first.request_id) == 36
    assert result.volume.final


def test_a_request_id_of_ones_own_is_kept(kind: str) -> None:
    with fake_server(Visualize=[STREAM], CreateJob=[pb.CreateJobResponse()]) as (fake, target):
        run(kind, target, lambda client: client.visualize(a_request(), request_id="mine", detach=True))
        run(kind, target, lambda client: client.create_job("tiny", class_name="cube", request_id="other"))
    assert fake.requests["Visualize"][0].request_id == "mine"
    assert fake.requests["Visualize"][0].detach
    assert fake.requests["CreateJob"][0].request.request_id == "other"


def test_a_stream_need_not_be_taken_up(kind: str) -> None:
    act = lambda client: client.visualize(a_request())  # noqa: E731
    with (
        fake_server(Visualize=[[*STREAM[:CUT], GONE]]) as (fake, target),
        pytest.raises(neurofv.NeurofvError, match="can be watched from event"),
    ):
        run(kind, target, act, reconnect_seconds=0)
    assert dict(fake.requests).keys() == {"Visualize"}


def test_the_time_for_reconnecting_and_the_deadline_are_kept(kind: str) -> None:
    for options in ({"reconnect_seconds": 1.0}, {"deadline_seconds": 1.0}):
        begun = time.monotonic()
        acts: dict[str, Any] = {"Visualize": [[*STREAM[:3], GONE]], "WatchJob": [GONE]}
        with fake_server(CancelJob=[pb.CancelJobResponse()], **acts) as (fake, target):
            with pytest.raises(neurofv.NeurofvError):
                run(kind, target, lambda client: client.visualize(a_request()), **options)
            assert 0.8 < time.monotonic() - begun < 2
            assert len(fake.requests["WatchJob"]) > 1


def test_the_servers_hint_is_waited_for(kind: str) -> None:
    begun = time.monotonic()
    hint = Draining()
    hint.retry_after_seconds = 0.7  # type: ignore[misc]
    acts: dict[str, Any] = {"Visualize": [[*STREAM[:3], hint]], "WatchJob": [watched]}
    with fake_server(**acts) as (_, target):
        run(kind, target, lambda client: client.visualize(a_request()))
    assert 0.7 < time.monotonic() - begun < 3


def leave(kind: str, target: str, events: int, detach: bool) -> None:
    """Take so many events of a stream and leave it."""
    request = a_request()
    request.detach = detach
    if kind == "sync":
        with neurofv.Client(target) as client:
            stream = client.stream(request)
            for _ in range(events):
                next(stream)
            stream.close()
        return

    async def main() -> None:
        async with neurofv.AsyncClient(target) as client:
            stream = client.stream(request)
            for _ in range(events):
                await anext(stream)
            await stream.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("broken", [False, True])
def test_leaving_cancels_the_job_also_after_a_break(kind: str, broken: bool, detach: bool) -> None:
    hold = threading.Event()

    def slowly(request: pb.WatchJobRequest) -> list[Any]:
        return [*watched(request)[:2], hold]

    acts: dict[str, Any] = {"Visualize": [[*STREAM[:3], GONE if broken else hold]], "WatchJob": [slowly]}
    with fake_server(CancelJob=[pb.CancelJobResponse()], **acts) as (fake, target):
        leave(kind, target, 4 if broken else 3, detach)
        hold.set()
    cancelled = [request.name for request in fake.requests.get("CancelJob", [])]
    assert cancelled == (["jobs/1"] if broken and not detach else [])


def test_ctrl_c_while_waiting_cancels_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("neurofv.jobs.time.sleep", interrupted)
    acts: dict[str, Any] = {"Visualize": [[*STREAM[:3], GONE]], "CancelJob": [pb.CancelJobResponse()]}
    with (
        fake_server(**acts) as (fake, target),
        neurofv.Client(target) as client,
        pytest.raises(KeyboardInterrupt),
    ):
        client.visualize(a_request())
    assert len(fake.requests["CancelJob"]) == 1


def test_jobs_come_page_by_page(kind: str) -> None:
    def page(request: pb.ListJobsRequest) -> pb.ListJobsResponse:
        first = int(request.page_token or 0)
        last = min(first + request.page_size, 450)
        found = [pb.Job(name=f"jobs/{number}") for number in range(first, last)]
        return pb.ListJobsResponse(jobs=found, next_page_token=str(last) if last < 450 else "")

    async def gather(client: neurofv.AsyncClient, **options: Any) -> list[str]:
        return [job.name async for job in client.jobs(**options)]

    def names(client: Any, **options: Any) -> Any:
        if isinstance(client, neurofv.Client):
            return [job.name for job in client.jobs(**options)]
        return gather(client, **options)

    with fake_server(ListJobs=[page]) as (fake, target):
        everything = run(kind, target, names)
        some = run(kind, target, lambda client: names(client, limit=250, states=["running", 3], model="tiny"))
        with pytest.raises(neurofv.InvalidRequest, match="there are: queued"):
            run(kind, target, lambda client: names(client, states="asleep"))
    assert everything == [f"jobs/{number}" for number in range(450)]
    assert some == everything[:250]
    assert [request.page_size for request in fake.requests["ListJobs"]] == [200, 200, 200, 200, 50]
    assert list(fake.requests["ListJobs"][-1].states) == [vis.JOB_STATE_RUNNING, vis.JOB_STATE_SUCCEEDED]
    assert fake.requests["ListJobs"][-1].model == "tiny"
