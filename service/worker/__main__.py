"""The worker process: takes one batch of jobs at a time from the server and optimizes.

It is a process of its own, so that a fault in the device's driver or a kill
costs one job and not the service. It ends when the server does.
"""

import argparse
import json
import os
import queue
import signal
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import structlog
import torch
from google.rpc import status_pb2

from models import Bundle, Repository
from neurofv.v1 import visualization_service_pb2 as vis
from service.device import choose_device
from service.errors import ServiceError
from service.jobs.plan import Plan, make_plan
from service.observability.logs import configure_logs
from service.settings import Settings
from service.status import reason_of, to_status
from service.volumes.nifti import VolumeFile
from service.worker import memory, wire
from service.worker.estimate import Estimator
from service.worker.model import LoadedModel
from service.worker.run import Event, Stopped, run

_log = structlog.get_logger()


@dataclass
class Task:
    """A job as the worker has it.

    Attributes
    ----------
    number : int
        The job's on the wire.
    request : bytes
        A resolved VisualizeRequest.
    sent : int
        Events and volumes that the server has been sent.
    ended : bool
        Whether it has been told how the job ended.
    """

    number: int
    request: bytes
    sent: int = 0
    ended: bool = False


class Worker:
    """Runs jobs that arrive on a socket.

    Parameters
    ----------
    connection : socket
        To the server.
    settings : Settings
        The server's.
    """

    def __init__(self, connection: socket.socket, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._repository = Repository(settings.repository)
        self._device = choose_device(settings.device)
        if self._device.type == "cuda":
            # On the CPU everything that the engine uses is deterministic as it is.
            torch.use_deterministic_algorithms(True, warn_only=True)
        self._models: dict[str, LoadedModel] = {}
        self._jobs: queue.SimpleQueue[wire.Frame] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._writer = ThreadPoolExecutor(1)
        self._snapshot: Future[None] | None = None
        self._estimator = Estimator(settings)
        self._estimates: queue.SimpleQueue[wire.Frame] = queue.SimpleQueue()

    def serve(self) -> None:
        """Warm the models up, then run jobs until the server goes away."""
        for entry in self._repository.entries():
            if entry.ready:
                self._model(self._repository.get(entry.name, entry.version))
        threading.Thread(target=self._listen, daemon=True).start()
        self._send(wire.Kind.READY, 0, self._device.type.encode())
        tasks: list[Task] = []
        while True:
            frame = self._jobs.get()
            self._answer_estimates(busy=False)
            if frame.kind != wire.Kind.ESTIMATE:
                tasks.append(Task(frame.job, frame.data))
            if frame.kind == wire.Kind.RUN:
                self._run(tasks)
                self._cancelled.difference_update(task.number for task in tasks)
                tasks = []

    def _listen(self) -> None:
        """Take jobs and cancellations while a job runs; end the process with the server."""
        try:
            while True:
                frame = wire.receive(self._connection)
                if frame.kind == wire.Kind.CANCEL:
                    self._cancelled.add(frame.job)
                    continue
                if frame.kind == wire.Kind.ESTIMATE:
                    self._estimates.put(frame)
                # An estimate wakes whoever waits for a job.
                self._jobs.put(frame)
        except (EOFError, ConnectionError):
            os._exit(0)

    def _run(self, tasks: Sequence[Task]) -> None:
        """Run jobs as one batch; if that fails, each by itself, so that none fails for another's sake."""
        status = self._attempt(tasks)
        memory.give_back()
        if status is None:
            return
        if len(tasks) == 1:
            self._fail(tasks[0], status)
            return
        self._end_if_spoiled(status)
        again = [task for task in tasks if not task.ended]
        _log.warning("shared_batch_failed", reason=reason_of(status), jobs_again_alone=len(again))
        for task in again:
            self._run([task])

    def _attempt(self, tasks: Sequence[Task]) -> status_pb2.Status | None:
        """Run jobs as one batch; return what failed of the batch as a whole."""
        heard = [0] * len(tasks)
        try:
            plans = [self._plan(task.request) for task in tasks]
            first = plans[0]
            model = self._model(first.bundle)
            other = self._model(first.other) if first.other else None
            cancelled = [partial(self._is_cancelled, task) for task in tasks]
            for number, item in run(plans, model, self._settings, other, cancelled):
                heard[number] += 1
                # A job that runs again has been told its beginning.
                if heard[number] > tasks[number].sent or isinstance(item, Stopped | Exception):
                    self._tell(tasks[number], item)
                self._answer_estimates(busy=True)
            self._await_snapshot()
        except Exception as error:
            with suppress(Exception):  # the first failure is the one to tell
                self._await_snapshot()
            # No more than its description: the failed batch must not hold memory while its jobs run again.
            return to_status(error)
        return None

    def _is_cancelled(self, task: Task) -> bool:
        return task.number in self._cancelled

    def _plan(self, data: bytes) -> Plan:
        request = vis.VisualizeRequest.FromString(data)
        bundle = self._repository.get(request.model, request.version)
        wanted = request.comparisons
        other = None
        if wanted.transfer_model:
            other = self._repository.get(wanted.transfer_model, wanted.transfer_version)
        return make_plan(request, bundle, self._settings, other)

    def _tell(self, task: Task, item: Event | Stopped | Exception) -> None:
        """Send the server what there is to say of a job."""
        # What was begun comes first; if it fails, this has not been told.
        self._await_snapshot()
        task.sent += 1
        if callable(item):
            # Its file is written and sent beside the next step.
            self._snapshot = self._writer.submit(lambda: self._send_volume(task, item()))
            return
        if isinstance(item, Exception):
            self._fail(task, to_status(item))
        elif isinstance(item, Stopped):
            task.ended = True
            self._send(wire.Kind.STOPPED, task.number)
        elif isinstance(item, VolumeFile):
            self._send_volume(task, item)
        elif item.HasField("completed"):
            task.ended = True
            self._send(wire.Kind.SUCCEEDED, task.number, item.SerializeToString())
        else:
            self._send(wire.Kind.EVENT, task.number, item.SerializeToString())

    def _send_volume(self, task: Task, file: VolumeFile) -> None:
        payload = wire.pack_volume(file.begin.SerializeToString(), file.data)
        self._send(wire.Kind.VOLUME, task.number, payload)

    def _await_snapshot(self) -> None:
        """Let the snapshot that is being written be sent first: one thing after the other, in order."""
        if self._snapshot is not None:
            last, self._snapshot = self._snapshot, None
            last.result()

    def _fail(self, task: Task, status: status_pb2.Status) -> None:
        task.ended = True
        self._send(wire.Kind.FAILED, task.number, status.SerializeToString())
        self._end_if_spoiled(status)

    def _end_if_spoiled(self, status: status_pb2.Status) -> None:
        """End the process if a fault on a GPU has spoiled it for later jobs; the server starts another."""
        if self._device.type == "cuda" and reason_of(status) == ServiceError.reason:
            os._exit(1)

    def _answer_estimates(self, busy: bool) -> None:
        """Answer the estimates that are asked for: at once, or between two steps of a job.

        Not in another thread beside the job: torch.fx, with which networks are
        traced, changes every module of the process while it traces.
        """
        if not self._estimates.empty():
            # Nothing else is said meanwhile, and one at a time: the job goes on in between.
            self._await_snapshot()
            frame = self._estimates.get()
            try:
                plan = self._plan(frame.data)
                answer = self._estimator.estimate(plan, self._model(plan.bundle))
                answer.busy = busy
                self._send(wire.Kind.ESTIMATED, frame.job, answer.SerializeToString())
            except Exception as error:
                status = to_status(error)
                self._send(wire.Kind.NOT_ESTIMATED, frame.job, status.SerializeToString())

    def _model(self, bundle: Bundle) -> LoadedModel:
        if bundle.digest not in self._models:
            self._models[bundle.digest] = LoadedModel.load(bundle, self._device)
        return self._models[bundle.digest]

    def _send(self, kind: wire.Kind, job: int, data: bytes = b"") -> None:
        try:
            self._connection.sendall(wire.Frame(kind, job, data).encode())
        except ConnectionError:
            os._exit(0)


def main() -> None:
    """Run a worker on the socket that the server has passed on."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--settings", type=json.loads, required=True)
    arguments = parser.parse_args()
    settings = Settings(**arguments.settings)
    configure_logs(settings.log_format, settings.log_level)
    # Ctrl-C in a terminal and a service manager's SIGTERM reach the whole group; when the worker ends is
    # for the server to say.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    torch.set_num_threads(settings.threads or len(os.sched_getaffinity(0)))
    Worker(socket.socket(fileno=arguments.fd), settings).serve()


if __name__ == "__main__":
    main()
