"""VisualizationService: from a request to a stream."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from neurofv.v1 import visualization_service_pb2 as vis
from neurofv.v1 import visualization_service_pb2_grpc
from service.jobs.desk import Desk
from service.jobs.probe import read_probe
from service.jobs.watch import Watch
from service.observability.metrics import Metrics
from service.oip.inference import Inference, read_whole
from service.storage.records import Record


class VisualizationService(visualization_service_pb2_grpc.VisualizationServiceServicer):
    """Takes requests and streams what becomes of them.

    Parameters
    ----------
    desk : Desk
        Who knows the jobs.
    metrics : Metrics
        Where figures go.
    inference : Inference
        Who shows images to networks.
    """

    def __init__(self, desk: Desk, metrics: Metrics, inference: Inference) -> None:
        self._desk, self._metrics, self._inference = desk, metrics, inference
        # One image is read at a time; who waits for that holds up nobody else's threads.
        self._prober = ThreadPoolExecutor(1, thread_name_prefix="prober")

    async def Visualize(  # noqa: N802 (gRPC's name)
        self, request: vis.VisualizeRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[vis.VisualizeResponse]:
        """Create a job and watch it; whoever leaves cancels it, unless it is detached."""
        creating = asyncio.ensure_future(self._desk.create(request))
        try:
            record = await asyncio.shield(creating)
        except asyncio.CancelledError:
            if not request.detach:
                creating.add_done_callback(self._leave)
            raise
        if not request.detach:
            # Called however the call ends, also when the client is cut off in the middle of a write.
            context.add_done_callback(lambda _: self._desk.leave(record))  # type: ignore[arg-type]  # the stub's slip
        async for event in Watch(self._desk, record, self._metrics).events(0):
            yield event

    def _leave(self, created: "asyncio.Future[Record]") -> None:
        """Cancel what was created for a caller who had left already."""
        if not created.cancelled() and created.exception() is None:
            self._desk.leave(created.result())

    async def Estimate(  # noqa: N802 (gRPC's name)
        self, request: vis.EstimateRequest, context: grpc.aio.ServicerContext
    ) -> vis.EstimateResponse:
        """Check a visualization and tell what it would cost."""
        return await self._desk.estimate(request.request)

    async def Probe(  # noqa: N802 (gRPC's name)
        self, request: vis.ProbeRequest, context: grpc.aio.ServicerContext
    ) -> vis.ProbeResponse:
        """Show an image to a model, and tell how strongly units fire on it."""
        desk = self._desk
        with self._inference.place():
            read = asyncio.get_running_loop().run_in_executor
            probe = await read_whole(read(self._prober, read_probe, request, desk.repository, desk.settings))
            asked = probe.request
            facts = {"digest": probe.bundle.digest, "image_sha256": asked.image.sha256}
            control = str(asked.control.WhichOneof("kind") or "")
            await desk.act(
                "model.probe",
                f"models/{probe.bundle.label}",
                **facts,
                units=str(len(asked.units)),
                control=control,
            )
            return await self._inference.probe(asked, probe.volume.tobytes())
