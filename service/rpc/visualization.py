"""VisualizationService: from a request to a stream."""

import asyncio
from collections.abc import AsyncIterator

import grpc

from models import Repository
from neurofv.v1 import visualization_service_pb2 as vis
from neurofv.v1 import visualization_service_pb2_grpc
from service.jobs import sharing
from service.jobs.dispatcher import Dispatcher
from service.jobs.plan import Plan, make_plan
from service.observability.metrics import Metrics
from service.rpc.models import find_bundle
from service.settings import Settings


class VisualizationService(visualization_service_pb2_grpc.VisualizationServiceServicer):
    """Takes requests and streams what becomes of them.

    Parameters
    ----------
    repository : Repository
        The bundles.
    dispatcher : Dispatcher
        Who runs jobs.
    settings : Settings
        The server's limits.
    metrics : Metrics
        Where figures go.
    """

    def __init__(
        self, repository: Repository, dispatcher: Dispatcher, settings: Settings, metrics: Metrics
    ) -> None:
        self._repository = repository
        self._dispatcher = dispatcher
        self._settings = settings
        self._metrics = metrics

    async def Visualize(  # noqa: N802 (gRPC's name)
        self, request: vis.VisualizeRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[vis.VisualizeResponse]:
        """Check, queue and stream one visualization."""
        plan = await asyncio.to_thread(self._plan, request)
        job = self._dispatcher.submit(plan.request, sharing.share_of(plan))
        # Called however the call ends, also when the client is cut off in the middle of a write.
        context.add_done_callback(lambda _: self._dispatcher.cancel(job))  # type: ignore[arg-type]  # the stub's slip
        async for event in job.stream():
            if event.HasField("volume_begin"):
                kind = vis.VolumeKind.Name(event.volume_begin.kind).removeprefix("VOLUME_KIND_").lower()
                self._metrics.volumes_sent.labels(kind).inc()
            self._metrics.volume_bytes_sent.inc(len(event.volume_chunk.data))
            yield event

    async def Estimate(  # noqa: N802 (gRPC's name)
        self, request: vis.EstimateRequest, context: grpc.aio.ServicerContext
    ) -> vis.EstimateResponse:
        """Check a visualization and tell what it would cost."""
        plan = await asyncio.to_thread(self._plan, request.request)
        return await self._dispatcher.estimate(plan.request)

    def _plan(self, request: vis.VisualizeRequest) -> Plan:
        bundle = find_bundle(self._repository, request.model, request.version)
        wanted, other = request.comparisons, None
        if wanted.transfer_model:
            other = find_bundle(self._repository, wanted.transfer_model, wanted.transfer_version)
        return make_plan(request, bundle, self._settings, other)
