"""google.longrunning.Operations: the same jobs for tools that know no others."""

import asyncio
import time

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import empty_pb2
from google.rpc import status_pb2

from neurofv.v1 import job_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import InvalidField
from service.jobs.desk import Desk
from service.rpc.jobs import JobService
from service.storage.records import ENDED, Record

# Longest wait of one call; who wants to wait longer asks again.
_LONGEST_WAIT = 60.0


class Operations(operations_pb2_grpc.OperationsServicer):
    """Shows jobs as operations: metadata is `Job`, the response is `Completed`.

    Parameters
    ----------
    desk : Desk
        Who knows the jobs.
    jobs : JobService
        The same jobs under their own names.
    """

    def __init__(self, desk: Desk, jobs: JobService) -> None:
        self._desk, self._jobs = desk, jobs

    async def GetOperation(  # noqa: N802 (gRPC's name)
        self, request: operations_pb2.GetOperationRequest, context: grpc.aio.ServicerContext
    ) -> operations_pb2.Operation:
        """Tell where an operation stands."""
        return await self._described(await self._desk.find(request.name))

    async def ListOperations(  # noqa: N802 (gRPC's name)
        self, request: operations_pb2.ListOperationsRequest, context: grpc.aio.ServicerContext
    ) -> operations_pb2.ListOperationsResponse:
        """List operations, newest first; `response` is left to GetOperation."""
        if request.filter:
            raise InvalidField("filter", "is not supported here; leave it out, or use JobService.ListJobs")
        asked = pb.ListJobsRequest(page_size=request.page_size, page_token=request.page_token)
        answer = await self._jobs.ListJobs(asked, context)
        found = [_operation(job) for job in answer.jobs]
        return operations_pb2.ListOperationsResponse(operations=found, next_page_token=answer.next_page_token)

    async def CancelOperation(  # noqa: N802 (gRPC's name)
        self, request: operations_pb2.CancelOperationRequest, context: grpc.aio.ServicerContext
    ) -> empty_pb2.Empty:
        """Ask for an operation to be stopped; it ends with CANCELLED."""
        await self._desk.cancel(await self._desk.find(request.name))
        return empty_pb2.Empty()

    async def DeleteOperation(  # noqa: N802 (gRPC's name)
        self, request: operations_pb2.DeleteOperationRequest, context: grpc.aio.ServicerContext
    ) -> empty_pb2.Empty:
        """Remove an operation that has ended."""
        await self._desk.delete(await self._desk.find(request.name))
        return empty_pb2.Empty()

    async def WaitOperation(  # noqa: N802 (gRPC's name)
        self, request: operations_pb2.WaitOperationRequest, context: grpc.aio.ServicerContext
    ) -> operations_pb2.Operation:
        """Return when an operation has ended, or the time is up."""
        record = await self._desk.find(request.name)
        asked = request.timeout.ToNanoseconds() / 1e9 if request.HasField("timeout") else _LONGEST_WAIT
        end = time.monotonic() + min(max(asked, 0.0), _LONGEST_WAIT)
        job = self._desk.live(record)
        while job is not None and not job.over and (left := end - time.monotonic()) > 0:
            news = job.news
            try:
                await asyncio.wait_for(news.wait(), left)
            except TimeoutError:
                break
        return await self._described(await self._desk.find(request.name))

    async def _described(self, record: Record) -> operations_pb2.Operation:
        return _operation(await self._jobs.described(record), record.error)


def _operation(job: pb.Job, error: bytes | None = None) -> operations_pb2.Operation:
    """Return a job as an operation."""
    found = operations_pb2.Operation(name=job.name)
    found.done = job.state in ENDED
    if job.HasField("completed"):
        found.response.Pack(job.completed)
        job.ClearField("completed")
    found.metadata.Pack(job)
    if job.state == vis.JOB_STATE_CANCELLED:
        found.error.code, found.error.message = 1, "cancelled, as asked"
    elif error:
        found.error.CopyFrom(status_pb2.Status.FromString(error))
    elif job.HasField("error"):
        found.error.code, found.error.message = job.error.code, job.error.message
    return found
