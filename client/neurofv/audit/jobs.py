"""The jobs of an audit: created once, watched to their end, taken up again wherever they stand."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import grpc

from neurofv.audit.folder import Folder
from neurofv.audit.plan import Plan
from neurofv.audit.tasks import Task, request_id
from neurofv.client import Client
from neurofv.errors import NeurofvError
from neurofv.events import Event
from neurofv.results import Visualization
from neurofv.v1 import job_service_pb2
from neurofv.v1 import model_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis

# What a network does, and no machine's or person's fault: it belongs in the report.
FINDINGS = ("OPTIMISATION_DIVERGED", "UNIT_DEAD")
# What fewer pictures at once may cure.
_TOO_MUCH = ("VOLUME_TOO_LARGE", "GPU_MEMORY_EXHAUSTED")
_GONE = ("JOB_NOT_FOUND", "ARTIFACT_EXPIRED", "VOLUME_NOT_FOUND")
# By what a probe asked for, perhaps: a worker is not to be killed twice, for whose jobs run there.
_LOST = "WORKER_LOST"
# Jobs that wait on the server behind the one that is watched: it never idles, and others get their turn.
_AHEAD = 3
_MOST_ATTEMPTS, _MOST_LOSSES = 100, 3
_Answer = TypeVar("_Answer")

Requests = Callable[[Task], vis.VisualizeRequest]


class Finding(Exception):
    """A picture that cannot be made.

    Parameters
    ----------
    task : Task
        Of one unit.
    error : NeurofvError
        Why.
    """

    def __init__(self, task: Task, error: NeurofvError) -> None:
        super().__init__(str(error))
        self.task, self.error = task, error


def patient(client: Client, call: Callable[[], _Answer]) -> _Answer:
    """Call, and call again while the server is away or has no room, as long as streams are taken up again.

    Parameters
    ----------
    client : Client
        Knows how long that is.
    call : callable
        What may come twice.

    Raises
    ------
    NeurofvError
        It failed for another reason, a lost worker among them, or for too long.
    """
    patience, full_since = client._patience(), 0.0
    while True:
        try:
            return call()
        except NeurofvError as error:
            if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and error.retry_after_seconds:
                full_since = full_since or time.monotonic()
                if time.monotonic() - full_since > client._reconnect:
                    raise
                time.sleep(min(error.retry_after_seconds, 5.0))
            elif error.reason == _LOST:
                raise
            else:
                time.sleep(patience.pause(error))


class Queue:
    """Runs tasks, a few of them waiting on the server at any time.

    Parameters
    ----------
    client : Client
        The server.
    plan, model
        What is audited.
    folder : Folder
        Where names of jobs are noted.
    request : callable
        Returns the request of a task.
    bound : sequence of str
        What else the work depends on and the request does not tell.
    """

    def __init__(
        self,
        client: Client,
        plan: Plan,
        model: pb.Model,
        folder: Folder,
        request: Requests,
        bound: Sequence[str] = (),
    ) -> None:
        self._client, self._plan, self._model, self._folder = client, plan, model, folder
        self._request, self._bound = request, bound

    def run(
        self, tasks: Sequence[Task], on_event: Callable[[Task, Event], None]
    ) -> Iterator[tuple[Task, Sequence[Visualization] | Finding]]:
        """Yield each task's pictures, in order; what one job cannot hold is made by several.

        Parameters
        ----------
        tasks : sequence of Task
            What is to be done.
        on_event : callable
            Told what happens on the way.

        Raises
        ------
        NeurofvError
            The server refuses or fails: the audit cannot go on.
        """
        waiting, created = deque(tasks), deque[tuple[Task, str]]()
        while waiting or created:
            while waiting and len(created) <= _AHEAD:
                task = waiting.popleft()
                try:
                    created.append((task, self._create(task)))
                except NeurofvError as error:
                    waiting.extendleft(reversed(_smaller(task, error)))
            if not created:
                continue
            task, job = created.popleft()
            try:
                yield task, self._watch(task, job, on_event)
            except NeurofvError as error:
                if error.reason in FINDINGS and len(task.units) == 1:
                    yield task, Finding(task, error)
                else:
                    waiting.extendleft(reversed(_smaller(task, error)))

    def _create(self, task: Task) -> str:
        """Create a task's job, or find it; one that was cancelled or lost to the machine is begun anew."""
        request = self._request(task)
        for attempt in range(_MOST_ATTEMPTS):
            name = request_id(self._plan, self._model, request, attempt, self._bound)
            create = partial(self._client.create_job, request, request_id=name)
            job = patient(self._client, create)
            if not _to_be_repeated(job):
                self._folder.note_job(name, job.name)
                return job.name
        message = f"{task.label}: {_MOST_ATTEMPTS} jobs were cancelled or lost, {job.name} the last of them"
        raise NeurofvError(grpc.StatusCode.FAILED_PRECONDITION, "ATTEMPTS_EXHAUSTED", message)

    def _watch(
        self, task: Task, job: str, on_event: Callable[[Task, Event], None]
    ) -> Sequence[Visualization]:
        tell = partial(on_event, task)
        for _ in range(_MOST_LOSSES):
            try:
                return self._client.watch(job, on_event=tell, keep_snapshots=False).items
            except NeurofvError as error:
                if error.reason not in _GONE:
                    raise
                # A server that has lost its jobs is asked anew.
                job = self._create(task)
        return self._client.watch(job, on_event=tell, keep_snapshots=False).items


def _to_be_repeated(job: job_service_pb2.Job) -> bool:
    """Say whether a job has ended without an answer."""
    if job.state in (vis.JOB_STATE_CANCELLED, vis.JOB_STATE_CANCELLING):
        return True
    return job.state == vis.JOB_STATE_FAILED and job.error.reason not in (*FINDINGS, *_TOO_MUCH)


def _smaller(task: Task, error: NeurofvError) -> list[Task]:
    """Return what to try in a task's place.

    Raises
    ------
    NeurofvError
        The error, if smaller jobs would not help.
    """
    if len(task.units) > 1 and error.reason in _TOO_MUCH:
        return task.halves()
    if len(task.units) > 1 and error.reason in FINDINGS:
        return task.singles()
    raise error
