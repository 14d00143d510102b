"""JobService and Operations in front of the real server: jobs that outlive calls."""

import hashlib
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import duration_pb2

from models import ZOO
from neurofv.v1 import job_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis
from tests.server import RunningServer
from tests.service.requests import CUBE, SMALL, Stream, failure, request, violations

TINY = (
    'objective { terms { channel { layer: "blocks.0.conv" channel: 2 } } }',
    "canvas { size_mm { i: 24 j: 24 k: 24 } } snapshot_every: 2 steps: 4",
)
LONG = (CUBE, SMALL, "steps: 5000 snapshot_every: 0")
ENDED = (vis.JOB_STATE_SUCCEEDED, vis.JOB_STATE_FAILED, vis.JOB_STATE_CANCELLED)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    found = RunningServer(ZOO, threads=1, data=tmp_path_factory.mktemp("data"))
    yield found
    assert found.stop() == 0


def _create(server: RunningServer, *parts: str, pinned: bool = False) -> pb.Job:
    return server.jobs.CreateJob(pb.CreateJobRequest(request=request(*parts), pinned=pinned)).job


def _get(server: RunningServer, name: str) -> pb.Job:
    return server.jobs.GetJob(pb.GetJobRequest(name=name)).job


def _watch(server: RunningServer, name: str, after: int = 0) -> Stream:
    asked = pb.WatchJobRequest(name=name, after_sequence=after)
    return Stream([answer.event for answer in server.jobs.WatchJob(asked, timeout=120)])


def _wait(server: RunningServer, name: str) -> pb.Job:
    end = time.monotonic() + 120
    while (job := _get(server, name)).state not in ENDED:
        assert time.monotonic() < end
        time.sleep(0.02)
    return job


def test_a_job_runs_without_its_caller_and_can_be_watched_ever_after(running: RunningServer) -> None:
    job = _create(running, *TINY)
    assert job.state == vis.JOB_STATE_QUEUED
    assert job.request == running_accepted(running, job.name)
    done = _wait(running, job.name)
    assert done.state == vis.JOB_STATE_SUCCEEDED
    assert (done.step, done.attempt, done.owner) == (4, 1, "local")
    first, again = _watch(running, job.name), _watch(running, job.name)
    assert first.events == again.events
    assert first.has_no_gaps()
    assert first.kinds()[0] == "accepted"
    assert first.kinds()[-1] == "completed"
    assert first.completed == done.completed
    assert {volume.id for volume in done.volumes} == set(first.volumes)
    assert done.stored_bytes == sum(map(len, first.volumes.values()))
    assert done.last_sequence == first.events[-1].sequence


def running_accepted(running: RunningServer, name: str) -> vis.VisualizeRequest:
    return _watch(running, name).accepted


def test_a_stream_goes_on_behind_any_event(running: RunningServer) -> None:
    name = _create(running, *TINY).name
    whole = _watch(running, name)
    last = whole.events[-1].sequence
    for after in range(1, last + 1):
        rest = _watch(running, name, after)
        assert rest.events == [event for event in whole.events if event.sequence > after]
    with pytest.raises(grpc.RpcError) as caught:
        _watch(running, name, last + 1)
    assert failure(caught.value)[:2] == (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE")


def test_a_download_goes_on_at_any_byte(running: RunningServer) -> None:
    name = _create(running, *TINY).name
    file = _watch(running, name).volumes["final"]
    for offset in (0, 1, len(file) // 2, len(file) - 1, len(file)):
        asked = pb.ReadVolumeRequest(name=name, volume="final", offset=offset)
        parts = list(running.jobs.ReadVolume(asked))
        assert b"".join(part.data for part in parts) == file[offset:]
        assert parts[0].volume.sha256 == hashlib.sha256(file).hexdigest()
        assert parts[0].offset == offset
        assert not any(part.HasField("volume") for part in parts[1:])
    for offset in (-1, len(file) + 1):
        with pytest.raises(grpc.RpcError) as caught:
            list(running.jobs.ReadVolume(pb.ReadVolumeRequest(name=name, volume="final", offset=offset)))
        assert failure(caught.value)[:2] == (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE")
        assert violations(caught.value) == ["offset"]
    with pytest.raises(grpc.RpcError) as caught:
        list(running.jobs.ReadVolume(pb.ReadVolumeRequest(name=name, volume="../jobs.sqlite3")))
    assert failure(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "VOLUME_NOT_FOUND")


def test_the_same_request_id_is_the_same_job(running: RunningServer) -> None:
    mark = f'request_id: "{uuid.uuid4()}"'
    first, second = _create(running, *TINY, mark), _create(running, *TINY, mark)
    assert first.name == second.name
    assert not first.request.request_id
    streamed = Stream(list(running.visualization.Visualize(request(*TINY, mark), timeout=120)))
    assert streamed.events[0].accepted.job == first.name
    with pytest.raises(grpc.RpcError) as caught:
        _create(running, *TINY, mark, "seed: 1")
    assert failure(caught.value) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "REQUEST_ID_REUSED",
        {"job": first.name},
    )
    with pytest.raises(grpc.RpcError) as caught:
        _create(running, *TINY, 'request_id: "a b"')
    assert violations(caught.value) == ["request_id"]


def test_lists_go_page_by_page_newest_first(running: RunningServer) -> None:
    names = [_create(running, *TINY, f"seed: {seed}").name for seed in range(5)]
    for name in names:
        _wait(running, name)
    found, token = [], ""
    while len(found) < 5:
        page = running.jobs.ListJobs(pb.ListJobsRequest(page_size=2, page_token=token))
        assert len(page.jobs) == 2
        found += [job.name for job in page.jobs]
        token = page.next_page_token
    assert found[:5] == names[::-1]
    assert not running.jobs.ListJobs(pb.ListJobsRequest(model="growth")).jobs
    assert not running.jobs.ListJobs(pb.ListJobsRequest(states=[vis.JOB_STATE_RUNNING])).jobs
    for bad in ("x", "-1", "٣"):
        with pytest.raises(grpc.RpcError) as caught:
            running.jobs.ListJobs(pb.ListJobsRequest(page_token=bad))
        assert violations(caught.value) == ["page_token"]


def test_cancel_and_delete(running: RunningServer) -> None:
    held, waiting = _create(running, *LONG), _create(running, *LONG)
    stream = running.jobs.WatchJob(pb.WatchJobRequest(name=held.name), timeout=120)
    next(answer for answer in stream if answer.event.progress.step == 2)
    with pytest.raises(grpc.RpcError) as caught:
        running.jobs.DeleteJob(pb.DeleteJobRequest(name=held.name))
    assert failure(caught.value)[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "JOB_NOT_FINISHED")
    assert running.jobs.CancelJob(pb.CancelJobRequest(name=waiting.name)).job.state == vis.JOB_STATE_CANCELLED
    answer = running.jobs.CancelJob(pb.CancelJobRequest(name=held.name)).job
    assert answer.state in (vis.JOB_STATE_CANCELLING, vis.JOB_STATE_CANCELLED)
    states = [answer.event.state_changed.state for answer in stream if answer.event.HasField("state_changed")]
    assert states == [vis.JOB_STATE_CANCELLING, vis.JOB_STATE_CANCELLED]
    # Again is no error, and changes nothing.
    before = _wait(running, held.name)
    running.jobs.CancelJob(pb.CancelJobRequest(name=held.name))
    assert _get(running, held.name) == before
    for name in (held.name, waiting.name):
        running.jobs.DeleteJob(pb.DeleteJobRequest(name=name))
        with pytest.raises(grpc.RpcError) as caught:
            _get(running, name)
        assert failure(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


@pytest.mark.parametrize("name", ["", "x", "jobs/", "jobs/../../etc/passwd", "jobs/" + "G" * 32, "models/a"])
def test_what_is_no_jobs_name(running: RunningServer, name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        _get(running, name)
    assert violations(caught.value) == ["name"]


def test_a_detached_visualization_goes_on_without_its_caller(running: RunningServer) -> None:
    call = running.visualization.Visualize(request(CUBE, SMALL, "steps: 30", "detach: true"), timeout=120)
    first = next(call)
    assert not first.accepted.request.detach
    call.cancel()
    assert _wait(running, first.accepted.job).state == vis.JOB_STATE_SUCCEEDED


def test_operations_are_the_same_jobs(running: RunningServer) -> None:
    stub = operations_pb2_grpc.OperationsStub(running.channel)
    name = _create(running, *TINY).name
    waited = stub.WaitOperation(
        operations_pb2.WaitOperationRequest(name=name, timeout=duration_pb2.Duration(seconds=60))
    )
    assert waited.done
    completed, job = vis.Completed(), pb.Job()
    assert waited.response.Unpack(completed)
    assert waited.metadata.Unpack(job)
    assert completed == _get(running, name).completed
    assert stub.GetOperation(operations_pb2.GetOperationRequest(name=name)) == waited
    held = _create(running, *LONG).name
    short = duration_pb2.Duration(nanos=10_000_000)
    assert not stub.WaitOperation(operations_pb2.WaitOperationRequest(name=held, timeout=short)).done
    stub.CancelOperation(operations_pb2.CancelOperationRequest(name=held))
    ended = stub.WaitOperation(operations_pb2.WaitOperationRequest(name=held))
    assert (ended.done, ended.error.code) == (True, 1)
    listed = stub.ListOperations(operations_pb2.ListOperationsRequest(page_size=2)).operations
    assert [operation.name for operation in listed] == [held, name]
    stub.DeleteOperation(operations_pb2.DeleteOperationRequest(name=held))
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetOperation(operations_pb2.GetOperationRequest(name=held))
    assert failure(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListOperations(operations_pb2.ListOperationsRequest(filter="done"))
    assert violations(caught.value) == ["filter"]


def test_what_has_expired_is_removed_and_what_is_pinned_never(tmp_path: Path) -> None:
    server = RunningServer(ZOO, threads=1, data=tmp_path, retention_hours=0, sweep_seconds=0.2)
    pinned = _create(server, *TINY, pinned=True).name
    gone = _create(server, *TINY, "seed: 3").name
    end = time.monotonic() + 60
    while gone in {job.name for job in server.jobs.ListJobs(pb.ListJobsRequest()).jobs}:
        assert time.monotonic() < end
        time.sleep(0.05)
    with pytest.raises(grpc.RpcError) as caught:
        _get(server, gone)
    assert failure(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "ARTIFACT_EXPIRED")
    time.sleep(0.5)
    assert _get(server, pinned).state == vis.JOB_STATE_SUCCEEDED
    assert _watch(server, pinned).kinds()[-1] == "completed"
    assert [folder.name for folder in (tmp_path / "volumes").iterdir()] == [pinned.removeprefix("jobs/")]
    server.jobs.PinJob(pb.PinJobRequest(name=pinned, pinned=False))
    while list((tmp_path / "volumes").iterdir()):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert server.stop() == 0


def test_quotas_of_a_caller(tmp_path: Path) -> None:
    server = RunningServer(ZOO, threads=1, data=tmp_path, caller_jobs=2, caller_voxel_steps=10**9)
    held = [_create(server, *LONG).name for _ in range(2)]
    with pytest.raises(grpc.RpcError) as caught:
        _create(server, *TINY)
    code, reason, facts = failure(caught.value)
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
    assert facts == {"quota": "jobs", "limit": "2", "actual": "3"}
    assert "QuotaFailure" in str(caught.value.trailing_metadata())
    for name in held:
        server.jobs.CancelJob(pb.CancelJobRequest(name=name))
        _wait(server, name)
    with pytest.raises(grpc.RpcError) as caught:
        _create(server, CUBE, "steps: 5000 canvas { size_mm {} }")
    assert failure(caught.value)[2]["quota"] == "voxel_steps"
    assert _wait(server, _create(server, *TINY).name).state == vis.JOB_STATE_SUCCEEDED
    assert server.stop() == 0


def test_jobs_wait_through_a_kill_of_the_server(tmp_path: Path) -> None:
    server = RunningServer(ZOO, threads=1, data=tmp_path, own_group=True)
    held, *waiting = [_create(server, CUBE, SMALL, f"steps: 30 seed: {seed}").name for seed in range(3)]
    stream = server.jobs.WatchJob(pb.WatchJobRequest(name=held), timeout=120)
    next(answer for answer in stream if answer.event.progress.step == 5)
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    again = RunningServer(ZOO, threads=1, data=tmp_path)
    jobs = [_wait(again, name) for name in (held, *waiting)]
    assert [job.state for job in jobs] == [vis.JOB_STATE_SUCCEEDED] * 3
    assert [job.attempt for job in jobs] == [2, 1, 1]
    assert all(_watch(again, job.name).has_no_gaps() for job in jobs)
    assert again.stop() == 0


def test_a_folder_belongs_to_one_server(running: RunningServer) -> None:
    with pytest.raises(RuntimeError, match="another server uses"):
        RunningServer(ZOO, data=running.data)
