"""The worker process: takes one job at a time from the server and optimizes.

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

import torch

from models import Repository
from neurofv.v1 import visualization_service_pb2 as vis
from service.device import choose_device
from service.errors import ServiceError
from service.jobs.plan import Plan, make_plan
from service.observability.logs import configure_logs
from service.settings import Settings
from service.status import reason_of, to_status
from service.volumes.nifti import VolumeFile
from service.worker import wire
from service.worker.estimate import Estimator
from service.worker.model import LoadedModel
from service.worker.run import run


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
        self._estimator = Estimator(settings)
        self._estimates: queue.SimpleQueue[wire.Frame] = queue.SimpleQueue()

    def serve(self) -> None:
        """Warm the models up, then run jobs until the server goes away."""
        for entry in self._repository.entries():
            if entry.ready:
                self._model(entry.name, entry.version)
        threading.Thread(target=self._listen, daemon=True).start()
        self._send(wire.Kind.READY, 0)
        while True:
            frame = self._jobs.get()
            self._answer_estimates(busy=False)
            if frame.kind == wire.Kind.RUN:
                self._run(frame.job, frame.data)
                self._cancelled.discard(frame.job)

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

    def _run(self, job: int, data: bytes) -> None:
        try:
            plan, model, other = self._plan(data)
            last = wire.Kind.STOPPED, b""
            for item in run(plan, model, self._settings, other, lambda: job in self._cancelled):
                if isinstance(item, VolumeFile):
                    payload = wire.pack_volume(item.begin.SerializeToString(), item.data)
                    self._send(wire.Kind.VOLUME, job, payload)
                elif item.HasField("completed"):
                    last = wire.Kind.SUCCEEDED, item.SerializeToString()
                else:
                    self._send(wire.Kind.EVENT, job, item.SerializeToString())
                self._answer_estimates(busy=True)
            self._send(last[0], job, last[1])
        except Exception as error:
            status = to_status(error)
            self._send(wire.Kind.FAILED, job, status.SerializeToString())
            if self._device.type == "cuda" and reason_of(status) == ServiceError.reason:
                # A fault on a GPU spoils the process for every later job; the server starts another.
                os._exit(1)

    def _answer_estimates(self, busy: bool) -> None:
        """Answer the estimates that are asked for: at once, or between two steps of a job.

        Not in another thread beside the job: torch.fx, with which networks are
        traced, changes every module of the process while it traces.
        """
        while not self._estimates.empty():
            frame = self._estimates.get()
            try:
                plan, model, _ = self._plan(frame.data)
                answer = self._estimator.estimate(plan, model)
                answer.busy = busy
                self._send(wire.Kind.ESTIMATED, frame.job, answer.SerializeToString())
            except Exception as error:
                status = to_status(error)
                self._send(wire.Kind.NOT_ESTIMATED, frame.job, status.SerializeToString())

    def _plan(self, data: bytes) -> tuple[Plan, LoadedModel, LoadedModel | None]:
        """Plan a request; return the plan with its model and the second one, if it names one."""
        request = vis.VisualizeRequest.FromString(data)
        model = self._model(request.model, request.version)
        wanted = request.comparisons
        other = self._model(wanted.transfer_model, wanted.transfer_version) if wanted.transfer_model else None
        plan = make_plan(request, model.bundle, self._settings, other.bundle if other else None)
        return plan, model, other

    def _model(self, name: str, version: int) -> LoadedModel:
        bundle = self._repository.get(name, version)
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
