"""The server: everything put together, started and stopped."""

import asyncio
import platform
from importlib.metadata import version

import grpc
import structlog
from google.longrunning import operations_pb2, operations_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from models import Repository
from neurofv.v1 import (
    audit_service_pb2,
    audit_service_pb2_grpc,
    job_service_pb2,
    job_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    visualization_service_pb2,
    visualization_service_pb2_grpc,
)
from service import __version__
from service.jobs.desk import Desk
from service.jobs.journal import Journal
from service.jobs.sweeper import Sweeper
from service.observability import tracing
from service.observability.http import OperatorServer
from service.observability.metrics import Metrics
from service.oip import open_inference_pb2, open_inference_pb2_grpc
from service.oip.inference import Inference
from service.rpc.audit import AuditService
from service.rpc.interceptor import CallInterceptor
from service.rpc.jobs import JobService
from service.rpc.models import ModelService
from service.rpc.oip import InferenceService
from service.rpc.operations import Operations
from service.rpc.visualization import VisualizationService
from service.security.doors import Doors
from service.security.identity import SERVER
from service.settings import Settings
from service.storage.records import Change
from service.storage.store import Store
from service.ui.api import Api
from service.ui.application import Ui
from service.ui.viewer import read_viewer
from service.worker.process import WorkerProcess

_OPTIONS = (
    # Clients may ping every 30 s during a call, and a peer that is gone is noticed within 80 s.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 30_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Two servers on one port would share its connections unseen.
    ("grpc.so_reuseport", 0),
)
_SERVICES = (
    audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name,
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    visualization_service_pb2.DESCRIPTOR.services_by_name["VisualizationService"].full_name,
    job_service_pb2.DESCRIPTOR.services_by_name["JobService"].full_name,
    operations_pb2.DESCRIPTOR.services_by_name["Operations"].full_name,
    open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name,
)
_log = structlog.get_logger()


class Server:
    """The gRPC server, the operator's port and the worker.

    Parameters
    ----------
    settings : Settings
        What the operator has decided.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        versions = {"version": __version__, "torch": version("torch"), "python": platform.python_version()}
        metrics = Metrics(versions)
        folder = settings.data.expanduser()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._repository = Repository(settings.repository)
        self._health = health.aio.HealthServicer()
        self._store = Store(settings.database, folder, metrics, self._record_end)
        self._doors = Doors(settings, metrics)
        self._journal = Journal(self._store, metrics)
        self._desk = Desk(self._repository, settings, self._store, self._journal, self._doors.audit, metrics)
        worker = WorkerProcess(settings, self._journal, metrics)
        self._desk.open(worker, self._announce, self._died)
        self._inference = Inference(worker, lambda: self._dispatcher.draining)
        self._sweeping = Sweeper(self._store, self._journal, self._doors.audit, metrics)
        self._sweeper: asyncio.Task[None] | None = None
        self.failed = asyncio.Event()
        self._dispatcher = self._desk.dispatcher
        metrics.watch(settings, lambda: self._dispatcher.ready, folder)
        calls = CallInterceptor(metrics, self._doors.guard, self._doors.refusals)
        self._grpc = grpc.aio.server(
            interceptors=[*tracing.interceptors(settings), calls],
            options=(*_OPTIONS, *self._doors.options),
            maximum_concurrent_rpcs=settings.max_calls,
        )
        models, jobs = ModelService(self._repository), JobService(self._desk, metrics)
        self._operator = OperatorServer(
            (settings.http_host, settings.http_port),
            metrics.registry,
            lambda: self._dispatcher.ready,
            self._doors.http,
            self._ui(models, jobs, metrics) if settings.ui else None,
        )
        self._register(models, jobs, metrics)

    def _ui(self, models: ModelService, jobs: JobService, metrics: Metrics) -> Ui:
        api = Api(self._desk, models, jobs, metrics)
        return Ui(self._doors, api, metrics, read_viewer(self._settings.viewer))

    def _register(self, models: ModelService, jobs: JobService, metrics: Metrics) -> None:
        """Offer every service."""
        audit_service_pb2_grpc.add_AuditServiceServicer_to_server(AuditService(self._doors.audit), self._grpc)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, self._grpc)
        job_service_pb2_grpc.add_JobServiceServicer_to_server(jobs, self._grpc)
        operations_pb2_grpc.add_OperationsServicer_to_server(Operations(self._desk, jobs), self._grpc)
        visualization = VisualizationService(self._desk, metrics, self._inference)
        visualization_service_pb2_grpc.add_VisualizationServiceServicer_to_server(visualization, self._grpc)
        inference = InferenceService(
            self._repository, self._desk, self._inference, lambda: self._dispatcher.ready
        )
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(inference, self._grpc)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        if self._settings.reflection != "off":
            reflection.enable_server_reflection(
                (*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._grpc
            )

    async def start(self) -> int:
        """Start everything; return the port of gRPC once requests are taken.

        Raises
        ------
        OSError
            The port cannot be had.
        WorkerLost
            The worker does not start.
        """
        try:
            port = self._doors.listen(self._grpc)
        except RuntimeError:
            where = f"{self._settings.host}:{self._settings.port}"
            raise OSError(f"gRPC cannot listen on {where}; set NEUROFV_HOST and NEUROFV_PORT") from None
        self._journal.start(self._died)
        await self._desk.recover()
        await self._grpc.start()
        await self._announce(False)
        await self._dispatcher.start()
        self._sweeper = asyncio.create_task(self._sweeping.run(self._settings.sweep_seconds))
        self._sweeper.add_done_callback(self._died)
        await self._announce_models()
        _log.info("serving", host=self._settings.host, port=port, http_port=self._operator.port)
        return port

    async def _announce(self, serving: bool) -> None:
        """Set the health of the server and of every service."""
        states = health_pb2.HealthCheckResponse
        for service in ("", *_SERVICES):
            await self._health.set(service, states.SERVING if serving else states.NOT_SERVING)

    async def _announce_models(self) -> None:
        """Give every model its health: it serves if any of its versions is ready."""
        entries = await asyncio.to_thread(self._repository.entries)
        ready = {entry.name for entry in entries if entry.ready}
        for entry in entries:
            if not entry.ready:
                _log.error("model_not_ready", model=entry.name, version=entry.version, reason=entry.reason)
            state = health_pb2.HealthCheckResponse
            await self._health.set(
                f"model/{entry.name}", state.SERVING if entry.name in ready else state.NOT_SERVING
            )

    async def stop(self) -> None:
        """Say NOT_SERVING, checkpoint the running jobs, close; they go on at the next start."""
        _log.info("draining", grace_seconds=self._settings.grace_seconds)
        await self._health.enter_graceful_shutdown()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._dispatcher.drain(self._settings.grace_seconds)
        await self._journal.close(self._settings.grace_seconds)
        self._desk.wake()
        # Whoever still reads a finished volume gets the grace too.
        await self._grpc.stop(self._settings.grace_seconds)
        self._operator.close()
        await self._doors.close()
        self._store.close()

    def _died(self, task: "asyncio.Task[None]") -> None:
        """End the server if a part without which it is none has failed; the next one takes the jobs up."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("part_died", exc_info=error)
            self.failed.set()

    def _record_end(self, change: Change) -> None:
        self._doors.audit.record(SERVER, "job.end", f"jobs/{change.id}", **change.audit)
