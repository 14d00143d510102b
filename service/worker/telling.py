"""What the worker says of its jobs, in the order in which it came about."""

import os
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import structlog
from google.rpc import status_pb2

from service.failpoints import failpoint
from service.volumes.nifti import VolumeFile
from service.worker import wire
from service.worker.run import Event, Paused, Stopped

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
        Events and volumes that the server has been sent, also by a worker before this one.
    checkpoint : bytes
        Where it is to go on; empty for the beginning.
    ended : bool
        Whether it has been told how the job ended, or that it is paused.
    """

    number: int
    request: bytes
    sent: int = 0
    checkpoint: bytes = b""
    ended: bool = False


class Teller:
    """Sends the server what there is to say.

    Parameters
    ----------
    connection : socket
        To the server.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._writer = ThreadPoolExecutor(1)
        self._snapshot: Future[None] | None = None

    def tell(self, task: Task, item: Event) -> None:
        """Tell what has come of a job; the next one of its life."""
        # What was begun comes first; if it fails, this has not been told.
        self.await_snapshot()
        task.sent += 1
        if callable(item):
            # Its file is written and sent beside the next step.
            self._snapshot = self._writer.submit(lambda: self._send_volume(task, item()))
        elif isinstance(item, VolumeFile):
            self._send_volume(task, item)
        elif item.HasField("completed"):
            task.ended = True
            self.send(wire.Kind.SUCCEEDED, task.number, item.SerializeToString())
        else:
            self.send(wire.Kind.EVENT, task.number, item.SerializeToString())
            failpoint("worker.step")

    def checkpoint(self, task: Task, told: int, step: int, data: bytes) -> None:
        """Send a job's checkpoint.

        Parameters
        ----------
        task : Task
            The job.
        told : int
            Events and volumes that had been made of it.
        step : int
            Steps done.
        data : bytes
            The checkpoint.
        """
        self.await_snapshot()
        payload = wire.pack_state(told, step, data)
        if len(payload) > wire.MAX_FRAME_BYTES:
            _log.warning("checkpoint_too_large", bytes=len(payload), limit=wire.MAX_FRAME_BYTES)
            return
        failpoint("worker.before_checkpoint")
        self.send(wire.Kind.CHECKPOINT, task.number, payload)

    def end(self, task: Task, how: Stopped | Paused) -> None:
        """Tell that no more comes of a job for now."""
        self.await_snapshot()
        task.ended = True
        self.send(wire.Kind.STOPPED if isinstance(how, Stopped) else wire.Kind.PAUSED, task.number)

    def fail(self, task: Task, status: status_pb2.Status) -> None:
        """Tell that a job has failed."""
        self.await_snapshot()
        task.ended = True
        self.send(wire.Kind.FAILED, task.number, status.SerializeToString())

    def await_snapshot(self) -> None:
        """Let the snapshot that is being written be sent first: one thing after the other, in order."""
        if self._snapshot is not None:
            last, self._snapshot = self._snapshot, None
            last.result()

    def send(self, kind: wire.Kind, job: int, data: bytes = b"") -> None:
        """Send a frame; without a server there is nothing left to do."""
        try:
            self._connection.sendall(wire.Frame(kind, job, data).encode())
        except ConnectionError:
            os._exit(0)

    def _send_volume(self, task: Task, file: VolumeFile) -> None:
        payload = wire.pack_volume(file.begin.SerializeToString(), file.data)
        self.send(wire.Kind.VOLUME, task.number, payload)
