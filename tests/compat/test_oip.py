"""The Open Inference Protocol, spoken by Triton's own client and by hand."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import nibabel
import numpy as np
import pytest
import torch
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from models import ZOO, read_bundle
from neurofv.audit import read_lines
from service.oip import open_inference_pb2 as oip
from service.oip import open_inference_pb2_grpc
from tests.server import RunningServer, make_repository
from tests.service.requests import CUBE, SMALL, failure, request, violations
from tests.service.security.authorities import TOKENS, bearer, write_tokens

CLIENT = Path(__file__).with_name("triton_client.py")
BUNDLE = read_bundle(ZOO / "lesion-shapes" / "1")
SHAPE = BUNDLE.manifest.input.shape
SUBMITTER = bearer(TOKENS["submitter"])
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that asks for tokens; it computes with as many threads as the test."""
    folder = tmp_path_factory.mktemp("guarded")
    repository = make_repository(folder / "zoo")
    for other in set(repository.iterdir()) - {repository / "lesion-shapes"}:
        shutil.rmtree(other)
    tokens = write_tokens(folder / "tokens.toml")
    running = RunningServer(repository, threads=torch.get_num_threads(), tokens=tokens, reflection="on")
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def volumes(cohort_dir: Path) -> np.ndarray:
    """Return the model's mean brain in invented intensities, and a person's scan as it lies on the disk."""
    scan = nibabel.load(next(iter(sorted(cohort_dir.glob("sub-*/anat/*affinebrain_T1w.nii.gz")))))
    mean = BUNDLE.reference().get_fdata(dtype=np.float32) * 700
    return np.stack([mean, scan.get_fdata(dtype=np.float32)])


@pytest.fixture(scope="module")
def triton(guarded: RunningServer, volumes: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Return what Triton's client has seen."""
    file = tmp_path_factory.mktemp("triton") / "volumes.npy"
    np.save(file, volumes)
    command = [sys.executable, CLIENT, guarded.target, TOKENS["submitter"], file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _logits(volumes: np.ndarray, normalize: bool = True) -> np.ndarray:
    """Return what the bundle's own network says."""
    network, space = BUNDLE.network(), BUNDLE.manifest.input
    with torch.inference_mode():
        return np.concatenate(
            [
                network(torch.tensor(space.normalize(volume) if normalize else volume)[None, None]).numpy()
                for volume in volumes
            ]
        )


def test_server_and_models_are_ready(triton: dict) -> None:
    assert triton["live"] is triton["ready"] is triton["model_ready"] is triton["version_ready"] is True
    # Version 2 has a damaged byte; the newest that is ready is 1.
    assert triton["damaged_ready"] is triton["unknown_ready"] is False


def test_metadata(triton: dict) -> None:
    assert triton["server"] == {
        "name": "neurofv",
        "version": "0.1.0",
        "extensions": ["feature_visualization"],
    }
    classes = ["-1", str(len(BUNDLE.manifest.classes))]
    assert triton["model"] == {
        "name": "lesion-shapes",
        "versions": ["1"],
        "platform": "pytorch_safetensors",
        "inputs": [{"name": "volume", "datatype": "FP32", "shape": ["-1", "1", *map(str, SHAPE)]}],
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": classes},
            {"name": "probabilities", "datatype": "FP32", "shape": classes},
        ],
    }


def test_logits_are_those_of_the_bundles_network(triton: dict, volumes: np.ndarray) -> None:
    expected = _logits(volumes)
    one, batch = triton["one"], triton["batch"]
    assert (one["id"], one["version"]) == ("one", "1")
    assert list(one["outputs"]) == ["logits", "probabilities"]
    assert list(batch["outputs"]) == ["probabilities", "logits"]
    np.testing.assert_array_equal(np.float32(one["outputs"]["logits"]), expected[:1])
    np.testing.assert_array_equal(np.float32(batch["outputs"]["logits"]), expected)
    softmax = torch.from_numpy(expected).softmax(1).numpy()
    np.testing.assert_allclose(batch["outputs"]["probabilities"], softmax, atol=1e-6)
    assert not np.array_equal(expected[0], expected[1])


def test_a_volume_in_model_units_is_left_as_it_is(triton: dict, volumes: np.ndarray) -> None:
    assert list(triton["normalized"]["outputs"]) == ["logits"]
    found = np.float32(triton["normalized"]["outputs"]["logits"])
    np.testing.assert_array_equal(found, _logits(volumes / np.float32(700), normalize=False))


def test_triton_is_told_what_is_wrong(triton: dict) -> None:
    invalid = "StatusCode.INVALID_ARGUMENT"
    assert triton["wrong_name"] == [invalid, "inputs holds 'image'; send one tensor called 'volume'"]
    assert triton["wrong_output"] == [
        invalid,
        "outputs[0].name is 'labels'; lesion-shapes/1 gives logits and probabilities",
    ]
    assert triton["wrong_shape"] == [
        invalid,
        "inputs[0].shape is [90, 109, 91], but must be [batch, 1, 91, 109, 91] or [91, 109, 91], the model's "
        "grid; resample the image",
    ]
    assert triton["wrong_model"][0] == "StatusCode.NOT_FOUND"
    assert triton["no_token"][0] == "StatusCode.UNAUTHENTICATED"


def test_who_has_asked_is_in_the_audit_log(guarded: RunningServer, triton: dict) -> None:
    records = [json.loads(line) for line in read_lines(guarded.data / "audit.jsonl")]
    acts = [record for record in records if record["action"] == "model.infer"]
    assert len(acts) >= 3
    assert {act["principal"] for act in acts} == {"submitter"}
    assert {act["resource"] for act in acts} == {"models/lesion-shapes/1"}
    assert acts[1]["facts"]["digest"] == BUNDLE.digest
    assert acts[1]["facts"]["volumes"] == "2"


def test_the_how_to_shows_what_works(
    guarded: RunningServer, volumes: np.ndarray, triton: dict, tmp_path: Path
) -> None:
    page = CLIENT.parents[2] / "docs" / "how-to" / "call-from-other-platforms.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    nibabel.Nifti1Image(volumes[0], np.eye(4)).to_filename(tmp_path / "brain.nii.gz")
    done = subprocess.run(
        [sys.executable, "-c", example.replace("localhost:50051", guarded.target)],
        cwd=tmp_path,
        env=os.environ | {"NEUROFV_TOKEN": TOKENS["submitter"]},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == str(np.float32(triton["one"]["outputs"]["probabilities"])), done.stderr


# By hand: what Triton's client does not send.


def _ask(volume: np.ndarray | None = None, text: str = "", **fields: object) -> oip.ModelInferRequest:
    """Make a request of a volume, which a JSON text then changes."""
    asked = oip.ModelInferRequest(model_name="lesion-shapes", **fields)
    asked.inputs.add(name="volume", datatype="FP32", shape=SHAPE)
    asked.raw_input_contents.append(np.zeros(SHAPE, "<f4").tobytes() if volume is None else volume.tobytes())
    if text:
        changed = json.loads(text)
        for name in changed:
            asked.ClearField(name)
        json_format.ParseDict(changed, asked)
    return asked


def _infer(
    server: RunningServer, asked: oip.ModelInferRequest, role: str = "submitter"
) -> oip.ModelInferResponse:
    stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(server.channel)
    return stub.ModelInfer(asked, metadata=bearer(TOKENS[role]), timeout=60)


GRID = list(SHAPE)
INPUT = {"name": "volume", "datatype": "FP32", "shape": GRID}


def _inputs(**changed: object) -> str:
    return json.dumps({"inputs": [INPUT | changed]})


BAD = {
    "no model": ("model_name", '{"model_name": ""}'),
    "a version that is none": ("model_version", '{"model_version": "newest"}'),
    "a long id": ("id", json.dumps({"id": "x" * 257})),
    "no input": ("inputs", '{"inputs": []}'),
    "two inputs": ("inputs", json.dumps({"inputs": [INPUT, INPUT]})),
    "another type": ("inputs[0].datatype", _inputs(datatype="FP64")),
    "no shape": ("inputs[0].shape", _inputs(shape=[])),
    "another grid": ("inputs[0].shape", _inputs(shape=[91, 109, 92])),
    "an empty batch": ("inputs[0].shape", _inputs(shape=[0, 1, *GRID])),
    "a negative batch": ("inputs[0].shape", _inputs(shape=[-1, 1, *GRID])),
    "a batch beyond all bounds": ("inputs[0].shape", _inputs(shape=[2**62, 1, *GRID])),
    "two channels": ("inputs[0].shape", _inputs(shape=[1, 2, *GRID])),
    "shared memory": (
        "inputs[0].parameters.shared_memory_region",
        _inputs(parameters={"shared_memory_region": {"string_param": "a"}}),
    ),
    "labels for numbers": (
        "outputs[0].parameters.classification",
        '{"outputs": [{"name": "logits", "parameters": {"classification": {"int64_param": 1}}}]}',
    ),
    "an output twice": ("outputs", '{"outputs": [{"name": "logits"}, {"name": "logits"}]}'),
    "a flag that is none": (
        "parameters.normalized",
        '{"parameters": {"normalized": {"string_param": "true"}}}',
    ),
    "too few bytes": ("raw_input_contents[0]", '{"raw_input_contents": ["AAAA"]}'),
    "bytes twice": ("raw_input_contents", '{"raw_input_contents": ["AAAA", "AAAA"]}'),
    "no numbers": ("inputs[0].contents.fp32_contents", '{"raw_input_contents": []}'),
    "numbers twice": ("inputs[0].contents", _inputs(contents={"fp32_contents": [1]})),
    "an empty volume": ("inputs[0]", "{}"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_tensor_is_refused_by_its_field(guarded: RunningServer, what: str) -> None:
    field, text = BAD[what]
    with pytest.raises(grpc.RpcError) as caught:
        _infer(guarded, _ask(text=text))
    assert failure(caught.value)[:2] == (INVALID, "INVALID_FIELD")
    assert violations(caught.value) == [field]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(
    guarded: RunningServer, volumes: np.ndarray, number: float
) -> None:
    batch = np.stack([volumes[0], volumes[0]])
    batch[1, 4, 5, 6] = number
    for normalized in (False, True):
        asked = _ask(batch, _inputs(shape=[2, 1, *GRID]))
        asked.parameters["normalized"].bool_param = normalized
        with pytest.raises(grpc.RpcError) as caught:
            _infer(guarded, asked)
        assert violations(caught.value) == ["inputs[0][1]"]


def test_a_caller_may_send_numbers_one_by_one(guarded: RunningServer, volumes: np.ndarray) -> None:
    asked = _ask(volumes[0])
    del asked.raw_input_contents[:]
    asked.inputs[0].contents.fp32_contents.extend(volumes[0].ravel().tolist())
    asked.parameters["content_type"].string_param = "np"  # a hint of some clients, which changes nothing
    answer = _infer(guarded, asked)
    np.testing.assert_array_equal(
        np.frombuffer(answer.raw_output_contents[0], "<f4"), _logits(volumes[:1])[0]
    )


def test_a_viewer_may_look_but_not_infer(guarded: RunningServer) -> None:
    stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(guarded.channel)
    viewer = bearer(TOKENS["viewer"])
    assert stub.ModelReady(oip.ModelReadyRequest(name="lesion-shapes"), metadata=viewer, timeout=30).ready
    with pytest.raises(grpc.RpcError) as caught:
        _infer(guarded, _ask(), "viewer")
    assert failure(caught.value)[:2] == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")


def test_reflection_tells_the_protocol(guarded: RunningServer) -> None:
    """As grpcurl and others learn it, which have no file of it."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(guarded.channel))
    service = pool.FindServiceByName("inference.GRPCInferenceService")
    known = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert [method.name for method in service.methods] == [method.name for method in known.methods]
    fields = service.methods_by_name["ModelInfer"].input_type.fields_by_name
    assert fields["raw_input_contents"].number == 7


def test_a_running_job_and_health_go_on_beside_it(guarded: RunningServer, volumes: np.ndarray) -> None:
    """A volume is shown to the network between two steps; the job's volume has the bits that it has alone."""
    asked = request(CUBE, SMALL, "steps: 12 snapshot_every: 0")
    visualize = guarded.visualization.Visualize
    alone = list(visualize(asked, metadata=SUBMITTER, timeout=120))[-1].completed
    shown: list[bytes] = []
    slowest = 0.0

    def show() -> None:
        while not ended.is_set():
            shown.append(_infer(guarded, _ask(volumes[0])).raw_output_contents[0])

    ended, beside = threading.Event(), []
    showing = threading.Thread(target=show)
    showing.start()
    for event in visualize(asked, metadata=SUBMITTER, timeout=120):
        beside.append(event)
        begun = time.monotonic()
        assert guarded.check() == health_pb2.HealthCheckResponse.SERVING
        slowest = max(slowest, time.monotonic() - begun)
    ended.set()
    showing.join()
    assert beside[-1].completed.provenance.volume_sha256 == alone.provenance.volume_sha256
    assert len(shown) > 3
    assert len(set(shown)) == 1
    assert slowest < 1


def test_a_killed_worker_is_told_and_replaced(guarded: RunningServer, volumes: np.ndarray) -> None:
    """Nobody waits for an answer that does not come."""
    (worker,) = guarded.workers()
    os.kill(worker, signal.SIGKILL)
    reasons, end = [], time.monotonic() + 100
    while time.monotonic() < end:
        try:
            _infer(guarded, _ask(volumes[0]))
            break
        except grpc.RpcError as error:
            reasons.append(failure(error)[:2])
            time.sleep(0.1)
    assert time.monotonic() < end
    assert set(reasons) == {(grpc.StatusCode.UNAVAILABLE, "WORKER_LOST")}
