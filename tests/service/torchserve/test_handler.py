from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from google.rpc import status_pb2
from grpc import StatusCode
from ts.utils.util import PredictionException

from models import ZOO, ModelNotFound, read_bundle
from service.torchserve.handler import Archive, Handler, _settings
from service.torchserve.told import refusal


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
