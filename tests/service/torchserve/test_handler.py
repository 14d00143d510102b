import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from google.rpc import status_pb2
from grpc import StatusCode
from ts.context import Context, RequestProcessor
from ts.utils.util import PredictionException

from models import ZOO, BundleCorrupt, ModelNotFound, read_bundle
from neurofv.v1 import visualization_service_pb2 as vis
from service.torchserve import handler
from service.torchserve.handler import Archive, Handler, _settings
from service.torchserve.told import refusal
from tests.integration.torchserve import read_frames
from tests.service.requests import CUBE, request
from training.torchserve_archive import write_archive


def _context(**facts: object) -> SimpleNamespace:
    return SimpleNamespace(system_properties=facts)


def test_a_gpu_that_torchserve_gives_is_taken_unless_a_device_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _settings(None).device == "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert _settings(1).device == "cuda:1"
    monkeypatch.setenv("NEUROFV_DEVICE", "cpu")
    assert _settings(1).device == "cpu"


def test_a_model_that_cannot_be_served_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="batch_size is 4, but must be 1"):
        Handler().initialize(_context(batch_size=4, model_dir=tmp_path))
    monkeypatch.setenv("NEUROFV_TORCHSERVE_SECONDS", "-1")
    with pytest.raises(ValueError, match="NEUROFV_TORCHSERVE_SECONDS is -1, but must be above 0"):
        Handler().initialize(_context(batch_size=1, model_dir=tmp_path))


def test_an_archive_holds_one_model() -> None:
    bundle = read_bundle(ZOO / "growth" / "1")
    archive = Archive(bundle)
    assert archive.get("growth") is archive.get("growth", 1) is bundle
    for name, version in (("growth", 2), ("sex", None)):
        with pytest.raises(ModelNotFound, match="growth/1"):
            archive.get(name, version)


@pytest.mark.parametrize("code", [code for code in StatusCode if code is not StatusCode.OK])
def test_no_error_becomes_one_after_which_clients_try_again_by_themselves(code: StatusCode) -> None:
    raised = refusal(status_pb2.Status(code=code.value[0], message="why"))
    assert isinstance(raised, PredictionException)
    assert raised.error_code != 503
    assert raised.message.endswith(": why")


class Call:
    """A call over HTTP, and what is sent of its stream, in TorchServe's frames."""

    def __init__(self, folder: Path) -> None:
        self.context = Context("lesion-shapes", str(folder), {}, 1, None, "0.12.0")
        self.context.request_ids = {0: "an-id"}
        self.context.request_processor = [RequestProcessor({"Host": "localhost"})]
        self.context.cl_socket = self
        self.sent: list[bytes] = []

    def sendall(self, data: bytearray) -> None:
        self.sent.append(bytes(data))


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Call]:
    archive = write_archive(read_bundle(ZOO / "lesion-shapes" / "1"), tmp_path / "store")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "unpacked")
    # It is for a process of its own.
    monkeypatch.setattr(handler, "configure_events", lambda *_: None)
    threads = torch.get_num_threads()
    yield Call(tmp_path / "unpacked")
    torch.set_num_threads(threads)


def test_no_run_takes_the_worker_for_longer_than_allowed(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROFV_TORCHSERVE_SECONDS", "0.01")
    monkeypatch.setenv("NEUROFV_THREADS", "1")
    served = Handler()
    served.initialize(call.context)
    asked = request(CUBE, "canvas { size_mm { i: 48 j: 48 k: 48 } } steps: 5000 stopping { seconds: 600 }")
    (last,) = served.handle([{"body": asked.SerializeToString()}], call.context)
    ((event,), status) = read_frames(last)
    assert status is None
    assert event.completed.evaluation.stop_reason == vis.STOP_REASON_TIME
    assert event.completed.provenance.request.stopping.seconds == 0.01
    assert len(call.sent) < 30


def test_a_model_without_classes_predicts_nothing(call: Call) -> None:
    served = Handler()
    served.initialize(call.context)
    bundle = served.model.bundle
    manifest = bundle.manifest.model_copy(update={"classes": (), "classifier_layer": ""})
    served.model = replace(served.model, bundle=replace(bundle, manifest=manifest))
    image = (bundle.path / "reference.nii.gz").read_bytes()
    with pytest.raises(PredictionException, match="body cannot be predicted: lesion-shapes/1 has no classes"):
        served.handle([{"body": image}], call.context)


def test_an_archive_that_was_altered_is_not_loaded(call: Call) -> None:
    folder = Path(call.context.system_properties["model_dir"])
    (folder / "weights.safetensors").write_bytes(b"")
    with pytest.raises(BundleCorrupt, match=r"weights\.safetensors"):
        Handler().initialize(call.context)


def test_a_control_is_not_the_archives_own_network(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROFV_THREADS", "1")
    served = Handler()
    served.initialize(call.context)
    results = []
    for control in ("", "control { random_weights {} }"):
        asked = request(CUBE, "canvas { size_mm { i: 24 j: 24 k: 24 } } steps: 2", control)
        (last,) = served.handle([{"body": asked.SerializeToString()}], call.context)
        ((event,), status) = read_frames(last)
        assert status is None
        results.append(event.completed)
    own, control = results
    assert not own.provenance.request.HasField("control")
    assert control.provenance.request.HasField("control")
    assert own.provenance.volume_sha256 != control.provenance.volume_sha256
    assert not control.evaluation.terms[0].HasField("percentile")
