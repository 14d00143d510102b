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
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import structlog
import torch
from google.rpc import status_pb2

import engine
from models import Repository
from neurofv.v1 import visualization_service_pb2 as vis
from service.device import choose_device
from service.errors import ServiceError
from service.jobs.control import control_seed
from service.jobs.plan import Plan, make_plan
from service.observability.logs import configure_logs
from service.oip import open_inference_pb2 as oip
from service.settings import Settings
from service.status import reason_of, to_status
from service.worker import checkpoint, memory, wire
from service.worker.checkpoint import Checkpoint, DamagedCheckpoint, Pace
from service.worker.estimate import Estimator
from service.worker.inference import infer
from service.worker.model import LoadedModel, Models
from service.worker.probe import probe
from service.worker.run import Paused, Stopped, run
from service.worker.telling import Task, Teller

_log = structlog.get_logger()


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
        self._models = Models(self._device)
        self._jobs: queue.SimpleQueue[wire.Frame] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._teller = Teller(connection)
        self._told: dict[int, tuple[int, bytes]] = {}
        # Pauses that have arrived, and those whose turn in the queue has come: each is counted in one thread.
        self._pauses = self._pauses_done = 0
        self._estimator = Estimator(settings)
        self._questions: queue.SimpleQueue[wire.Frame] = queue.SimpleQueue()

    def serve(self) -> None:
        """Warm the models up, then run jobs until the server goes away."""
        loads = []
        for entry in self._repository.entries():
            if entry.ready:
                begun = time.monotonic()
                self._models.get(self._repository.get(entry.name, entry.version))
                loads.append(time.monotonic() - begun)
        threading.Thread(target=self._listen, daemon=True).start()
        facts = [self._device.type, *(f"{seconds:.6f}" for seconds in loads)]
        self._teller.send(wire.Kind.READY, 0, " ".join(facts).encode())
        tasks: list[Task] = []
        while True:
            frame = self._jobs.get()
            self._answer_question(busy=False)
            if frame.kind == wire.Kind.RESUME:
                told, _, data = wire.unpack_state(frame.data)
                self._told[frame.job] = told, data
            elif frame.kind in (wire.Kind.JOIN, wire.Kind.RUN):
                tasks.append(Task(frame.job, frame.data, *self._told.pop(frame.job, ())))
            elif frame.kind == wire.Kind.PAUSE:
                # Those that had been begun have stopped meanwhile.
                self._put_off(tasks)
                self._pauses_done += 1
                tasks = []
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
                if frame.kind in (wire.Kind.ESTIMATE, wire.Kind.INFER, wire.Kind.PROBE):
                    self._questions.put(frame)
                if frame.kind == wire.Kind.PAUSE:
                    self._pauses += 1
                # A question wakes whoever waits for a job. A pause is over when all that came before it is.
                self._jobs.put(frame)
        except (EOFError, ConnectionError):
            os._exit(0)

    def _pausing(self) -> bool:
        return self._pauses > self._pauses_done

    def _put_off(self, tasks: Sequence[Task]) -> None:
        """Tell of jobs that have not been begun that they will not be, for now."""
        for task in tasks:
            self._teller.end(task, Stopped() if self._is_cancelled(task) else Paused())
        self._cancelled.difference_update(task.number for task in tasks)

    def _run(self, tasks: Sequence[Task]) -> None:
        """Run jobs as one batch; if that fails, each by itself, so that none fails for another's sake."""
        if self._pausing():
            self._put_off(tasks)
            return
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
        try:
            plans = [self._plan(task.request) for task in tasks]
            self._optimize(tasks, plans, self._resumed(tasks, plans))
            self._teller.await_snapshot()
        except engine.StateMismatch as error:
            # Nothing has been told: it is noticed before the first step.
            _log.warning("checkpoint_not_used", why=str(error))
            tasks[0].checkpoint = b""
            return self._attempt(tasks)
        except Exception as error:
            with suppress(Exception):  # the first failure is the one to tell
                self._teller.await_snapshot()
            # No more than its description: the failed batch must not hold memory while its jobs run again.
            return to_status(error)
        return None

    def _optimize(self, tasks: Sequence[Task], plans: Sequence[Plan], resume: Checkpoint | None) -> None:
        """Run jobs as one batch, and tell what comes of each."""
        model = self._models.get(plans[0].bundle, plans[0].control)
        other = self._models.get(plans[0].other) if plans[0].other else None
        made_with = [checkpoint.fingerprint(plan, self._device) for plan in plans]
        if not self._measure(tasks, plans, model):
            self._put_off(tasks)
            return
        cancelled = [partial(self._is_cancelled, task) for task in tasks]
        heard = [resume.told if resume else 0] * len(tasks)
        pace = Pace(self._settings.checkpoint_seconds)
        for number, item in run(
            plans,
            model,
            self._settings,
            other,
            cancelled,
            pausing=self._pausing,
            wants_checkpoint=pace.due,
            resume=resume,
        ):
            task = tasks[number]
            if isinstance(item, Checkpoint):
                data = checkpoint.write(replace(item, told=heard[number]), made_with[number])
                self._teller.checkpoint(task, heard[number], item.state.step, data)
                pace.sent()
            elif isinstance(item, Stopped | Paused):
                self._teller.end(task, item)
            elif isinstance(item, Exception):
                self._fail(task, to_status(item))
            else:
                heard[number] += 1
                # A job that runs again has been told its beginning.
                if heard[number] > task.sent:
                    self._teller.tell(task, item)
            self._answer_question(busy=True)

    def _measure(self, tasks: Sequence[Task], plans: Sequence[Plan], model: LoadedModel) -> bool:
        """Measure what controls need before their first step; return False if they are to stop before it."""
        for plan in plans:
            for _ in model.measure(plan):
                self._answer_question(busy=True)
                if self._pausing() or all(self._is_cancelled(task) for task in tasks):
                    return False
        return True

    def _resumed(self, tasks: Sequence[Task], plans: Sequence[Plan]) -> Checkpoint | None:
        """Return where a job goes on; None for the beginning, to which every job can return."""
        if not any(task.checkpoint for task in tasks):
            return None
        assert len(tasks) == 1, "a job that goes on shares its batch with no other"
        task = tasks[0]
        try:
            found = checkpoint.read(task.checkpoint, checkpoint.fingerprint(plans[0], self._device))
        except DamagedCheckpoint as error:
            why = str(error)
        else:
            if found is None:
                why = "it was made with other software, threads, model or request"
            elif found.told > task.sent:
                # What came between would never be told.
                why = f"{found.told} events came before it, but {task.sent} were told"
            else:
                return found
        _log.warning("checkpoint_not_used", why=why)
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

    def _fail(self, task: Task, status: status_pb2.Status) -> None:
        self._teller.fail(task, status)
        self._end_if_spoiled(status)

    def _end_if_spoiled(self, status: status_pb2.Status) -> None:
        """End the process if a fault on a GPU has spoiled it for later jobs; the server starts another."""
        if self._device.type == "cuda" and reason_of(status) == ServiceError.reason:
            os._exit(1)

    def _answer_question(self, busy: bool) -> None:
        """Answer a question that waits: at once, or between two steps of a job.

        Not in another thread beside the job: torch.fx, with which networks are
        traced, changes every module of the process while it traces.
        """
        if not self._questions.empty():
            # Nothing else is said meanwhile, and one at a time: the job goes on in between.
            self._teller.await_snapshot()
            frame = self._questions.get()
            try:
                if frame.kind == wire.Kind.INFER:
                    self._teller.send(wire.Kind.INFERRED, frame.job, self._infer(frame.data))
                elif frame.kind == wire.Kind.PROBE:
                    self._teller.send(wire.Kind.PROBED, frame.job, self._probe(frame.data))
                else:
                    self._teller.send(wire.Kind.ESTIMATED, frame.job, self._estimate(frame.data, busy))
            except Exception as error:
                status = to_status(error)
                self._teller.send(wire.Kind.UNANSWERED, frame.job, status.SerializeToString())

    def _estimate(self, data: bytes, busy: bool) -> bytes:
        plan = self._plan(data)
        answer = self._estimator.estimate(plan, self._models.get(plan.bundle, plan.control))
        answer.busy = busy
        return answer.SerializeToString()

    def _infer(self, data: bytes) -> bytes:
        request = oip.ModelInferRequest.FromString(data)
        bundle = self._repository.get(request.model_name, int(request.model_version))
        return infer(request, self._models.get(bundle)).SerializeToString()

    def _probe(self, data: bytes) -> bytes:
        asked, volume = wire.unpack_volume(data)
        request = vis.ProbeRequest.FromString(asked)
        bundle = self._repository.get(request.model, request.version)
        return probe(request, volume, self._models.get(bundle, control_seed(request))).SerializeToString()


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
