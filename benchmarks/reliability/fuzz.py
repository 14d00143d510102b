"""Fuzzed requests over all RPCs: no INTERNAL, no UNKNOWN, and the service stays healthy."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import grpc
import grpc.aio
from google.longrunning import operations_proto_pb2  # noqa: F401  (its descriptors)
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from rich.progress import Progress

from benchmarks.facts import RESULTS
from benchmarks.reliability.mutate import Mutator
from benchmarks.reliability.processes import rss_mib
from benchmarks.reliability.site import site
from neurofv.v1 import job_service_pb2 as jobs
from neurofv.v1 import job_service_pb2_grpc
from service.oip import open_inference_pb2  # noqa: F401  (its descriptors)

_FORBIDDEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
# How often a method is chosen; others 10. What makes the worker work comes seldom.
_WEIGHTS = {
    "Estimate": 1,
    "Probe": 3,
    "Visualize": 3,
    "CreateJob": 4,
    "Watch": 2,
    "ServerReflectionInfo": 4,
    "WaitOperation": 3,
}
_AT_ONCE = 24
_SETTINGS = {
    **{"max_steps": 20, "max_voxels": 50_000, "max_batch": 4, "max_terms": 8, "max_image_bytes": 2_000_000},
    **{"caller_jobs": 64, "retention_hours": 0.01, "sweep_seconds": 5, "log_level": "error"},
}
OFFENDERS = RESULTS.parent / "reliability" / ".offenders"


def measure(requests: int = 100_000, seed: int = 0, offenders: Path = OFFENDERS) -> dict[str, object]:
    """Send requests and return what came back.

    Parameters
    ----------
    requests : int
        How many.
    seed : int
        Of the requests.
    offenders : Path
        Where those are written that had a forbidden answer.
    """
    with site(**_SETTINGS | {"log_level": "info"}) as place:
        methods = _methods(place.server.target)
        storm = _Storm(place.server.target, methods, Mutator(seed), offenders)
        # What a server takes on at first is no growth.
        asyncio.run(storm.rage(max(200, requests // 5)))
        before = rss_mib(place.pid)
        begun = time.monotonic()
        asyncio.run(storm.rage(requests - storm.sent))
        seconds = time.monotonic() - begun
        logged = [entry for entry in place.server.log if entry["event"] == "internal_error"]
        healthy = place.server.check()
        losses = place.server.metric("neurofv_worker_losses_total")
        found = {
            "requests": storm.sent,
            "methods": len(methods),
            "seconds": round(seconds, 1),
            "codes": dict(sorted(storm.codes.items())),
            "forbidden": storm.forbidden + len(logged),
            "offenders": sorted(storm.where),
            "logged_internal_errors": len(logged),
            "health_checks": storm.checks,
            "not_serving": storm.not_serving + (healthy != health_pb2.HealthCheckResponse.SERVING),
            "longest_health_check_ms": round(1000 * storm.slowest, 1),
            "worker_losses": losses,
            "rss_mib": round(rss_mib(place.pid), 1),
            "growth_mib": round(rss_mib(place.pid) - before, 1),
        }
        if logged:
            offenders.mkdir(exist_ok=True)
            (offenders / "internal_errors.txt").write_text("\n\n".join(str(entry) for entry in logged))
    return found


def _methods(target: str) -> list[MethodDescriptor]:
    """Return every method that the server says it has."""
    with grpc.insecure_channel(target) as channel:
        names = ProtoReflectionDescriptorDatabase(channel).get_services()
    pool = descriptor_pool.Default()
    return [method for name in names for method in pool.FindServiceByName(name).methods]


class _Storm:
    """Many callers at once, none of whom means what is sent."""

    def __init__(
        self, target: str, methods: list[MethodDescriptor], mutator: Mutator, offenders: Path
    ) -> None:
        self._target, self._methods, self._mutator, self._offenders = target, methods, mutator, offenders
        self._weights = [_WEIGHTS.get(method.name, 10) for method in methods]
        self.sent = self.forbidden = self.checks = self.not_serving = 0
        self.slowest = 0.0
        self.codes: Counter[str] = Counter()
        self.where: set[str] = set()

    async def rage(self, requests: int) -> None:
        """Send so many requests."""
        with Progress() as bar:
            task = bar.add_task("fuzzed requests", total=requests)
            async with grpc.aio.insecure_channel(self._target) as channel:
                left = iter(range(requests))
                health = asyncio.create_task(self._watch_health())

                async def caller() -> None:
                    for _ in left:
                        await self._one(channel)
                        bar.advance(task)

                await asyncio.gather(*(caller() for _ in range(_AT_ONCE)))
                health.cancel()

    async def _watch_health(self) -> None:
        async with grpc.aio.insecure_channel(self._target) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            desk = job_service_pb2_grpc.JobServiceStub(channel)
            while True:
                begun = time.monotonic()
                try:
                    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
                    self.not_serving += answer.status != health_pb2.HealthCheckResponse.SERVING
                except grpc.aio.AioRpcError:
                    self.not_serving += 1
                self.slowest = max(self.slowest, time.monotonic() - begun)
                self.checks += 1
                with suppress(grpc.aio.AioRpcError):
                    page = await desk.ListJobs(jobs.ListJobsRequest(page_size=20), timeout=10)
                    self._mutator.names = [job.name for job in page.jobs]
                await asyncio.sleep(0.25)

    async def _one(self, channel: grpc.aio.Channel) -> None:
        chance = self._mutator.chance
        (method,) = chance.choices(self._methods, self._weights)
        data = self._mutator.data(message_factory.GetMessageClass(method.input_type))
        most, details = chance.choice((0, 1, 5, 50)), ""
        try:
            await self._send(channel, method, data, chance.choice((0.05, 0.3, 2.0)), most)
            code = grpc.StatusCode.OK
        except grpc.aio.AioRpcError as error:
            code, details = error.code(), str(error.debug_error_string())
            if details.startswith('Failed "execute_batch"'):
                # No answer at all: this end could not send on a stream that was over.
                code = grpc.StatusCode.CANCELLED
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
        self.sent += 1
        self.codes[code.name] += 1
        if code in _FORBIDDEN:
            self._keep(method, data, code, details)

    async def _send(
        self, channel: grpc.aio.Channel, method: MethodDescriptor, data: bytes, seconds: float, most: int
    ) -> None:
        path = f"/{method.containing_service.full_name}/{method.name}"
        if not method.server_streaming:
            await channel.unary_unary(path)(data, timeout=seconds)
            return
        if method.client_streaming:

            async def requests() -> AsyncIterator[bytes]:
                yield data

            call = channel.stream_stream(path)(requests(), timeout=seconds)
        else:
            call = channel.unary_stream(path)(data, timeout=seconds)
        read = 0
        async for _ in call:
            read += 1
            if read > most:
                call.cancel()
                return

    def _keep(self, method: MethodDescriptor, data: bytes, code: grpc.StatusCode, details: str) -> None:
        self.forbidden += 1
        self.where.add(f"{method.name}: {code.name}")
        self._offenders.mkdir(exist_ok=True)
        (self._offenders / f"{method.name}-{code.name}-{self.forbidden}.bin").write_bytes(data)
        (self._offenders / f"{method.name}-{code.name}-{self.forbidden}.txt").write_text(details)
