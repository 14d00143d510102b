import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from models import Bundle, ExportFailed
from models.architectures import build
from models.onnx_export import check_onnx, export_onnx

SHAPE = (9, 10, 8)


def test_reading_needs_no_onnx(master: Bundle) -> None:
    """The service does not install these packages."""
    program = (
        "import sys, models; models.read_bundle(sys.argv[1]).network();"
        "print([name for name in ('onnx', 'onnxruntime', 'onnxscript') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(master.path)]
    root = Path(__file__).parents[2]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("batch", [1, 3])
def test_the_shipped_model_agrees_with_torch(master: Bundle, batch: int) -> None:
    session = onnxruntime.InferenceSession(master.path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["volume"]
    assert [value.name for value in session.get_outputs()] == ["logits"]
    volume = np.random.default_rng(0).uniform(0, 1.1, (batch, 1, *master.manifest.input.shape))
    volume = volume.astype(np.float32)
    with torch.no_grad():
        expected = master.network()(torch.from_numpy(volume)).numpy()
    np.testing.assert_allclose(session.run(None, {"volume": volume})[0], expected, atol=1e-4, rtol=0)


def test_the_model_is_one_file_without_stack_traces(master: Bundle) -> None:
    model = onnx.load(master.path / "model.onnx")
    assert all(weight.data_location != onnx.TensorProto.EXTERNAL for weight in model.graph.initializer)
    assert len(model.graph.initializer) > 0
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_the_same_network_gives_the_same_bytes() -> None:
    network = build("lesion-net", classes=2, widths=(2, 2)).eval()
    assert export_onnx(network, SHAPE) == export_onnx(network, SHAPE)


def test_a_model_of_other_weights_is_refused() -> None:
    network, other = (build("lesion-net", classes=2, widths=(2, 2)).eval() for _ in range(2))
    model = export_onnx(network, SHAPE)
    check_onnx(model, network, SHAPE)
    with pytest.raises(ExportFailed, match="differ"):
        check_onnx(model, other, SHAPE)
    with pytest.raises(ExportFailed, match="shape"):
        check_onnx(model, build("lesion-net", classes=3, widths=(2, 2)).eval(), SHAPE)


def test_training_mode_is_refused() -> None:
    with pytest.raises(ExportFailed, match="eval"):
        export_onnx(build("lesion-net").train(), SHAPE)


class Unexportable(nn.Module):
    def forward(self, volume: torch.Tensor) -> Any:
        return torch.linalg.eigvals(volume)


def test_what_onnx_cannot_say_is_refused() -> None:
    with pytest.raises(ExportFailed):
        export_onnx(Unexportable().eval(), (4, 4, 4))


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(ExportFailed):
        check_onnx(b"no model", build("lesion-net").eval(), SHAPE)
