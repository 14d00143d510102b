"""Fuzzed requests, the soak's proof at a small size; and the faults that it has found."""

from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.reliability import fuzz
from tests.server import RunningServer
from tests.service.requests import failure


def test_no_request_is_an_internal_error(tmp_path: Path) -> None:
    found = fuzz.measure(2000, offenders=tmp_path / "offenders")
    assert found["requests"] == 2000
    assert found["offenders"] == []
    assert found["forbidden"] == 0
    assert found["not_serving"] == 0
    assert found["worker_losses"] == 0


def test_a_method_that_nobody_has_written_is_unimplemented(server: RunningServer) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(server.channel).List(health_pb2.HealthListRequest(), timeout=10)
    code, reason, _ = failure(caught.value)
    assert (code, reason) == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNIMPLEMENTED")
