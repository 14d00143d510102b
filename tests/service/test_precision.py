"""The numbers in which the network computes, asked of the real server."""

import grpc
import pytest
import torch

import engine
from neurofv.v1 import method_pb2
from service.device import check_precision, choose_device
from tests.server import RunningServer
from tests.service.requests import CUBE, SMALL, Stream, failure, request, violations

RUN = "steps: 24 snapshot_every: 0"
on_cpu = pytest.mark.skipif(choose_device("auto").type != "cpu", reason="a GPU takes every precision")


def _run(server: RunningServer, *parts: str) -> Stream:
    return Stream(list(server.visualization.Visualize(request(CUBE, SMALL, *parts), timeout=240)))


def test_half_precision_drives_the_unit_too(server: RunningServer) -> None:
    single, half = _run(server, RUN), _run(server, RUN, "precision: PRECISION_BFLOAT16")
    assert single.accepted.precision == method_pb2.PRECISION_FLOAT32
    assert half.accepted.precision == method_pb2.PRECISION_BFLOAT16
    assert half.completed.provenance.request.precision == method_pb2.PRECISION_BFLOAT16
    assert half.begins["final"].sha256 != single.begins["final"].sha256
    start = _run(server, "steps: 1 snapshot_every: 0 optimizer { sgd { learning_rate: 1e-12 } }")
    before, plain, coarse = (
        stream.completed.evaluation.terms[0].activation for stream in (start, single, half)
    )
    assert plain > before + 5
    assert coarse - before > 0.5 * (plain - before)


@on_cpu
def test_sixteen_bits_with_a_short_range_need_a_gpu(server: RunningServer) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        _run(server, "precision: PRECISION_FLOAT16")
    assert failure(caught.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert violations(caught.value) == ["precision"]
    for word in ("PRECISION_FLOAT16", "GPU", "PRECISION_BFLOAT16"):
        assert word in caught.value.details()


def test_a_gpu_takes_every_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    for precision in engine.Precision:
        check_precision(precision, "cuda:0")
        check_precision(engine.Precision.FLOAT32, "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_precision(engine.Precision.FLOAT16, "auto")
