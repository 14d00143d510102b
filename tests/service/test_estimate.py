"""What a request would cost, asked of the real server and its worker."""

import math
import time

import grpc
import pytest

from neurofv.v1 import visualization_service_pb2 as vis
from service.worker.fit import Lines, Sample, line
from tests.server import RunningServer
from tests.service.requests import CUBE, Stream, failure, request, violations
from tests.service.test_bad_requests import CASES

CHANNEL = 'objective { terms { channel { layer: "blocks.1.conv" channel: 3 } } }'
NEURON = 'objective { terms { neuron { layer: "blocks.2.conv" channel: 3 voxel { i: 30 j: 40 k: 30 } } } }'


def _canvas(edge: float) -> str:
    return f"canvas {{ size_mm {{ i: {edge} j: {edge} k: {edge} }} }}"


def _estimate(server: RunningServer, *parts: str) -> vis.EstimateResponse:
    asked = vis.EstimateRequest(request=request(*parts))
    return server.visualization.Estimate(asked, timeout=240)


@pytest.mark.parametrize(
    "parts",
    [
        (CHANNEL,),
        (NEURON, _canvas(80)),
        (CUBE, _canvas(60), "samples: 3 steps: 10"),
        (CUBE, _canvas(48), "parameterization { deformation {} } optimizer { sgd {} }"),
        (CUBE, _canvas(48), "parameterization { patch {} } transforms { copies: 2 }"),
        (CUBE, _canvas(48), "precision: PRECISION_BFLOAT16"),
    ],
)
def test_the_figures_are_sane(server: RunningServer, parts: tuple[str, ...]) -> None:
    found = _estimate(server, *parts)
    assert found.request.HasField("steps")
    size = found.request.canvas.size_mm
    assert found.voxels == round(size.i * size.j * size.k / 8)
    assert found.volumes == found.request.samples
    assert found.voxel_steps == found.voxels * found.volumes * found.request.steps
    for figure in (found.step_seconds, found.seconds, found.peak_bytes):
        assert math.isfinite(figure)
        assert figure > 0
    assert found.seconds > found.step_seconds * found.request.steps
    # The volume and what it becomes in the first layer are there at least.
    assert found.peak_bytes > 8 * 4 * found.voxels
    assert found.threads >= 1
    assert found.device
    assert found.jobs_waiting == 0


def test_the_whole_grid_costs_more_than_a_canvas(server: RunningServer) -> None:
    small, large = _estimate(server, CUBE, _canvas(48)), _estimate(server, CUBE, "canvas { size_mm {} }")
    assert large.voxels > 20 * small.voxels
    assert large.step_seconds > 3 * small.step_seconds
    assert large.seconds > 3 * small.seconds
    assert large.peak_bytes > 3 * small.peak_bytes


def test_more_volumes_cost_more(server: RunningServer) -> None:
    one, many = _estimate(server, CUBE, _canvas(64)), _estimate(server, CUBE, _canvas(64), "samples: 6")
    assert many.volumes == 6
    assert many.seconds > 2 * one.seconds


def test_what_was_measured_is_remembered(server: RunningServer) -> None:
    first = _estimate(server, CUBE, _canvas(52), "steps: 10 seed: 1")
    begin = time.monotonic()
    again = _estimate(server, CUBE, _canvas(52), "steps: 20 seed: 2")
    assert again.step_seconds == first.step_seconds
    assert time.monotonic() - begin < 30
    assert again.seconds > first.seconds


@pytest.mark.parametrize("name", CASES)
def test_what_visualize_refuses_is_refused_alike(server: RunningServer, name: str) -> None:
    asked, code, reason, field = CASES[name]
    with pytest.raises(grpc.RpcError) as caught:
        server.visualization.Estimate(vis.EstimateRequest(request=asked), timeout=60)
    assert failure(caught.value)[:2] == (code, reason)
    assert violations(caught.value) == ([field] if field else [])


def test_nothing_is_queued(server: RunningServer) -> None:
    line = 'neurofv_jobs_submitted_total{model="lesion-shapes"}'
    before = server.metric(line)
    _estimate(server, CUBE, _canvas(40))
    assert server.metric(line) == before


def test_it_answers_while_a_job_runs(server: RunningServer) -> None:
    call = server.visualization.Visualize(
        request(CUBE, "steps: 10000 snapshot_every: 0 canvas { size_mm {} }"), timeout=240
    )
    next(event for event in call if event.progress.step >= 1)
    waiting = server.visualization.Visualize(request(CUBE, _canvas(40), "steps: 1"), timeout=240)
    assert next(waiting).HasField("accepted")
    found = _estimate(server, CHANNEL, _canvas(44))
    assert found.busy
    assert found.jobs_waiting == 1
    assert found.step_seconds > 0
    # The job goes on.
    done = next(event.progress.step for event in call if event.progress.step)
    assert next(event for event in call if event.progress.step > done)
    call.cancel()
    assert list(waiting)[-1].HasField("completed")
    assert not _estimate(server, CHANNEL, _canvas(44)).busy


def test_a_job_comes_out_the_same_although_it_is_interrupted(server: RunningServer) -> None:
    asked = request(CUBE, _canvas(60), "steps: 60 snapshot_every: 0")
    alone = Stream(list(server.visualization.Visualize(asked, timeout=240)))
    call = server.visualization.Visualize(asked, timeout=240)
    events = [next(call)]
    while not events[-1].HasField("progress"):
        events.append(next(call))
    assert _estimate(server, NEURON, _canvas(58)).busy
    _estimate(server, CUBE, _canvas(60), "parameterization { voxels {} }")
    disturbed = Stream(events + list(call))
    assert disturbed.begins["final"].sha256 == alone.begins["final"].sha256
    assert disturbed.kinds()[-1] == "completed"


def test_a_line_is_found_again() -> None:
    height, slope = line([(10, 25.0), (20, 45.0), (50, 105.0)])
    assert height == pytest.approx(5)
    assert slope == pytest.approx(2)


def test_a_line_never_starts_below_nothing_nor_falls() -> None:
    assert line([(10, 1.0), (20, 4.0)])[0] == 0
    assert line([(10, 4.0), (20, 1.0)])[1] == 0
    assert line([(10, 30.0)]) == (0, pytest.approx(3))


def test_memory_follows_the_largest_canvases() -> None:
    """Small ones hold the first convolution whole, larger ones in parts."""
    samples = [
        Sample(voxels, 1e-3 * voxels, 0.1, 0.1, size, size, size)
        for voxels, size in ((10, 900), (100, 2000), (200, 3000))
    ]
    lines = Lines(samples)
    assert lines.at("step_bytes", 300) == pytest.approx(4000)
    assert lines.at("step", 300) == pytest.approx(0.3)
