"""JobService: jobs that outlive calls."""

from collections.abc import AsyncIterator

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from neurofv.v1 import job_service_pb2 as pb
from neurofv.v1 import job_service_pb2_grpc
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import InvalidField, JobNotFound, SequenceOutOfRange, VolumeNotFound
from service.jobs.desk import Desk
from service.jobs.watch import Watch
from service.observability.metrics import Metrics
from service.security.identity import Role, caller
from service.status import info_of
from service.storage import files
from service.storage.queries import EventGone
from service.storage.records import Record, Volume

_PAGE, _LARGEST_PAGE = 100, 1000


class JobService(job_service_pb2_grpc.JobServiceServicer):
    """Translates between the contract and the desk.

    Parameters
    ----------
    desk : Desk
        Who knows the jobs.
    metrics : Metrics
        Where figures go.
    """

    def __init__(self, desk: Desk, metrics: Metrics) -> None:
        self._desk, self._metrics = desk, metrics

    async def CreateJob(  # noqa: N802 (gRPC's name)
        self, request: pb.CreateJobRequest, context: grpc.aio.ServicerContext
    ) -> pb.CreateJobResponse:
        """Store and queue a visualization."""
        record = await self._desk.create(request.request, request.pinned)
        return pb.CreateJobResponse(job=await self.described(record))

    async def GetJob(  # noqa: N802 (gRPC's name)
        self, request: pb.GetJobRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetJobResponse:
        """Tell where a job stands."""
        return pb.GetJobResponse(job=await self.described(await self._desk.find(request.name)))

    async def ListJobs(  # noqa: N802 (gRPC's name)
        self, request: pb.ListJobsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListJobsResponse:
        """List jobs, newest first."""
        page, more = await self.page(request)
        return pb.ListJobsResponse(jobs=[summary(record) for record in page], next_page_token=more)

    async def page(self, request: pb.ListJobsRequest) -> tuple[list[Record], str]:
        """Return the rows of a list that the caller may see, newest first, and the token of the next page."""
        size = request.page_size or _PAGE
        if size < 0:
            raise InvalidField("page_size", f"is {size}, but must be 0 (for {_PAGE}) to {_LARGEST_PAGE}")
        size, token = min(size, _LARGEST_PAGE), request.page_token
        if token and not (token.isascii() and token.isdecimal() and len(token) < 19):
            raise InvalidField("page_token", "is none that the server gave; begin without one")
        if unknown := set(request.states) - set(vis.JobState.values()):
            raise InvalidField("states", f"holds {min(unknown)}, which is no state")
        for field in ("model", "owner"):
            if "\0" in getattr(request, field):
                raise InvalidField(field, "holds a NUL character; leave it out")
        principal = caller()
        owner = request.owner if principal.role == Role.ADMIN else principal.name
        if request.owner and request.owner != owner:
            return [], ""
        page = await self._desk.read(
            self._desk.store.page, owner, sorted(set(request.states)), request.model, int(token or 0), size
        )
        return page, str(page[-1].number) if len(page) == size else ""

    async def WatchJob(  # noqa: N802 (gRPC's name)
        self, request: pb.WatchJobRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.WatchJobResponse]:
        """Stream a job's events."""
        record = await self._desk.find(request.name)
        async for event in Watch(self._desk, record, self._metrics).events(request.after_sequence):
            yield pb.WatchJobResponse(event=event)

    async def CancelJob(  # noqa: N802 (gRPC's name)
        self, request: pb.CancelJobRequest, context: grpc.aio.ServicerContext
    ) -> pb.CancelJobResponse:
        """Ask for a job to be stopped."""
        await self._desk.cancel(await self._desk.find(request.name))
        return pb.CancelJobResponse(job=await self.described(await self._desk.find(request.name)))

    async def DeleteJob(  # noqa: N802 (gRPC's name)
        self, request: pb.DeleteJobRequest, context: grpc.aio.ServicerContext
    ) -> pb.DeleteJobResponse:
        """Remove a job that has ended."""
        await self._desk.delete(await self._desk.find(request.name))
        return pb.DeleteJobResponse()

    async def PinJob(  # noqa: N802 (gRPC's name)
        self, request: pb.PinJobRequest, context: grpc.aio.ServicerContext
    ) -> pb.PinJobResponse:
        """Keep a job, or let it expire."""
        record = await self._desk.pin(await self._desk.find(request.name), request.pinned)
        return pb.PinJobResponse(job=await self.described(record))

    async def ReadVolume(  # noqa: N802 (gRPC's name)
        self, request: pb.ReadVolumeRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ReadVolumeResponse]:
        """Stream a volume's file from any byte on."""
        record = await self._desk.find(request.name)
        volume = await self._volume(record, request.volume)
        offset = request.offset
        if not 0 <= offset <= volume.bytes:
            rule = f"is {offset}, but the file has {volume.bytes} bytes; read from one of them"
            raise SequenceOutOfRange("offset", rule, bytes=volume.bytes)
        try:
            event = await self._desk.read(self._desk.store.event, record.number, volume.sequence)
        except EventGone:
            raise JobNotFound(record.name) from None
        path, what = self._desk.store.files.volume(record.id, volume.sequence), f"volume {volume.name}"
        blocks = files.blocks(path, volume.sha256, volume.bytes, what, offset)
        begin: vis.VolumeBegin | None = event.volume_begin
        while (block := await files.next_block(blocks)) is not None or begin is not None:
            yield pb.ReadVolumeResponse(volume=begin, offset=offset, data=block or b"")
            offset, begin = offset + len(block or b""), None

    async def _volume(self, record: Record, name: str) -> Volume:
        volumes = await self._desk.read(self._desk.store.volumes, record.number)
        kept = {volume.name: volume for volume in volumes if volume.kept}
        if name not in kept:
            raise VolumeNotFound(name, list(kept), record.name)
        return kept[name]

    async def described(self, record: Record) -> pb.Job:
        """Return a job with its request, its volumes and its result."""
        try:
            first, *others = await self._desk.read(self._desk.store.outline, record)
        except EventGone:  # it was deleted a moment ago
            raise JobNotFound(record.name) from None
        job = summary(record)
        job.request.CopyFrom(first.accepted.request)
        job.volumes.extend(event.volume_begin for event in others if event.HasField("volume_begin"))
        if others and others[-1].HasField("completed"):
            job.completed.CopyFrom(others[-1].completed)
        return job


def summary(record: Record) -> pb.Job:
    """Return what a list says of a job."""
    job = pb.Job(
        name=record.name,
        state=record.state,
        owner=record.owner,
        last_sequence=record.last_sequence,
        step=record.step,
        attempt=record.crashes + 1 if record.started else 0,
        pinned=record.pinned,
        stored_bytes=record.stored_bytes,
        create_time=_time(record.created),
        start_time=_time(record.started),
        end_time=_time(record.ended),
        expire_time=None if record.pinned else _time(record.expires),
    )
    if record.error:
        status = status_pb2.Status.FromString(record.error)
        info = info_of(status)
        job.error.code, job.error.message = status.code, status.message
        job.error.reason = info.reason
        job.error.metadata.update(info.metadata)
    return job


def _time(seconds: float | None) -> Timestamp | None:
    if seconds is None:
        return None
    stamp = Timestamp()
    stamp.FromNanoseconds(int(seconds * 1e9))
    return stamp
