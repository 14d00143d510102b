"""Jobs of an audit, on a server that is played."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from neurofv import NeurofvError
from neurofv.audit.jobs import Finding, Queue, patient
from neurofv.audit.plan import read_plan
from neurofv.audit.tasks import Task, Unit
from neurofv.retries import Patience
from neurofv.v1 import job_service_pb2 as jobs_pb
from neurofv.v1 import model_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis

PLAN = read_plan({"audit": 1, "model": "m", "units": [{"classes": "all"}]})
UNITS = tuple(Unit(f"u{number}", "conv", number) for number in range(4))
FAILED = vis.JOB_STATE_FAILED


def failure(reason: str, code: grpc.StatusCode = grpc.StatusCode.FAILED_PRECONDITION) -> NeurofvError:
    return NeurofvError(code, reason, f"because of {reason}")


class Server:
    """Plays the client and the server behind it.

    Parameters
    ----------
    behave : callable
        Given the units of a job and how often it was watched; returns an error, or None if it succeeds.
    old : dict
        Jobs that there are already, in order of creation: error or state.
    """

    def __init__(
        self, behave: Callable[[int, int], NeurofvError | None], old: list[jobs_pb.Job] | None = None
    ) -> None:
        self.behave, self.old = behave, old or []
        self.created: list[str] = []
        self.watched: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        self._reconnect = 1.0

    def _patience(self) -> Patience:
        return Patience(1.0)

    def create_job(self, request: vis.VisualizeRequest, *, request_id: str) -> jobs_pb.Job:
        self.created.append(request_id)
        if self.old:
            return self.old.pop(0)
        name = f"jobs/{request_id}"
        self.sizes[name] = 1 + len(request.batch)
        return jobs_pb.Job(name=name, state=vis.JOB_STATE_QUEUED)

    def watch(self, name: str, **_: Any) -> Any:
        self.watched[name] = self.watched.get(name, 0) + 1
        error = self.behave(self.sizes[name], self.watched[name])
        if error is not None:
            raise error
        return SimpleNamespace(items=["picture"] * self.sizes[name])


def run(server: Server, units: tuple[Unit, ...] = UNITS) -> list[tuple[Task, Any]]:
    model = pb.Model(name="m", version=1)
    folder: Any = SimpleNamespace(note_job=lambda request_id, job: None)
    client: Any = server
    queue = Queue(client, PLAN, model, folder, lambda task: task.request(PLAN, model))
    return list(queue.run([Task(units, "default", 0, "none")], lambda task, event: None))


@pytest.mark.parametrize("reason", ["VOLUME_TOO_LARGE", "GPU_MEMORY_EXHAUSTED"])
def test_what_is_too_much_for_one_job_is_split(reason: str) -> None:
    found = run(Server(lambda size, _: failure(reason) if size > 1 else None))
    assert [[unit.id for unit in task.units] for task, _ in found] == [["u0"], ["u1"], ["u2"], ["u3"]]


def test_a_unit_that_cannot_be_driven_spoils_no_other() -> None:
    seen: list[int] = []

    def behave(size: int, _: int) -> NeurofvError | None:
        seen.append(size)
        # The third job of one unit.
        return failure("OPTIMISATION_DIVERGED") if size > 1 or seen.count(1) == 3 else None

    found = run(Server(behave))
    assert [isinstance(result, Finding) for _, result in found] == [False, False, True, False]
    assert found[2][1].error.reason == "OPTIMISATION_DIVERGED"


@pytest.mark.parametrize("reason", ["ATTEMPTS_EXHAUSTED", "MODEL_CHANGED", "JOB_CANCELLED", "INTERNAL"])
def test_what_is_no_doing_of_the_model_ends_the_run(reason: str) -> None:
    with pytest.raises(NeurofvError, match=reason):
        run(Server(lambda *_: failure(reason)))


@pytest.mark.parametrize(
    "old",
    [
        jobs_pb.Job(name="jobs/old", state=vis.JOB_STATE_CANCELLED),
        jobs_pb.Job(name="jobs/old", state=FAILED, error=jobs_pb.JobError(reason="ATTEMPTS_EXHAUSTED")),
    ],
)
def test_a_job_that_ended_without_an_answer_is_begun_anew(old: jobs_pb.Job) -> None:
    server = Server(lambda *_: None, [old, old])
    assert len(run(server)) == 1
    assert len(set(server.created)) == 3


def test_a_server_that_has_lost_its_jobs_is_asked_again() -> None:
    server = Server(lambda _, times: failure("JOB_NOT_FOUND") if times == 1 else None)
    assert len(run(server)) == 1
    assert len(server.created) == 2
    assert len(set(server.created)) == 1
    with pytest.raises(NeurofvError, match="JOB_NOT_FOUND"):
        run(Server(lambda *_: failure("JOB_NOT_FOUND")))


def test_calls_wait_for_a_server_that_is_away_or_full() -> None:
    errors = [
        failure("SERVER_UNREACHABLE", grpc.StatusCode.UNAVAILABLE),
        NeurofvError(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "full", retry_after_seconds=0.01),
    ]

    def call() -> str:
        if errors:
            raise errors.pop(0)
        return "answer"

    client: Any = Server(lambda *_: None)
    assert patient(client, call) == "answer"
    for final in (
        failure("ROLE_REQUIRED", grpc.StatusCode.PERMISSION_DENIED),
        failure("WORKER_LOST", grpc.StatusCode.UNAVAILABLE),
    ):
        errors.append(final)
        with pytest.raises(NeurofvError, match=final.reason):
            patient(client, call)
