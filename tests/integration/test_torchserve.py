"""The real TorchServe 0.12 with an exported archive: predictions, visualizations, errors, tokens."""

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import torch
from google.protobuf import json_format
from google.rpc import error_details_pb2

from models import ZOO, read_bundle
from neurofv.events import Collector, Order
from neurofv.v1 import visualization_service_pb2 as vis
from service.status import info_of
from tests.commands import train
from tests.integration.torchserve import RunningTorchServe, joined, need_java, read_frames
from tests.server import RunningServer
from tests.service.requests import CUBE, Stream, request

BUNDLE = ZOO / "lesion-shapes" / "1"
SMALL = "canvas { size_mm { i: 48 j: 48 k: 48 } }"
REQUEST = request(CUBE, SMALL, "steps: 4 snapshot_every: 2 seed: 7")
DIVERGES = request(
    CUBE, SMALL, "steps: 2 regularization { regularizers { l2 { weight: 1e300 } } } start { noise {} }"
)
REFUSED = {
    "too many steps": (request(CUBE, "steps: 1000000").SerializeToString(), "INVALID_FIELD", 400),
    "no message": (b"\xff\xff\xff", "INVALID_FIELD", 400),
    "no such field": (b'{"nonsense": 1}', "INVALID_FIELD", 400),
    "a cut image": ((BUNDLE / "reference.nii.gz").read_bytes()[:999], "SUBJECT_UNUSABLE", 400),
    "another model": (request(CUBE, model="growth").SerializeToString(), "MODEL_NOT_FOUND", 404),
    "no such unit": (
        request(
            'objective { terms { channel { layer: "blocks.2.conv" channel: 999 } } }'
        ).SerializeToString(),
        "UNIT_OUT_OF_RANGE",
        416,
    ),
}
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    416: grpc.StatusCode.OUT_OF_RANGE,
}


@pytest.fixture(scope="module")
def native_later(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Stream]]:
    """REQUEST from the service itself, on as many threads; it runs while TorchServe starts."""
    repository = tmp_path_factory.mktemp("repository")
    shutil.copytree(BUNDLE, repository / "lesion-shapes" / "1")

    def visualize() -> Stream:
        running = RunningServer(repository, threads=1)
        try:
            return Stream(list(running.visualization.Visualize(REQUEST, timeout=120)))
        finally:
            running.stop()

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(visualize).result


@pytest.fixture(scope="module")
def torchserve(
    tmp_path_factory: pytest.TempPathFactory, native_later: Callable[[], Stream]
) -> Iterator[RunningTorchServe]:
    need_java()
    folder = tmp_path_factory.mktemp("torchserve")
    exported = train("export", "lesion-shapes", "--torchserve", folder / "store")
    assert exported.exit_code == 0, exported.output
    running = RunningTorchServe(folder / "run", folder / "store", NEUROFV_THREADS="1")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def native(native_later: Callable[[], Stream]) -> Stream:
    return native_later()


@pytest.fixture(scope="module")
def image() -> bytes:
    return (BUNDLE / "reference.nii.gz").read_bytes()


def failed(call: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def test_predicts_over_rest_and_grpc_what_the_bundles_network_says(
    torchserve: RunningTorchServe, image: bytes
) -> None:
    bundle = read_bundle(BUNDLE)
    space = bundle.manifest.input
    volume = bundle.reference().get_fdata(dtype=np.float32)
    volume = np.clip(volume / np.float32(space.normalization.scale(volume)), *space.intensity_range)
    with torch.no_grad():
        wanted = bundle.network()(torch.from_numpy(volume)[None, None])[0].softmax(0).tolist()

    status, content_type, body = torchserve.post(image)
    assert (status, content_type) == (200, "application/json")
    told = json.loads(body)
    assert (told["model"], told["version"], told["model_digest"]) == ("lesion-shapes", 1, bundle.digest)
    assert told["probabilities"] == pytest.approx(
        dict(zip(bundle.manifest.classes, wanted, strict=True)), abs=1e-5
    )
    assert torchserve.predict(image) == body
    assert list(torchserve.stream(image)) == [body]


def test_a_streamed_visualization_has_the_bits_of_the_native_services(
    torchserve: RunningTorchServe, native: Stream
) -> None:
    parts = list(torchserve.stream(REQUEST.SerializeToString()))
    events, status = read_frames(joined(parts))
    assert status is None
    # Each message is an event by itself, none of them larger than a chunk of a volume.
    assert len(parts) == len(events)
    assert max(map(len, parts)) < (1 << 20) + 1024
    ours = Stream(events)
    assert ours.kinds() == native.kinds()
    assert ours.has_no_gaps()
    assert ours.volumes == native.volumes
    assert ours.begins == native.begins
    assert ours.completed.provenance.volume_sha256 == native.completed.provenance.volume_sha256
    assert ours.completed.evaluation == native.completed.evaluation
    # But for the time that TorchServe allows, the request is resolved to the same.
    assert ours.accepted.stopping.seconds == 900
    ours.accepted.stopping.ClearField("seconds")
    native.accepted.stopping.ClearField("seconds")
    assert ours.accepted == native.accepted


def test_the_clients_own_folding_reads_the_stream_over_rest(
    torchserve: RunningTorchServe, native: Stream
) -> None:
    status, content_type, body = torchserve.post(REQUEST.SerializeToString())
    assert (status, content_type) == (200, "application/x-protobuf")
    order, collector = Order(), Collector()
    for event in read_frames(body)[0]:
        collector.take(order.check(event))
    order.finish()
    result = collector.result()
    assert result.volume.sha256 == native.begins["final"].sha256
    assert result.job.startswith("torchserve/")


def test_json_is_answered_in_lines_of_json(torchserve: RunningTorchServe, native: Stream) -> None:
    plain = json_format.MessageToJson(REQUEST).encode()
    for content_type in ("application/json", "application/octet-stream"):
        status, answered, body = torchserve.post(plain, content_type=content_type)
        assert (status, answered) == (200, "application/x-ndjson")
        lines = [json.loads(line) for line in body.splitlines()]
        assert {line.pop("@type") for line in lines} == {"type.googleapis.com/neurofv.v1.VisualizeResponse"}
        events = [json_format.ParseDict(line, vis.VisualizeResponse()) for line in lines]
        assert Stream(events).volumes == native.volumes


@pytest.mark.parametrize("which", REFUSED)
def test_a_bad_request_has_the_code_and_the_reason_of_the_service(
    torchserve: RunningTorchServe, which: str
) -> None:
    body, reason, code = REFUSED[which]
    status, _, answer = torchserve.post(body)
    assert status == code
    assert json.loads(answer)["message"].startswith(f"{reason}: ")
    for call in (lambda: torchserve.predict(body), lambda: list(torchserve.stream(body))):
        error = failed(call)
        assert error.details().startswith(f"{reason}: ") or "StreamPredictions" in error.details()
        assert error.code() in (CODES[code], grpc.StatusCode.INVALID_ARGUMENT)
    error = failed(lambda: list(torchserve.stream(body)))
    assert (error.code(), error.details().partition(":")[0]) == (CODES[code], reason)


def test_a_run_that_fails_ends_with_its_status(torchserve: RunningTorchServe) -> None:
    body = DIVERGES.SerializeToString()
    for data in (joined(torchserve.stream(body)), torchserve.post(body)[2]):
        events, status = read_frames(data)
        assert events[-1].state_changed.state == vis.JOB_STATE_FAILED
        assert status is not None
        assert status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        assert info_of(status) == error_details_pb2.ErrorInfo(
            reason="OPTIMISATION_DIVERGED", domain="neurofv", metadata={"step": "1"}
        )


def test_what_would_end_torchserves_thread_is_refused(torchserve: RunningTorchServe, image: bytes) -> None:
    """Without care a worker that has answered either call never answers another."""
    error = failed(lambda: torchserve.predict(REQUEST.SerializeToString()))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "StreamPredictions" in error.details()
    assert torchserve.predict(image)
    assert failed(lambda: torchserve.stream_both_ways(image)).code() is grpc.StatusCode.UNKNOWN
    assert torchserve.predict(image)


def test_callers_need_the_token_and_the_models_name(torchserve: RunningTorchServe, image: bytes) -> None:
    assert torchserve.post(image, token="wrong")[0] == 400
    assert (
        failed(lambda: torchserve.predict(image, token="wrong")).code() is grpc.StatusCode.PERMISSION_DENIED
    )
    assert torchserve.post(image, model="nobody")[0] == 404
    assert failed(lambda: torchserve.predict(image, model="nobody")).code() is grpc.StatusCode.INTERNAL


def test_the_log_repeats_no_request(torchserve: RunningTorchServe) -> None:
    canary = "erika-mustermann-1957"
    error = failed(lambda: list(torchserve.stream(request(CUBE, model=canary).SerializeToString())))
    assert canary in error.details()
    assert torchserve.post(json.dumps({"model": canary}).encode(), content_type="application/json")[0] == 404
    assert '"reason": "MODEL_NOT_FOUND"' in torchserve.log()
    assert canary not in torchserve.log()
