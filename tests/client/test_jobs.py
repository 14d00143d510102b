"""Jobs through both clients, against the real server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import neurofv
from neurofv.v1 import visualization_service_pb2 as vis
from tests.client.fakes import Wire
from tests.client.running import MODEL, SMALL, wait_for
from tests.server import RunningServer

LONG = {"class_name": "cube", "canvas_mm": 48, "steps": 9999, "snapshot_every": 0}


@pytest.fixture(scope="module")
def done(server: RunningServer) -> Iterator[str]:
    """A job that has succeeded."""
    with neurofv.Client(server.target) as client:
        job = client.create_job(MODEL, class_name="cube", snapshot_every=1, **SMALL)
        client.watch(job.name)
        yield job.name


def test_a_job_is_made_watched_and_read(client: neurofv.Client, tmp_path: Path) -> None:
    job = client.create_job(MODEL, class_name="cube", snapshot_every=1, pinned=True, **SMALL)
    assert job.name.startswith("jobs/")
    assert job.pinned
    events: list[neurofv.Event] = []
    result = client.watch(job.name, on_event=events.append)
    assert [event.step for event in events if isinstance(event, vis.Progress)] == [1, 2, 3]
    assert result.job == job.name
    assert client.job(job.name).state == vis.JOB_STATE_SUCCEEDED
    alone = client.visualize(MODEL, class_name="cube", snapshot_every=1, **SMALL)
    assert alone.volume.bytes == result.volume.bytes
    assert client.read_volume(job.name).bytes == result.volume.bytes
    gradient = client.download(job.name, "gradient", tmp_path / "g.nii.gz")
    assert gradient.read_bytes() == result.extras["gradient"].bytes
    assert client.download(job.name, path=tmp_path).name == result.volume.file_name
    assert len(list(tmp_path.iterdir())) == 2
    assert not client.pin_job(job.name, False).pinned
    client.delete_job(job.name)
    with pytest.raises(neurofv.NeurofvError, match="JOB_NOT_FOUND"):
        client.job(job.name)


def test_the_same_request_id_is_the_same_job(client: neurofv.Client) -> None:
    choices = {"class_name": "cube", "request_id": "once-only"} | SMALL
    first, again = (client.create_job(MODEL, **choices) for _ in range(2))
    assert first.name == again.name
    with pytest.raises(neurofv.NeurofvError, match="REQUEST_ID_REUSED"):
        client.create_job(MODEL, **(choices | {"seed": 6}))
    assert client.visualize(MODEL, **choices).job == first.name


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_answer_that_is_lost_makes_no_second_job(
    server: RunningServer, client: neurofv.Client, kind: str
) -> None:
    wire = Wire(server.target)
    before = {job.name for job in client.jobs()}

    async def create() -> str:
        async with neurofv.AsyncClient(wire.target) as through:
            await through.models()
            wire.cut_at_the_next_answer()
            return (await through.create_job(MODEL, class_name="cube", **SMALL)).name

    try:
        if kind == "async":
            name = asyncio.run(create())
        else:
            with neurofv.Client(wire.target) as through:
                through.models()
                wire.cut_at_the_next_answer()
                name = through.create_job(MODEL, class_name="cube", **SMALL).name
    finally:
        wire.close()
    assert wire.cuts >= 2
    assert {job.name for job in client.jobs()} - before == {name}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_watching_can_begin_anywhere(client: neurofv.Client, done: str, share: float) -> None:
    whole = client.watch(done)
    after = int(share * client.job(done).last_sequence)
    assert [event.sequence for event in client.stream_job(done, after)][:1] in ([after + 1], [])
    late = client.watch(done, after)
    assert late.volume.bytes == whole.volume.bytes
    assert late.extras.keys() == whole.extras.keys()
    assert late.evaluation == whole.evaluation
    assert late.job == done


def test_leaving_a_watch_does_not_touch_the_job(client: neurofv.Client) -> None:
    job = client.create_job(MODEL, **LONG)
    stream = client.stream_job(job.name)
    assert next(stream).accepted.job == job.name
    stream.close()
    wait_for(lambda: client.job(job.name).state == vis.JOB_STATE_RUNNING)
    with pytest.raises(neurofv.NeurofvError, match="JOB_NOT_FINISHED"):
        client.delete_job(job.name)
    assert client.cancel_job(job.name).state in (vis.JOB_STATE_CANCELLING, vis.JOB_STATE_CANCELLED)
    with pytest.raises(neurofv.NeurofvError) as caught:
        client.watch(job.name)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.CANCELLED, "JOB_CANCELLED")
    assert "detach" not in str(caught.value)
    newest = client.job(job.name).last_sequence
    with pytest.raises(neurofv.NeurofvError, match="JOB_CANCELLED"):
        client.watch(job.name, newest)
    assert client.cancel_job(job.name).state == vis.JOB_STATE_CANCELLED


def test_a_detached_visualization_goes_on_alone(client: neurofv.Client) -> None:
    request = neurofv.build_request(MODEL, detach=True, class_name="cube", **(SMALL | {"steps": 20}))
    stream = client.stream(request)
    job = next(stream).accepted.job
    stream.close()
    assert client.watch(job).evaluation.step > 0


def test_jobs_are_listed_by_what_is_asked(client: neurofv.Client, done: str) -> None:
    assert done in [job.name for job in client.jobs(states="succeeded", model=MODEL)]
    assert done not in [job.name for job in client.jobs(states=["failed", "cancelled"])]
    assert list(client.jobs(model="nothing")) == []
    assert len(list(client.jobs(limit=1))) == 1


def test_a_volume_that_is_not_there_is_named(client: neurofv.Client, done: str, tmp_path: Path) -> None:
    with pytest.raises(neurofv.InvalidRequest, match="final, gradient"):
        client.download(done, "jacobian", tmp_path)
    with pytest.raises(neurofv.InvalidRequest, match=r"\.nii\.gz"):
        client.download(done, "final", tmp_path / "a.nii")
    assert list(tmp_path.iterdir()) == []


def test_the_other_client_does_the_same(server: RunningServer, done: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with neurofv.AsyncClient(server.target) as client:
            job = await client.create_job(MODEL, class_name="cube", **SMALL)
            result = await client.watch(job.name)
            assert (await client.read_volume(job.name)).bytes == result.volume.bytes
            path = await client.download(job.name, path=tmp_path / "a.nii.gz")
            assert path.read_bytes() == result.volume.bytes
            newest = (await client.job(job.name)).last_sequence
            assert (await client.watch(job.name, newest)).volume.bytes == result.volume.bytes
            assert [each async for each in client.stream_job(job.name, newest)] == []
            assert (await client.pin_job(job.name)).pinned
            assert (await client.cancel_job(job.name)).state == vis.JOB_STATE_SUCCEEDED
            assert job.name in [each.name async for each in client.jobs(states=["succeeded"])]
            await client.delete_job(job.name)
            assert job.name not in [each.name async for each in client.jobs()]

    asyncio.run(main())


def part_of(folder: Path) -> Path:
    (part,) = folder.glob(".*.part")
    return part


def test_a_download_goes_on_where_it_broke(server: RunningServer, done: str, tmp_path: Path) -> None:
    with neurofv.Client(server.target) as client:
        whole = client.read_volume(done)
    size = len(whole.bytes)
    wire = Wire(server.target, cut_after=size // 2)
    try:
        with neurofv.Client(wire.target) as client:
            path = client.download(done, path=tmp_path / "a.nii.gz")
    finally:
        wire.close()
    assert wire.cuts >= 1
    assert path.read_bytes() == whole.bytes
    assert [each.name for each in tmp_path.iterdir()] == ["a.nii.gz"]


def test_a_download_begun_by_another_process_is_taken_up(
    server: RunningServer, done: str, tmp_path: Path
) -> None:
    wire = Wire(server.target)
    try:
        with neurofv.Client(wire.target) as client:
            whole = client.read_volume(done)
            size = len(whole.bytes)
            part = tmp_path / f".a.nii.gz.{whole.sha256[:16]}.part"
            part.write_bytes(whole.bytes[: size - 1000])
            before = wire.received
            assert client.download(done, path=tmp_path / "a.nii.gz").read_bytes() == whole.bytes
            assert wire.received - before < size / 2
            # What lies there is not believed.
            part.write_bytes(bytes(size - 1000))
            with pytest.raises(neurofv.VolumeCorrupt, match="download it again"):
                client.download(done, path=tmp_path / "a.nii.gz")
            assert not part.exists()
            part.write_bytes(bytes(size + 1))
            path = client.download(done, path=tmp_path / "a.nii.gz")
            assert hashlib.sha256(path.read_bytes()).hexdigest() == whole.sha256
    finally:
        wire.close()


def test_a_download_that_cannot_go_on_stays_beside_its_target(
    server: RunningServer, done: str, tmp_path: Path
) -> None:
    with neurofv.Client(server.target) as client:
        size = len(client.read_volume(done).bytes)
    wire = Wire(server.target, cut_after=size // 2)
    try:
        with neurofv.Client(wire.target, reconnect_seconds=0) as client:
            with pytest.raises(neurofv.NeurofvError) as caught:
                client.download(done, path=tmp_path / "a.nii.gz")
            assert caught.value.code is grpc.StatusCode.UNAVAILABLE
            assert not (tmp_path / "a.nii.gz").exists()
            assert 0 <= part_of(tmp_path).stat().st_size < size
        with neurofv.Client(wire.target) as client:
            assert client.download(done, path=tmp_path / "a.nii.gz").stat().st_size == size
    finally:
        wire.close()


def test_a_lost_connection_cancels_unless_detached(server: RunningServer, client: neurofv.Client) -> None:
    wire = Wire(server.target)

    def cut(event: neurofv.Event) -> None:
        if isinstance(event, vis.Progress) and event.step == 5:
            wire.cut()

    # Long enough for the server to notice.
    choices = {"class_name": "cube", "canvas_mm": 48, "snapshot_every": 0, "seed": 3}
    try:
        with neurofv.Client(wire.target) as through:
            with pytest.raises(neurofv.NeurofvError, match="detach=True") as caught:
                through.visualize(MODEL, on_event=cut, steps=9999, **choices)
            assert client.job(caught.value.metadata["job"]).state == vis.JOB_STATE_CANCELLED
            steps: list[int] = []

            def follow(event: neurofv.Event) -> None:
                cut(event)
                if isinstance(event, vis.Progress):
                    steps.append(event.step)

            result = through.visualize(MODEL, on_event=follow, steps=60, detach=True, **choices)
    finally:
        wire.close()
    assert wire.cuts >= 2
    assert steps == list(range(1, 61))
    assert result.volume.bytes == client.visualize(MODEL, steps=60, **choices).volume.bytes
