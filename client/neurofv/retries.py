"""What is tried again, when, and for how long.

Short calls are repeated by gRPC itself, as `SERVICE_CONFIG` says. Streams are
taken up again by the clients; `Patience` tells when.
"""

import json
import random
import time
from collections.abc import Callable

import grpc

from neurofv.errors import NeurofvError

# Calls that change nothing when they come twice. CreateJob is one of them because a request_id is always
# set. Not DeleteJob, which would fail the second time, nor Estimate and Probe: a worker that one kills is
# not to be killed again, for whose jobs run there.
REPEATED = {
    "ModelService": ("ListModels", "GetModel"),
    "JobService": ("CreateJob", "GetJob", "ListJobs", "CancelJob", "PinJob"),
}
SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [
                    {"service": f"neurofv.v1.{service}", "method": method}
                    for service, methods in REPEATED.items()
                    for method in methods
                ],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        # Where most calls fail, repeating them would keep the server down.
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }
)

DEFAULT_RECONNECT_SECONDS = 300.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0


class Patience:
    """How long a stream that breaks is taken up again, over all breaks since something last came.

    Parameters
    ----------
    reconnect_seconds : float
        Longest time without anything; 0 to give up at the first break.
    deadline_seconds : float or None
        Longest time in all.
    clock : callable
        Seconds that only grow.
    """

    def __init__(
        self,
        reconnect_seconds: float,
        deadline_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._seconds = reconnect_seconds
        self._deadline = None if deadline_seconds is None else clock() + deadline_seconds
        self._since: float | None = None
        self._pause = _FIRST_PAUSE

    @property
    def timeout(self) -> float | None:
        """What is left of the deadline, for the next call."""
        return None if self._deadline is None else max(0.0, self._deadline - self._clock())

    def reward(self) -> None:
        """Begin anew: something has come."""
        self._since, self._pause = None, _FIRST_PAUSE

    def pause(self, error: NeurofvError) -> float:
        """Return for how many seconds to wait before the next try.

        Parameters
        ----------
        error : NeurofvError
            What broke the stream.

        Raises
        ------
        NeurofvError
            The error itself: it will not pass, or the time is over.
        """
        if error.code is not grpc.StatusCode.UNAVAILABLE or self._seconds <= 0:
            raise error
        now = self._clock()
        self._since = now if self._since is None else self._since
        # Many clients lose a server at once; they must not all come back at once.
        pause = self._pause * random.uniform(0.5, 1.0)
        if error.retry_after_seconds is not None:
            pause = max(0.0, error.retry_after_seconds) * random.uniform(1.0, 1.2)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        end = self._since + self._seconds
        if self._deadline is not None:
            end = min(end, self._deadline)
        if now >= end:
            raise error
        # Not beyond the end: the last try is made there.
        return min(pause, end - now)
