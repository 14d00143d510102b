"""Pages of jobs, as both clients ask for them."""

from collections.abc import Sequence
from typing import Any

from neurofv.errors import InvalidRequest
from neurofv.v1 import job_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis

_PAGE = 200
_PREFIX = "JOB_STATE_"
STATES = tuple(name.removeprefix(_PREFIX).lower() for name in vis.JobState.keys()[1:])


def state_name(job: pb.Job) -> str:
    """Return where a job stands, such as `running`."""
    return vis.JobState.Name(job.state).removeprefix(_PREFIX).lower()


class Pages:
    """What to ask for, page after page.

    Parameters
    ----------
    states : str, int or sequence of them
        Such as `running` or JOB_STATE_RUNNING; empty for all.
    model, owner : str
        Empty for all.
    limit : int or None
        Most jobs in all.

    Raises
    ------
    InvalidRequest
        There is no such state, or the limit is below 1.
    """

    def __init__(
        self, states: str | int | Sequence[str | int], model: str, owner: str, limit: int | None
    ) -> None:
        if limit is not None and limit < 1:
            raise InvalidRequest("limit", limit, "give at least 1, or None for all")
        listed = [states] if isinstance(states, str | int) else list(states)
        self._left = limit
        self._request = pb.ListJobsRequest(model=model, owner=owner)
        self._request.states.extend(_state(state) for state in listed)
        self.over = False

    def next_call(self) -> pb.ListJobsRequest:
        """Return the request for the next page."""
        self._request.page_size = _PAGE if self._left is None else min(_PAGE, self._left)
        return self._request

    def take(self, response: pb.ListJobsResponse) -> list[pb.Job]:
        """Return the page's jobs, no more than are wanted."""
        jobs = list(response.jobs)
        if self._left is not None:
            jobs = jobs[: self._left]
            self._left -= len(jobs)
        self._request.page_token = response.next_page_token
        self.over = not response.next_page_token or self._left == 0
        return jobs


def _state(state: str | int) -> Any:
    if isinstance(state, int) and state in vis.JobState.values():
        return state
    if isinstance(state, str) and state.lower() in STATES:
        return vis.JobState.Value(_PREFIX + state.upper())
    raise InvalidRequest("states", state, f"there are: {', '.join(STATES)}")
