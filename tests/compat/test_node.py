"""A client in another language has nothing but proto/: Node with @grpc/grpc-js."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nibabel
import pytest

from models import ZOO
from tests.server import RunningServer

HERE = Path(__file__).parent / "node"
PROTO = Path(__file__).parents[2] / "proto"


def _tool(name: str) -> str:
    """Find a program; where it is missing the test is skipped, but not where everything must be shown."""
    found = shutil.which(name)
    if found is None:
        assert not os.environ.get("CI"), f"{name} is missing; install Debian's nodejs and npm"
        pytest.skip(f"{name} is missing")
    return found


@pytest.fixture(scope="module")
def packages() -> Path:
    """The folder of what package-lock.json names, installed once for all runs."""
    npm = _tool("npm")
    lock = (HERE / "package-lock.json").read_bytes()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "neurofv-tests"
    folder = caches / f"node-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not folder.is_dir():
        caches.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=caches))
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, made)
        # Nothing but files: no package's own script runs.
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
        subprocess.run(command, cwd=made, check=True, timeout=240)
        try:
            made.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(made)
    return folder / "node_modules"


@pytest.fixture(scope="module")
def service(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("node") / "zoo"
    shutil.copytree(ZOO / "lesion-shapes", repository / "lesion-shapes")
    running = RunningServer(repository, threads=1)
    yield running
    assert running.stop() == 0


def _run(packages: Path, folder: Path, *arguments: str | Path) -> str:
    done = subprocess.run(
        [_tool("node"), *arguments],
        cwd=folder,
        env=os.environ | {"NODE_PATH": str(packages)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def found(packages: Path, service: RunningServer) -> dict:
    """Return what the client has seen."""
    return json.loads(_run(packages, HERE, HERE / "client.js", service.target, PROTO))


def test_the_how_to_shows_what_works(packages: Path, service: RunningServer, tmp_path: Path) -> None:
    page = PROTO.parent / "docs" / "how-to" / "call-from-other-platforms.md"
    (example,) = re.findall(r"```js\n(.*?)```", page.read_text(), re.DOTALL)
    (tmp_path / "proto").symlink_to(PROTO)
    script = tmp_path / "example.js"
    script.write_text(example.replace("localhost:50051", service.target).replace("steps: 20", "steps: 2"))
    said = _run(packages, tmp_path, script)
    assert re.findall(r"step (\d): -?\d+\.\d+\n", said) == ["1", "2"]
    (final,) = [file for file in tmp_path.glob("*_fv.nii.gz") if "gradient" not in file.name]
    assert nibabel.load(final).shape == (91, 109, 91)


def test_models_are_listed(found: dict) -> None:
    assert found["models"] == [{"name": "lesion-shapes", "version": 1, "ready": True}]


def test_progress_and_volumes_are_streamed(found: dict) -> None:
    seen = found["visualized"]
    assert seen["kinds"][0] == "accepted"
    assert seen["kinds"][-1] == "completed"
    assert seen["steps"] == [1, 2, 3, 4, 5, 6]
    assert "VOLUME_KIND_FINAL" in {volume["kind"] for volume in seen["volumes"]}
    assert len(seen["volumes"]) >= 2
    assert all(volume["matches"] and volume["shape"] == [91, 109, 91] for volume in seen["volumes"])


def test_errors_carry_their_details(found: dict) -> None:
    unknown, field = found["unknown_class"], found["bad_field"]
    assert unknown["code"] == "NOT_FOUND"
    assert unknown["ErrorInfo"]["reason"] == "CLASS_NOT_FOUND"
    assert unknown["ErrorInfo"]["domain"] == "neurofv"
    assert "cube" in unknown["ErrorInfo"]["metadata"]["valid"]
    assert unknown["ResourceInfo"]["resourceName"] == "egg"
    assert field["code"] == "INVALID_ARGUMENT"
    assert field["ErrorInfo"]["reason"] == "INVALID_FIELD"
    (violation,) = field["BadRequest"]["fieldViolations"]
    assert violation["field"] == "steps"
    assert violation["description"] == field["message"]


def test_a_watch_goes_on_where_it_was_left(found: dict) -> None:
    left, resumed = found["left"], found["resumed"]
    assert left["steps"] == [1, 2]
    assert resumed["steps"] == [3, 4, 5, 6]
    assert resumed["kinds"][-1] == "completed"
    finals = [
        volume["sha256"]
        for run in ("visualized", "resumed")
        for volume in found[run]["volumes"]
        if volume["id"] == "final"
    ]
    assert len(finals) == 2
    assert finals[0] == finals[1]


def test_a_job_is_cancelled(found: dict) -> None:
    assert found["cancelling"] in ("JOB_STATE_CANCELLING", "JOB_STATE_CANCELLED")
    assert found["cancelled"]["states"][-1] == "JOB_STATE_CANCELLED"
    assert "completed" not in found["cancelled"]["kinds"]
    assert found["cancelled_state"] == "JOB_STATE_CANCELLED"
