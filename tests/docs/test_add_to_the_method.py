"""What docs/how-to/add-to-the-method.md shows is put into a copy of the project, and runs there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/add-to-the-method.md"

USE = """
import torch
from google.protobuf import text_format

import engine, models
from neurofv.v1 import visualization_service_pb2 as vis
from service.jobs.plan import make_plan
from service.settings import Settings
from service.worker.model import LoadedModel
from service.worker.run import run

request = text_format.Parse(
    '''model: "lesion-shapes" steps: 3 snapshot_every: 0
    objective { terms { channel_maximum { layer: "blocks.1.conv" channel: 3 } } }
    regularization { regularizers { left_right_symmetry { weight: 5 } } }''',
    vis.VisualizeRequest(),
)
settings = Settings()
bundle = models.Repository(settings.repository).get("lesion-shapes", None)
plan = make_plan(request, bundle, settings)
assert plan.request.regularization.regularizers[0].left_right_symmetry.weight == 5
unit = plan.spec.objective.terms[0].unit
assert type(unit).__name__ == "ChannelMaximum", unit
activation = torch.randn(2, 4, 5, 5, 5)
assert torch.equal(unit.read(activation), activation[:, 3].flatten(1).max(1).values)
model = LoadedModel.load(bundle, torch.device("cpu"))
events = [event for _, event in run([plan], model, settings, None, [lambda: False])]
progress = [event.progress for event in events if getattr(event, "progress", None) and event.progress.step]
assert len(progress) == 3 and progress[-1].regularizers["left_right_symmetry"] > 0, progress
assert events[-1].completed.evaluation.terms[0].unit == "blocks.1.conv:3"
image = torch.zeros(1, 1, 4, 3, 3)
image[0, 0, 0, 0, 0] = 1.0
from engine.regularizer import REGULARIZERS, Look
grid = engine.Grid((4, 3, 3), (2.0, 2.0, 2.0))
look = Look(image, torch.zeros(()), grid, engine.Anatomy(), {}, {})
assert abs(REGULARIZERS["left_right_symmetry"](2.0).penalty(look).item() - 2 * 2 / 36) < 1e-7
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the page's classes and messages in it."""
    root = tmp_path_factory.mktemp("project")
    leave = shutil.ignore_patterns("__pycache__", "zoo")
    for folder in ("engine", "models", "service", "proto", "client", "tests", "docs"):
        shutil.copytree(ROOT / folder, root / folder, ignore=leave)
    (root / "models/zoo").symlink_to(ROOT / "models/zoo")
    python = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    proto = re.findall(r"```proto\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(python) == 2
    assert len(proto) == 4
    (root / "engine/regularizer/symmetry.py").write_text(python[0])
    objective = root / "engine/objective.py"
    text = objective.read_text()
    text = text.replace("UNITS: dict", f"{python[1]}\n\nUNITS: dict", 1)
    objective.write_text(text.replace("SubjectActivations)\n}", "SubjectActivations, ChannelMaximum)\n}", 1))
    method = root / "proto/neurofv/v1/method.proto"
    text = method.read_text()
    for message, (line, body) in {"Regularizer": proto[:2], "ObjectiveTerm": proto[2:]}.items():
        begin = text.index(f"message {message} {{")
        end = text.index("\n  }\n", begin)
        text = f"{text[:end]}\n{line.rstrip()}{text[end:]}\n{body}"
    method.write_text(text)
    files = sorted(str(file.relative_to(root)) for file in root.glob("proto/neurofv/v1/*.proto"))
    out = [f"--{kind}_out=client" for kind in ("python", "pyi", "grpc_python")]
    _run(root, "-m", "grpc_tools.protoc", "-Iproto", *out, *files)
    return root


def _run(root: Path, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(root), str(root / "client")))}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_run_in_the_service(copy: Path) -> None:
    _run(copy, "-c", USE)


def test_the_contract_and_the_engine_still_agree(copy: Path) -> None:
    _run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/service/test_method.py")


def test_the_reference_tells_of_the_regularizer(copy: Path) -> None:
    (copy / "docs/reference").mkdir(exist_ok=True)
    _run(copy, "docs/make_reference.py")
    text = (copy / "docs/reference/method.md").read_text()
    assert "Mean squared difference between the left and the right side." in text
