"""What the page asks for: the gRPC services' own answers, as JSON."""

import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from neurofv.v1 import job_service_pb2 as pb
from neurofv.v1 import model_service_pb2 as models_pb
from service.errors import InvalidField
from service.jobs.control import control_seed
from service.jobs.desk import Desk
from service.jobs.watch import Watch
from service.observability.metrics import Metrics
from service.rpc.jobs import JobService, summary
from service.rpc.models import ModelService
from service.security.identity import caller
from service.storage.queries import EventGone
from service.storage.records import Record

# Events of one answer, jobs of one list, and jobs whose requests need not be read again for it.
_MOST_EVENTS, _PAGE, _REMEMBERED = 128, 30, 1024
# Longest wait for news; shorter than what proxies allow.
_LONGEST_WAIT = 15.0
_NUMBER = re.compile(r"[0-9]{1,18}")
# The reading methods ask their call for nothing.
_NO_CALL: Any = None
_MODELS, _JOBS = "/neurofv.v1.ModelService", "/neurofv.v1.JobService"
Query = dict[str, str]


@dataclass(frozen=True)
class File:
    """Bytes to be sent piece by piece.

    Attributes
    ----------
    size : int
        How many.
    pieces : async generator of bytes
        One after the other.
    """

    size: int
    pieces: AsyncGenerator[bytes, None]


# Messages are turned into JSON by whoever sends them, outside the event loop.
Answer = Message | dict[str, Any] | File


@dataclass(frozen=True)
class Route:
    """An address of the page's data.

    Attributes
    ----------
    path : Pattern
        Its shape, behind /ui/api/.
    method : str
        The gRPC method that tells the same; whoever may call it may read this.
    answer : callable
        Takes the groups of the path and the query.
    """

    path: re.Pattern[str]
    method: str
    answer: Callable[[dict[str, str], Query], Awaitable[Answer]]


class Api:
    """Answers the page, in the server's event loop and in the caller's name.

    Parameters
    ----------
    desk : Desk
        Who knows the jobs.
    models : ModelService
        The models as gRPC shows them.
    jobs : JobService
        The jobs as gRPC shows them.
    metrics : Metrics
        Where figures go.
    """

    def __init__(self, desk: Desk, models: ModelService, jobs: JobService, metrics: Metrics) -> None:
        self._desk, self._models, self._jobs, self._metrics = desk, models, jobs, metrics
        self._briefs: OrderedDict[str, dict[str, Any]] = OrderedDict()
        job = r"jobs/(?P<job>[^/]{1,64})"
        self._routes = (
            _route("caller", f"{_MODELS}/ListModels", self._caller),
            _route("models", f"{_MODELS}/ListModels", self._list_models),
            _route(
                r"models/(?P<model>[^/]{1,64})/(?P<version>[0-9]{1,9})", f"{_MODELS}/GetModel", self._model
            ),
            _route("jobs", f"{_JOBS}/ListJobs", self._list_jobs),
            _route(job, f"{_JOBS}/GetJob", self._job),
            _route(f"{job}/events", f"{_JOBS}/WatchJob", self._events),
            _route(f"{job}/volumes/(?P<volume>[^/]{{1,64}})", f"{_JOBS}/ReadVolume", self._volume),
        )

    def find(self, path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the route of a path behind /ui/api/, and the names in it."""
        for route in self._routes:
            if (match := route.path.fullmatch(path)) is not None:
                return route, match.groupdict()
        return None

    async def _caller(self, names: dict[str, str], query: Query) -> Answer:
        principal = caller()
        return {"name": principal.name, "role": principal.role.name.lower()}

    async def _list_models(self, names: dict[str, str], query: Query) -> Answer:
        return await self._models.ListModels(models_pb.ListModelsRequest(), _NO_CALL)

    async def _model(self, names: dict[str, str], query: Query) -> Answer:
        asked = models_pb.GetModelRequest(name=names["model"], version=int(names["version"]))
        return await self._models.GetModel(asked, _NO_CALL)

    async def _list_jobs(self, names: dict[str, str], query: Query) -> Answer:
        asked = pb.ListJobsRequest(page_size=_PAGE, page_token=query.get("page_token", ""))
        page, more = await self._jobs.page(asked)
        jobs = [await self._brief(record) | plain(summary(record)) for record in page]
        return {"jobs": jobs, "next_page_token": more}

    async def _brief(self, record: Record) -> dict[str, Any]:
        """Return what a list says of a job's request, which never changes."""
        known = self._briefs.get(record.id)
        if known is None:
            try:
                event = await self._desk.read(self._desk.store.event, record.number, 1)
            except EventGone:  # it was deleted a moment ago
                return {"model": record.model}
            request = event.accepted.request
            known = {"model": record.model, "steps": request.steps, "others": len(request.batch)}
            known["objective"] = plain(request.objective)
            seed = control_seed(request)
            known["control"] = "" if seed is None else f"random weights, seed {seed}"
            self._briefs[record.id] = known
            while len(self._briefs) > _REMEMBERED:
                self._briefs.popitem(last=False)
        return known

    async def _job(self, names: dict[str, str], query: Query) -> Answer:
        return await self._jobs.GetJob(pb.GetJobRequest(name=f"jobs/{names['job']}"), _NO_CALL)

    async def _events(self, names: dict[str, str], query: Query) -> Answer:
        after = query.get("after", "0")
        if not _NUMBER.fullmatch(after):
            raise InvalidField("after", "must be the number of an event; leave it out for all of them")
        record = await self._desk.find(f"jobs/{names['job']}")
        watch = Watch(self._desk, record, self._metrics)
        events, last = await watch.page(int(after), _MOST_EVENTS, _LONGEST_WAIT)
        # What came while it waited is not counted.
        more = bool(events) and events[-1].sequence < record.last_sequence
        return {"events": events, "last": last, "more": more}

    async def _volume(self, names: dict[str, str], query: Query) -> Answer:
        asked = pb.ReadVolumeRequest(name=f"jobs/{names['job']}", volume=names["volume"])
        pieces = self._jobs.ReadVolume(asked, _NO_CALL)
        first = await anext(pieces)

        async def data() -> AsyncGenerator[bytes, None]:
            yield first.data
            async for piece in pieces:
                yield piece.data

        return File(first.volume.bytes, data())


def _route(path: str, method: str, answer: Callable[[dict[str, str], Query], Awaitable[Answer]]) -> Route:
    return Route(re.compile(path), method, answer)


def plain(message: Message) -> dict[str, Any]:
    """Return a message as what JSON is made of, with the contract's own names."""
    return MessageToDict(message, preserving_proto_field_name=True)
