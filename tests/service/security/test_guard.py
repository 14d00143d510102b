"""Roles: who may call what, and how handlers learn who calls."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.longrunning import operations_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from neurofv.audit_log import read_lines, verify
from neurofv.v1 import audit_service_pb2, job_service_pb2, model_service_pb2, visualization_service_pb2
from service.errors import JobNotFound
from service.observability.metrics import Metrics
from service.oip import open_inference_pb2
from service.rpc.interceptor import CallInterceptor
from service.security.audit import AuditLog
from service.security.guard import Guard
from service.security.identity import LOCAL, Role, caller
from service.security.refusals import Refusal, Refusals
from service.security.roles import LEAST_ROLES
from service.settings import Settings
from tests.server import RunningServer
from tests.service.requests import failure
from tests.service.security.authorities import TOKENS, bearer, write_tokens

FILES = (
    audit_service_pb2,
    job_service_pb2,
    model_service_pb2,
    open_inference_pb2,
    visualization_service_pb2,
)
METHODS = [
    f"/{service.full_name}/{method.name}"
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


def test_the_table_names_every_method_of_the_contract() -> None:
    operations = [name for name in LEAST_ROLES if "longrunning" in name]
    service = operations_pb2.DESCRIPTOR.services_by_name["Operations"]
    assert {name.rpartition("/")[2] for name in operations} == {method.name for method in service.methods}
    health = {f"/grpc.health.v1.Health/{name}" for name in ("Watch", "List")}
    assert set(LEAST_ROLES) - set(operations) - health == set(METHODS)


def _call(server: RunningServer, method: str, metadata: tuple) -> tuple:
    """Call a method with an empty message; return code and reason."""
    try:
        call = server.channel.unary_stream(method)(b"", metadata=metadata, timeout=20)
        if method.endswith("Health/Watch"):
            # It has no end.
            next(call)
            call.cancel()
            return grpc.StatusCode.OK, ""
        list(call)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return error.code(), ""
        return failure(error)[:2]
    return grpc.StatusCode.OK, ""


@pytest.mark.parametrize("method", [*LEAST_ROLES, "/neurofv.v1.ModelService/Invented", "/a.B/C"])
@pytest.mark.parametrize("role", TOKENS)
def test_each_role_may_call_what_the_table_says(guarded: RunningServer, role: str, method: str) -> None:
    code, reason = _call(guarded, method, bearer(TOKENS[role]))
    if Role[role.upper()] < LEAST_ROLES.get(method, Role.ADMIN):
        assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
    else:
        assert code not in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
        assert code is not grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("method", [*LEAST_ROLES, "/a.B/C", "/grpc.health.v1.HealthX/Check"])
def test_without_a_credential_every_method_is_shut(guarded: RunningServer, method: str) -> None:
    assert _call(guarded, method, ()) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")


def test_a_health_check_is_free_and_reflection_is_not(guarded: RunningServer) -> None:
    serving = health_pb2.HealthCheckResponse.SERVING
    assert guarded.check() == guarded.check("neurofv.v1.ModelService") == serving
    # A watch never ends: without a credential, a few callers could take up all the calls there are.
    watch = health_pb2_grpc.HealthStub(guarded.channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
    with pytest.raises(grpc.RpcError) as caught:
        next(watch)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    stub = reflection_pb2_grpc.ServerReflectionStub(guarded.channel)
    asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.ServerReflectionInfo(iter(asked), timeout=20))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    metadata = bearer(TOKENS["viewer"])
    (answer,) = stub.ServerReflectionInfo(iter(asked), metadata=metadata, timeout=20)
    assert "neurofv.v1.ModelService" in str(answer)


def test_refusals_and_readers_are_in_the_audit_log(guarded: RunningServer) -> None:
    time.sleep(1.1)  # a new second: others' refusals have had their share of the last
    _call(guarded, "/neurofv.v1.VisualizationService/Visualize", bearer(TOKENS["viewer"]))
    _call(guarded, "/neurofv.v1.ModelService/ListModels", bearer("canary-of-a-token"))
    stub = guarded.channel.unary_stream("/neurofv.v1.AuditService/ReadAudit")
    answers = list(stub(b"", metadata=bearer(TOKENS["admin"]), timeout=20))
    lines = [audit_service_pb2.ReadAuditResponse.FromString(answer).line for answer in answers]
    assert verify(lines).fault is None
    assert lines == list(read_lines(guarded.folder / "audit.log"))
    *_, role, token, read = lines
    assert '"principal":"viewer"' in role
    assert '"outcome":"ROLE_REQUIRED"' in role
    assert "VisualizationService/Visualize" in role
    assert '"principal":"anonymous"' in token
    assert '"outcome":"CREDENTIAL_INVALID"' in token
    assert '"action":"audit.read"' in read
    assert "canary" not in "".join(lines)
    beyond = audit_service_pb2.ReadAuditRequest(after_sequence=10**9).SerializeToString()
    with pytest.raises(grpc.RpcError) as caught:
        list(stub(beyond, metadata=bearer(TOKENS["admin"]), timeout=20))
    assert failure(caught.value)[1] == "SEQUENCE_OUT_OF_RANGE"


async def test_a_flood_of_refusals_is_counted_instead_of_written(tmp_path: Path) -> None:
    now = [0.0]
    log = AuditLog(tmp_path / "log")
    refusals = Refusals(log, lambda: now[0])
    for number in range(500):
        await refusals.note(Refusal("anonymous", f"ipv4:10.0.0.{number % 50}", "m", "CREDENTIAL_INVALID", ""))
    assert log.head[0] == 20
    now[0] = 1.0
    await refusals.note(Refusal("ann", "ipv4:10.0.0.1", "m", "ROLE_REQUIRED", ""))
    *_, suppressed, last = log.lines()
    assert '"calls":480' in suppressed
    assert '"principal":"ann"' in last
    for _ in range(9):
        await refusals.note(Refusal("ann", "ipv4:10.0.0.1", "m", "ROLE_REQUIRED", ""))
    await asyncio.sleep(1.2)
    *_, last = log.lines()
    assert '"calls":7' in last


class _Handlers(grpc.GenericRpcHandler):
    """Methods of every kind that tell who calls."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return {
            "/a.B/Unary": grpc.unary_unary_rpc_method_handler(self._unary),
            "/a.B/Stream": grpc.unary_stream_rpc_method_handler(self._stream),
            "/a.B/Job": grpc.unary_unary_rpc_method_handler(self._job),
            "/a.B/Both": grpc.stream_stream_rpc_method_handler(self._both),
        }.get(details.method)

    async def _unary(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        name = await asyncio.to_thread(lambda: caller().name)
        await asyncio.sleep(0.01)
        return f"{name} {caller().name}".encode()

    async def _stream(self, request: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        for _ in range(3):
            await asyncio.sleep(0.01)
            yield f"{await asyncio.to_thread(lambda: caller().name)} {caller().name}".encode()

    async def _both(self, requests: object, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        async for _ in requests:  # type: ignore[attr-defined]
            yield f"{caller().name} {(await asyncio.create_task(self._deep()))}".encode()

    async def _job(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        raise JobNotFound(request.decode())

    async def _deep(self) -> str:
        await asyncio.sleep(0.01)
        return caller().name


async def _serve(settings: Settings, log: AuditLog | None = None) -> tuple[grpc.aio.Server, grpc.aio.Channel]:
    interceptor = CallInterceptor(Metrics({}), Guard(settings), Refusals(log))
    server = grpc.aio.server(interceptors=[interceptor], handlers=[_Handlers()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, grpc.aio.insecure_channel(f"127.0.0.1:{port}")


async def test_handlers_of_every_kind_know_who_calls(tmp_path: Path) -> None:
    """Many calls of several callers at once, each of which must see its own name everywhere."""
    people = {f"person{n}": (f"token{n}", "admin", None) for n in range(6)}
    server, channel = await _serve(Settings(tokens=write_tokens(tmp_path / "tokens.toml", **people)))

    async def ask(name: str) -> None:
        metadata = bearer(people[name][0])
        expected = f"{name} {name}".encode()
        assert await channel.unary_unary("/a.B/Unary")(b"", metadata=metadata) == expected
        assert [each async for each in channel.unary_stream("/a.B/Stream")(b"", metadata=metadata)] == [
            expected
        ] * 3
        both = channel.stream_stream("/a.B/Both")(iter([b"", b""]), metadata=metadata)
        assert [each async for each in both] == [expected] * 2

    async with channel:
        await asyncio.gather(*(ask(name) for name in people for _ in range(10)))
    await server.stop(0)


async def test_asking_for_anothers_job_is_recorded(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log")
    people = {"eve": ("token", "admin", None)}
    server, channel = await _serve(Settings(tokens=write_tokens(tmp_path / "tokens.toml", **people)), log)
    async with channel:
        for name in (b"jobs/0f3a", b"../../CANARY", b"jobs/" + b"a" * 5000):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/a.B/Job")(name, metadata=bearer("token"))
            assert failure(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
    await server.stop(0)
    records = [json.loads(line) for line in log.lines()]
    assert [(each["principal"], each["outcome"]) for each in records] == [("eve", "JOB_NOT_FOUND")] * 3
    assert [each["resource"] for each in records] == ["jobs/0f3a", "", ""]
    assert {each["facts"]["method"] for each in records} == {"a.B/Job"}


async def test_where_nothing_is_set_up_everybody_is_local() -> None:
    server, channel = await _serve(Settings())
    async with channel:
        assert await channel.unary_unary("/a.B/Unary")(b"") == f"{LOCAL.name} {LOCAL.name}".encode()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/a.B/Invented")(b"")
        assert (caught.value.code(), caught.value.details()) == (
            grpc.StatusCode.UNIMPLEMENTED,
            "Method not found!",
        )
    await server.stop(0)


async def test_a_refused_caller_sends_nothing_into_memory(tmp_path: Path) -> None:
    """The answer comes while the caller still waits to send: no message is read."""
    server, channel = await _serve(Settings(tokens=write_tokens(tmp_path / "tokens.toml")))
    forever = asyncio.Event()

    async def requests() -> AsyncIterator[bytes]:
        await forever.wait()
        yield b""

    async with channel:
        call = channel.stream_unary("/a.B/Unary")(requests())
        assert await asyncio.wait_for(call.code(), 10) is grpc.StatusCode.UNAUTHENTICATED
    await server.stop(0)
