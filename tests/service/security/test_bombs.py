"""What is sent to fill the server's memory is refused before it does."""

from __future__ import annotations

import gzip
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import nibabel
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from models import ZOO, read_bundle
from neurofv.v1 import model_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import SubjectUnusable
from service.volumes.subject import read_subject
from tests.server import RunningServer
from tests.service.requests import CUBE, failure, request

BUNDLE = read_bundle(ZOO / "lesion-shapes" / "1")
MASK = BUNDLE.prior().mask().numpy()
VISUALIZE = "/neurofv.v1.VisualizationService/Visualize"
ESTIMATE = "/neurofv.v1.VisualizationService/Estimate"
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
INVALID = grpc.StatusCode.INVALID_ARGUMENT
MB = 1_000_000
SLACK = 120 * MB


@pytest.fixture(scope="module")
def small() -> Iterator[RunningServer]:
    """A server with tight limits."""
    running = RunningServer(
        ZOO, threads=1, max_request_bytes=4 * MB, max_image_bytes=32 * MB, max_streams=8, max_calls=16
    )
    yield running
    assert running.stop() == 0


def _peak(server: RunningServer) -> int:
    """Return the most memory that the server has ever held."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _code(server: RunningServer, data: bytes, method: str = VISUALIZE, **options: object) -> grpc.StatusCode:
    try:
        list(server.channel.unary_stream(method)(data, timeout=60, **options))
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def _serves(server: RunningServer) -> bool:
    return (
        server.check() == 1 and len(server.models.ListModels(pb.ListModelsRequest(), timeout=20).models) > 0
    )


def test_a_request_that_is_too_large_is_refused(small: RunningServer) -> None:
    before = _peak(small)
    asked = request(CUBE, "start { subject {} }")
    asked.subject.nifti = bytes(5 * MB)
    assert _code(small, asked.SerializeToString()) is EXHAUSTED
    asked.subject.nifti = bytes(200 * MB)
    data = asked.SerializeToString()
    for _ in range(3):
        assert _code(small, data) is EXHAUSTED
    assert _peak(small) - before < SLACK
    assert _serves(small)


def test_a_compressed_request_is_not_inflated_beyond_the_limit(small: RunningServer) -> None:
    before = _peak(small)
    asked = request(CUBE, "start { subject {} }")
    asked.subject.nifti = bytes(500 * MB)
    data = asked.SerializeToString()
    # Half a megabyte on the wire.
    assert _code(small, data, compression=grpc.Compression.Gzip) is EXHAUSTED
    assert _code(small, data, compression=grpc.Compression.Deflate) is EXHAUSTED
    assert _peak(small) - before < SLACK
    assert _serves(small)


@pytest.mark.parametrize(
    "data",
    [
        b"\x0b" * 3_000_000,  # groups in groups
        b"\x0a\x00" * 1_500_000,  # a field again and again
        b"\xff" * 100,
        b"\x0a\xff\xff\xff\xff\x0f",  # a length of 4 GB
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # a length beyond 2^62
    ],
    ids=["nested groups", "repeated fields", "no varint", "a length of 4 GB", "a length beyond all"],
)
def test_bytes_that_are_no_message_are_refused(small: RunningServer, data: bytes) -> None:
    before = _peak(small)
    assert _code(small, data) is INVALID
    assert _code(small, data, ESTIMATE) is INVALID
    assert _peak(small) - before < SLACK
    assert _serves(small)


@pytest.mark.parametrize("count", [1, 200])
def test_large_headers_are_refused(small: RunningServer, count: int) -> None:
    metadata = tuple((f"x-bomb-{number}", "a" * (60_000 // count)) for number in range(count))
    before = _peak(small)
    code = _code(small, request(CUBE).SerializeToString(), metadata=metadata)
    assert code is EXHAUSTED
    assert _peak(small) - before < SLACK
    assert _serves(small)


def test_header_frames_without_end_close_the_connection(small: RunningServer) -> None:
    """HTTP/2 CONTINUATION frames, one after the other, as a client of gRPC would never send them."""
    host, port = small.target.split(":")
    before = _peak(small)
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        # A literal header that is never indexed: name "a", value of 8000 bytes.
        block = b"\x10\x01a\x7f" + _varint(8000 - 127) + b"b" * 8000
        raw.sendall(_frame(1, 0, block))
        closed = False
        try:
            for _ in range(20_000):
                raw.sendall(_frame(9, 0, block))
        except (ConnectionError, TimeoutError):
            closed = True
    assert closed or _peak(small) - before < SLACK
    assert _peak(small) - before < SLACK
    assert _serves(small)


def _varint(value: int) -> bytes:
    out = b""
    while value >= 128:
        out += bytes([value % 128 + 128])
        value //= 128
    return out + bytes([value])


def _frame(kind: int, flags: int, block: bytes) -> bytes:
    return struct.pack("!I", len(block))[1:] + bytes([kind, flags]) + struct.pack("!I", 1) + block


def test_more_calls_than_the_limit_are_refused_and_the_others_served(small: RunningServer) -> None:
    channels = [small.connect() for _ in range(4)]
    calls = []
    try:
        for channel in channels:
            stub = health_pb2_grpc.HealthStub(channel)
            # Nine on a connection of eight: the last waits in the client.
            calls += [stub.Watch(health_pb2.HealthCheckRequest(), timeout=30) for _ in range(9)]
        answers: dict[int, object] = {}

        def first(number: int) -> None:
            try:
                answers[number] = next(calls[number])
            except grpc.RpcError as error:
                answers[number] = error.code()

        threads = [
            threading.Thread(target=first, args=(number,), daemon=True) for number in range(len(calls))
        ]
        for thread in threads:
            thread.start()
        # Those that wait in the client are not answered at all.
        deadline = time.monotonic() + 4
        for thread in threads:
            thread.join(max(0, deadline - time.monotonic()))
        refused = [answer for answer in answers.values() if answer is EXHAUSTED]
        served = [answer for answer in answers.values() if not isinstance(answer, grpc.StatusCode)]
        assert 0 < len(served) <= 16
        assert refused
    finally:
        for call in calls:
            call.cancel()
        for channel in channels:
            channel.close()
    end = threading.Event()
    for _ in range(50):
        if _code(small, b"", "/neurofv.v1.ModelService/ListModels") is grpc.StatusCode.OK:
            break
        end.wait(0.1)
    assert _serves(small)


def test_idle_connections_to_the_operators_port_cost_few_threads(small: RunningServer) -> None:
    def threads() -> int:
        return len(list(Path(f"/proc/{small.process.pid}/task").iterdir()))

    before = threads()
    idle = [socket.create_connection(("127.0.0.1", small.http_port), timeout=10) for _ in range(120)]
    try:
        # Those beyond the limit are closed; the server has seen them all when the last one is.
        idle[-1].recv(1)
        assert threads() - before <= 70
    finally:
        for each in idle:
            each.close()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with suppress(OSError):
            if small.get("/livez")[0] == 200:
                break
        time.sleep(0.1)
    assert small.get("/readyz")[0] == 200


def _header(**fields: object) -> bytes:
    """Return a NIfTI-1 file that ends behind its header."""
    image = nibabel.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.diag([2.0, 2, 2, 1]))
    header = image.header
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + bytes(4)


def _dim(*sizes: int) -> dict[str, list[int]]:
    return {"dim": [len(sizes), *sizes, *[1] * (7 - len(sizes))]}


CLAIMS = {
    "huge dims": _header(**_dim(32767, 32767, 32767)),
    "dims whose product overflows 64 bits": _header(**_dim(*[32767] * 7)),
    "negative dims": _header(**_dim(-5, 100, 100)),
    "eight dims": _header(dim=[8, 2, 2, 2, 2, 2, 2, 2]),
    "minus one dims": _header(dim=[-1, 64, 64, 64, 1, 1, 1, 1]),
    "a far start": _header(vox_offset=3e38, **_dim(64, 64, 64)),
    "a start that is no number": _header(vox_offset=np.nan, **_dim(64, 64, 64)),
    "a start before the file": _header(vox_offset=-1e9, **_dim(64, 64, 64)),
    "an unknown type": _header(datatype=9999, **_dim(64, 64, 64)),
    "inflates without end": gzip.compress(bytes(400 * MB), 9),
    "inflates twice": gzip.compress(gzip.compress(bytes(400 * MB), 9), 9),
    "a gzip name without end": b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * (3 * MB),
    "members without end": gzip.compress(b"", mtime=0) * 150_000,
    "a header that claims, and zeros": gzip.compress(_header(**_dim(1024, 1024, 1024)) + bytes(60 * MB), 9),
}


@pytest.mark.parametrize("data", CLAIMS.values(), ids=CLAIMS)
def test_images_that_claim_or_inflate_are_refused(small: RunningServer, data: bytes) -> None:
    asked = request(CUBE, "start { subject {} }")
    asked.subject.nifti = data
    assert asked.ByteSize() < 4 * MB
    before = _peak(small)
    with ThreadPoolExecutor(6) as pool:
        codes = list(pool.map(lambda _: _code(small, asked.SerializeToString()), range(6)))
    assert set(codes) == {INVALID}
    # Six at once cost what one may: its file, its voxels as float32, and a copy of either.
    assert _peak(small) - before < SLACK
    assert _serves(small)


def test_a_second_version_header_with_64_bit_dims_is_refused() -> None:
    header = nibabel.Nifti2Header()
    for sizes in ([2**62, 2**62, 2**62], [2**63 - 1, 2, 2], [-(2**63), 2, 2]):
        header["dim"] = [3, *sizes, 1, 1, 1, 1]
        with pytest.raises(SubjectUnusable):
            read_subject(header.binaryblock + bytes(4), BUNDLE.manifest, MASK, "subject.nifti", 32 * MB)


PATHS = [
    "../../etc/passwd",
    "/etc/passwd",
    "lesion-shapes/../sex-affine",
    "a\0b",
    "..",
    ".",
    "lesion-shapes\n",
    "%2e%2e",
]


@pytest.mark.parametrize("name", PATHS)
def test_a_path_is_no_name(small: RunningServer, name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        small.models.GetModel(pb.GetModelRequest(name=name), timeout=20)
    assert failure(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    with pytest.raises(grpc.RpcError) as caught:
        list(small.visualization.Visualize(request(CUBE, model=name), timeout=20))
    assert failure(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    asked = request(CUBE)
    asked.comparisons.transfer_model = name
    with pytest.raises(grpc.RpcError) as caught:
        list(small.visualization.Visualize(asked, timeout=20))
    assert failure(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert str(ZOO.parent) not in (caught.value.details() or "")


def test_a_link_that_leaves_the_repository_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "host-secret-folder"
    (tmp_path / "zoo").mkdir()
    (secret / "1").mkdir(parents=True)
    for file in (ZOO / "lesion-shapes" / "1").iterdir():
        (secret / "1" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "zoo" / "growth").symlink_to(ZOO / "growth")
    (tmp_path / "zoo" / "linked").symlink_to(secret)
    inside = tmp_path / "zoo" / "lesion-shapes" / "1"
    inside.mkdir(parents=True)
    for file in (ZOO / "lesion-shapes" / "1").iterdir():
        (inside / file.name).symlink_to(file)
    running = RunningServer(tmp_path / "zoo", threads=1)
    try:
        listed = {entry.name: entry for entry in running.models.ListModels(pb.ListModelsRequest()).models}
        for name in ("linked", "lesion-shapes"):
            assert not listed[name].ready
            with pytest.raises(grpc.RpcError) as caught:
                list(running.visualization.Visualize(request(CUBE, model=name), timeout=60))
            code, reason, _ = failure(caught.value)
            assert (code, reason) == (grpc.StatusCode.DATA_LOSS, "ARTIFACT_CORRUPT")
            for text in (listed[name].reason, caught.value.details(), str(caught.value.trailing_metadata())):
                assert str(tmp_path) not in (text or "")
                assert "host-secret" not in (text or "")
        assert str(tmp_path) not in str(running.log)
    finally:
        running.process.kill()


def test_the_contract_has_no_message_that_holds_itself() -> None:
    """So no request can be nested deeper than the contract is."""
    seen: list = []

    def walk(message: object, above: tuple) -> None:
        assert message not in above, message.full_name  # type: ignore[attr-defined]
        if message in seen:
            return
        seen.append(message)
        for field in message.fields:  # type: ignore[attr-defined]
            if field.message_type is not None:
                walk(field.message_type, (*above, message))

    walk(vis.VisualizeRequest.DESCRIPTOR, ())
