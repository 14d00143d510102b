"""AuditService: the audit log, for admins."""

import asyncio
from collections.abc import AsyncIterator
from itertools import islice

import grpc

from neurofv.v1 import audit_service_pb2 as pb
from neurofv.v1 import audit_service_pb2_grpc
from service.errors import SequenceOutOfRange
from service.security.audit import AuditLog
from service.security.identity import caller

_AT_ONCE = 256


class AuditService(audit_service_pb2_grpc.AuditServiceServicer):
    """Streams the audit log.

    Parameters
    ----------
    log : AuditLog or None
        The log; None if the server keeps none, which reads as an empty one.
    """

    def __init__(self, log: AuditLog | None) -> None:
        self._log = log

    async def ReadAudit(  # noqa: N802 (gRPC's name)
        self, request: pb.ReadAuditRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ReadAuditResponse]:
        """Stream what stands in the log now; that it is read is its last record."""
        log, after = self._log, request.after_sequence
        if log is None:
            return
        last = log.head[0]
        if after > last:
            raise SequenceOutOfRange("after_sequence", f"is {after}, but the log ends at {last}", last=last)
        await asyncio.to_thread(log.record, caller(), "audit.read", "audit", after_sequence=after)
        lines = log.lines(after)
        while part := await asyncio.to_thread(lambda: list(islice(lines, _AT_ONCE))):
            for line in part:
                yield pb.ReadAuditResponse(line=line)
