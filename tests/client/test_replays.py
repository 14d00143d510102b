"""A recorded job's request once more, on messages alone."""

from __future__ import annotations

import hashlib

import pytest

from neurofv import InvalidRequest
from neurofv.replays import compare, differences, replay_request
from neurofv.v1 import job_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis
from tests.client.streams import a_completion, a_request

ONE, TWO = b"one person", b"another"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def a_job() -> pb.Job:
    request = a_request()
    request.subject.sha256 = digest(ONE)
    for data, name in ((TWO, "cube"), (ONE, "torus")):
        entry = request.comparisons.real_images.add(class_name=name)
        entry.image.sha256 = digest(data)
    completed = a_completion(request, {"final": b"a", "gradient": b"b"}, 1)
    return pb.Job(name="jobs/1", state=vis.JOB_STATE_SUCCEEDED, request=request, completed=completed)


def test_images_find_their_places_by_digest() -> None:
    job = a_job()
    request = replay_request(job, [TWO, ONE])
    assert request.subject.nifti == ONE
    assert [real.image.nifti for real in request.comparisons.real_images] == [TWO, ONE]
    assert job.request.subject.nifti == b""
    assert not request.request_id


def test_images_that_are_missing_or_strange_are_named() -> None:
    with pytest.raises(InvalidRequest, match=digest(TWO)):
        replay_request(a_job(), [ONE])
    with pytest.raises(InvalidRequest, match=f"{digest(b'x')}, but the job was given"):
        replay_request(a_job(), [ONE, TWO, b"x"])
    plain = a_job()
    plain.request.CopyFrom(a_request())
    with pytest.raises(InvalidRequest, match="no image at all"):
        replay_request(plain, [ONE])


def test_only_what_has_a_result_is_run_again() -> None:
    job = a_job()
    job.ClearField("completed")
    job.state = vis.JOB_STATE_FAILED
    with pytest.raises(InvalidRequest, match="it is failed"):
        replay_request(job, [ONE, TWO])


def test_every_volume_is_compared() -> None:
    recorded, now = vis.Provenance(), vis.Provenance()
    recorded.volumes.update({"final": "1", "gradient": "2", "jacobian": "3"})
    now.volumes.update({"final": "1", "gradient": "9", "opacity": "4"})
    found = {each.volume: each.equal for each in compare(recorded, now)}
    assert found == {"final": True, "gradient": False, "jacobian": False, "opacity": False}


def test_what_may_change_bits_is_said() -> None:
    recorded, now = a_job().completed, a_job().completed
    assert differences(recorded, now) == []
    recorded.provenance.software.update({"torch": "2.13", "numpy": "2.0"})
    now.provenance.software.update({"torch": "2.14", "numpy": "2.0"})
    recorded.provenance.threads, now.provenance.threads = 4, 2
    recorded.provenance.model_digest, now.provenance.model_digest = "a", "b"
    recorded.provenance.device = now.provenance.device = "cuda:0"
    now.evaluation.stop_reason = vis.STOP_REASON_TIME
    assert differences(recorded, now)[:3] == [
        *("model digest: recorded a, now b", "threads: recorded 4, now 2"),
        "torch: recorded 2.13, now 2.14",
    ]
    assert "order that is not fixed" in differences(recorded, now)[3]
    assert "limit of time" in differences(recorded, now)[4]
