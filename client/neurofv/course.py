"""The course of a stream of events: what to ask for first, and what after each break.

Both clients do the calling and the waiting; nothing here does either.
"""

import logging
import uuid

import grpc

from neurofv.errors import NeurofvError, StreamBroken, job_cancelled
from neurofv.events import Order
from neurofv.retries import Patience
from neurofv.v1 import job_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis

Call = vis.VisualizeRequest | pb.WatchJobRequest
# Nobody waits longer for a job to be cancelled that is left.
CANCEL_SECONDS = 5.0
_log = logging.getLogger(__name__)
_BREAKS = ("SERVER_UNREACHABLE", "SERVER_DRAINING")


class Course:
    """One stream as the caller sees it, over as many calls as it takes.

    Parameters
    ----------
    start : VisualizeRequest or WatchJobRequest
        What to begin with. Leaving a stream that began with the former stops its job, unless it says detach.
    patience : Patience
        Whether and when to go on after a break.
    """

    def __init__(self, start: Call, patience: Patience) -> None:
        self.patience = patience
        self.job = ""
        after = 0
        self._request: vis.VisualizeRequest | None = None
        if isinstance(start, pb.WatchJobRequest):
            self.job, after = start.name, start.after_sequence
        else:
            self._request = vis.VisualizeRequest()
            self._request.CopyFrom(start)
            # Sent again before the answer came, it must not make a second job.
            self._request.request_id = start.request_id or str(uuid.uuid4())
        self._order = Order(after)
        self._state = vis.JOB_STATE_UNSPECIFIED
        self._breaks = 0
        self.over = False

    @property
    def abandoned(self) -> bool:
        """Whether the job would run on unseen if nobody called CancelJob now."""
        return self._attached and bool(self.job) and self._breaks > 0 and not self.over

    def next_call(self) -> Call:
        """Return what to ask the server for."""
        if self._request is not None and not self.job:
            return self._request
        return pb.WatchJobRequest(name=self.job, after_sequence=self._order.whole)

    def take(self, response: "vis.VisualizeResponse | pb.WatchJobResponse") -> vis.VisualizeResponse:
        """Return the event of a response, if it is the next one.

        Raises
        ------
        StreamBroken
            It is not.
        """
        event = response.event if isinstance(response, pb.WatchJobResponse) else response
        self._order.check(event)
        self.patience.reward()
        if event.HasField("accepted"):
            self.job = event.accepted.job
        if event.HasField("state_changed"):
            self._state = event.state_changed.state
        return event

    def end(self) -> None:
        """Take note that the server has ended the stream without an error.

        Raises
        ------
        NeurofvError
            The job was cancelled.
        StreamBroken
            The stream is not complete.
        """
        self.over = True
        if self._state == vis.JOB_STATE_CANCELLED:
            raise job_cancelled(self.job, lost=self._attached and self._breaks > 0)
        self._order.finish()

    def broken(self, error: NeurofvError) -> float:
        """Return for how many seconds to wait before the next call; 0 if everything has come.

        Raises
        ------
        NeurofvError
            The stream cannot be taken up again.
        """
        if self._order.completed and not isinstance(error, StreamBroken):
            self.over = True
            return 0.0
        # What a job failed of is told at each call, and does not pass.
        if self._state == vis.JOB_STATE_FAILED and error.reason not in _BREAKS:
            self.over = True
        if self.over:
            raise error
        try:
            pause = self.patience.pause(error)
        except NeurofvError:
            if self.job:
                self._explain(error)
            raise
        _log.info("%s; trying again in %.1f s", error, pause)
        self._breaks += 1
        self._order.restart()
        return pause

    @property
    def _attached(self) -> bool:
        """Whether the job is to end when its caller leaves."""
        return self._request is not None and not self._request.detach

    def _explain(self, error: NeurofvError) -> None:
        """Tell how to go on with a stream that is given up."""
        if error.reason in _BREAKS:
            # What the server may still do is not undone, since nobody can tell.
            self.over = True
        elif error.code is grpc.StatusCode.DEADLINE_EXCEEDED and not self._attached:
            error.message = "the call's deadline has passed; the job goes on"
        else:
            return
        after = self._order.whole
        error.metadata |= {"job": self.job, "after_sequence": str(after)}
        error.message += f"; {self.job} can be watched from event {after} on"
