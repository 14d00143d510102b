"""An audit from plan to report, against real servers and as a real process that is killed."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import nibabel
import numpy as np
import pytest
import yaml

import neurofv
from models import ZOO
from neurofv.audit import probing
from neurofv.audit.grid import affine_of, on_grid
from neurofv.audit.plan import schema
from neurofv.audit.progress import Progress
from neurofv.audit.shortcuts import Untestable
from tests.client.running import Restarted, wait_for
from tests.client.test_command import NEUROFV, command, environment
from tests.compat.test_bids import validate

PLAN: dict[str, Any] = {
    "audit": 1,
    "model": "growth",
    "units": [{"classes": "all"}],
    "strategies": {"default": {"steps": 8}},
    "thresholds": {"seed_agreement": -1.0},
}
DATASET = Path("derivatives") / "neurofv"


@pytest.fixture(autouse=True)
def _without_viewer(monkeypatch: pytest.MonkeyPatch) -> None:
    # The page is judged elsewhere.
    monkeypatch.setenv("NEUROFV_VIEWER", "none")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restarted]:
    restarted = Restarted(tmp_path_factory.mktemp("data"))
    yield restarted
    assert restarted.server.stop() == 0


@pytest.fixture(scope="module")
def audited(running: Restarted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that an audit has filled, with real images."""
    folder = tmp_path_factory.mktemp("audited")
    write_images(folder / "images")
    units = [*PLAN["units"], {"layer": "blocks.0.conv", "channels": "top 2 by variance"}]
    plan = {
        **PLAN,
        "units": units,
        "seeds": [0],
        "controls": {"random_weights": True, "real_images": True},
        "images": "images",
        "thresholds": {},
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    with pytest.MonkeyPatch.context() as patched, neurofv.Client(running.target) as client:
        patched.setenv("NEUROFV_VIEWER", "none")
        client.audit(folder / "plan.yaml", folder / "out")
    return folder / "out"


def write_images(folder: Path) -> None:
    """Write images of two classes: the reference brain with a smooth change each."""
    brain = nibabel.load(ZOO / "growth" / "1" / "reference.nii.gz")
    voxels = brain.get_fdata(dtype=np.float32)
    for name, place in (("unchanged", 10), ("grown", 20)):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            changed = voxels.copy()
            changed[place + number : place + number + 4, 8:12, 8:12] *= 1.3
            nibabel.save(nibabel.Nifti1Image(changed, brain.affine), folder / name / f"{name}{number}.nii.gz")


def report_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())


def test_the_report_fits_its_schema_and_names_files_that_are_there(audited: Path) -> None:
    report = report_of(audited)
    jsonschema.Draft202012Validator(schema("report")).validate(report)
    assert json.loads((audited / "report.schema.json").read_text()) == schema("report")
    assert report["passed"]
    names = [unit["name"] for unit in report["units"]]
    assert names[:2] == ["unchanged", "grown"]
    assert len(names) == 4
    for unit in report["units"]:
        assert [picture["control"] for picture in unit["pictures"]] == ["none", "random_weights"]
        for picture in unit["pictures"]:
            digest = hashlib.sha256((audited / picture["volume"]).read_bytes()).hexdigest()
            assert digest == picture["sha256"]
            sidecar = json.loads((audited / picture["sidecar"]).read_text())
            assert sidecar["provenance"]["model_digest"] == report["model"]["digest"]
        own, random = unit["pictures"]
        assert own["evaluation"]["percentile"] is not None
        assert random["evaluation"]["percentile"] is None
        assert own["sha256"] != random["sha256"]
        assert unit["verdicts"]
    assert (audited / "report.html").stat().st_size > 10_000


def test_nothing_in_the_report_differs_between_runs_by_nature(audited: Path) -> None:
    text = (audited / "report.json").read_text()
    run = json.loads((audited / "run.json").read_text())
    assert run["jobs"]
    for private in (*run["jobs"].values(), str(audited), "started", run["runs"][0]["started"]):
        assert private not in text


def test_the_reference_is_the_models_own(audited: Path) -> None:
    ours = nibabel.load(audited / report_of(audited)["reference"]).get_fdata()
    theirs = nibabel.load(ZOO / "growth" / "1" / "reference.nii.gz").get_fdata()
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_exemplars_are_the_images_that_drive_a_unit_most(running: Restarted, audited: Path) -> None:
    report = report_of(audited)
    assert report["images"]["classes"] == {"grown": 2, "unchanged": 2}
    grown, channel = report["units"][1], report["units"][2]
    images = audited.parent / "images"
    with neurofv.Client(running.target) as client:
        logits = {
            path.relative_to(images).as_posix(): client.probe("growth", path).logits[1]
            for path in sorted(images.rglob("*.nii.gz"))
        }
    told = {exemplar["image"]: exemplar["activation"] for exemplar in grown["exemplars"]}
    assert told == logits
    assert list(told) == sorted(logits, key=lambda name: -logits[name])
    assert len(channel["exemplars"][0]["position_mm"]) == 3
    for exemplar in (*grown["exemplars"], *channel["exemplars"]):
        assert (audited / exemplar["picture"]).read_bytes().startswith(b"\x89PNG")


def test_activations_are_compared_with_real_images(audited: Path) -> None:
    units = report_of(audited)["units"]
    assert units[0]["pictures"][0]["evaluation"]["path"]
    assert units[0]["figures"]["default"]["path"] is not None
    assert units[0]["pictures"][1]["evaluation"]["path"] is None


def finer(image: Path) -> None:
    """Halve an image's voxels, off the grid by a quarter of its own, turn it, and put air on two sides."""
    whole = nibabel.load(image)
    voxels = whole.get_fdata(dtype=np.float32).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    voxels[:8] = voxels[-8:] = 0
    if image.parent.name == "unchanged":
        # To the network the cut looks like growth, unless what is left does not.
        voxels[16:48, 10:34, 10:34] *= 3
    affine = whole.affine @ np.diag([0.5, 0.5, 0.5, 1])
    nibabel.save(nibabel.Nifti1Image(np.flip(voxels, 0), affine @ flipped(len(voxels))), image)


def flipped(length: int) -> np.ndarray:
    turn = np.diag([-1.0, 1, 1, 1])
    turn[0, 3] = length - 1
    return turn


def refuse(*_: Any) -> None:
    raise Untestable("all answers are of one class")


def test_shortcuts_are_looked_for_if_the_plan_asks(
    running: Restarted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    write_images(images)
    for image in images.rglob("*.nii.gz"):
        finer(image)
    plan = {
        **PLAN,
        "units": [{"classes": ["grown"]}],
        "strategies": {"default": {"steps": 2}},
        "seeds": [0],
        "controls": {"random_weights": False},
        "images": "images",
        "probes": True,
        "thresholds": {"shortcuts": 99},
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    with neurofv.Client(running.target) as client:
        # What the audit shows of an image off the grid is what the server makes of it.
        space = client.model("growth").input
        for image in images.rglob("*.nii.gz"):
            ours = nibabel.Nifti1Image(on_grid(image, space), affine_of(space))
            answer = client.probe("growth", image).logits
            assert client.probe("growth", ours).logits == pytest.approx(answer, abs=1e-4)
            assert ("unchanged", "grown")[int(np.argmax(answer))] == image.parent.name
        # An image that does not serve is named before anything is made or bound.
        nibabel.save(nibabel.Nifti1Image(np.ones((9, 9, 9, 2)), np.eye(4)), images / "series.nii.gz")
        with pytest.raises(neurofv.InvalidRequest, match="the server refuses it") as caught:
            client.audit(tmp_path / "plan.yaml", out)
        assert (caught.value.field, caught.value.value) == ("images", "series.nii.gz")
        assert [path.name for path in out.iterdir()] == ["run.lock"]
        (images / "series.nii.gz").unlink()
        report = client.audit(tmp_path / "plan.yaml", out)
        # These pictures depend on no image: another one may come.
        shutil.copy(images / "grown" / "grown0.nii.gz", images / "more.nii.gz")
        answers, jobs = (
            (out / "probes.jsonl").read_bytes(),
            json.loads((out / "run.json").read_text())["jobs"],
        )
        again = client.audit(tmp_path / "plan.yaml", out)
        monkeypatch.setattr(probing, "find_shortcuts", refuse)
        untested = client.audit(tmp_path / "plan.yaml", out)
    jsonschema.Draft202012Validator(schema("report")).validate(report)
    kinds = {finding["kind"] for finding in report["shortcuts"]["found"]}
    assert kinds <= set(report["shortcuts"]["tested"])
    assert report["thresholds"] == [{"id": "shortcuts", "limit": 99, "value": len(kinds), "passed": True}]
    assert (report["images"]["count"], again["images"]["count"]) == (4, 5)
    assert again["shortcuts"] == report["shortcuts"]
    assert (out / "probes.jsonl").read_bytes() == answers
    assert json.loads((out / "run.json").read_text())["jobs"] == jobs
    # What could not be tested is no error, and no reassurance either.
    jsonschema.Draft202012Validator(schema("report")).validate(untested)
    assert untested["shortcuts"] == {"tested": [], "found": [], "untestable": "all answers are of one class"}
    assert untested["thresholds"] == [{"id": "shortcuts", "limit": 99, "value": None, "passed": False}]
    assert "shortcuts could not be tested: all answers are of one class" in untested["summary"]
    assert "no shortcut was found" not in "".join(untested["summary"])


def test_the_volumes_are_a_derivative_of_bids(audited: Path) -> None:
    assert validate(audited / DATASET) == {}


def start(running: Restarted, plan: Path, out: Path) -> subprocess.Popen[str]:
    arguments = ["audit", "run", str(plan), "-o", str(out)]
    return subprocess.Popen(
        [*NEUROFV, *arguments], env=environment(running.server), stderr=subprocess.PIPE, text=True
    )


def made(out: Path, wanted: int, process: subprocess.Popen[str]) -> bool:
    """Say whether so many pictures are there, or none can come any more."""
    return len(list((out / DATASET).glob("*_fv.json"))) >= wanted or process.poll() is not None


def test_killed_runners_and_servers_come_to_the_same_report(running: Restarted, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump({**PLAN, "batch": 1}))
    with neurofv.Client(running.target) as client:
        client.audit(plan, tmp_path / "whole")
    expected = hashlib.sha256((tmp_path / "whole" / "report.json").read_bytes()).hexdigest()

    other = Restarted(tmp_path / "data")
    out = tmp_path / "broken"
    try:
        for wanted in (1, 3):
            killed = start(other, plan, out)
            wait_for(partial(made, out, wanted, killed))
            killed.send_signal(signal.SIGKILL)
            killed.communicate()
            assert killed.returncode == -signal.SIGKILL
        assert not (out / "report.json").exists()
        last = start(other, plan, out)
        wait_for(partial(made, out, 5, last))
        other.kill()
        _, errors = last.communicate(timeout=120)
        assert last.returncode == 0, errors
    finally:
        other.server.stop()
    assert hashlib.sha256((out / "report.json").read_bytes()).hexdigest() == expected
    # The jobs were other ones.
    jobs = [
        set(json.loads((tmp_path / name / "run.json").read_text())["jobs"].values())
        for name in ("whole", "broken")
    ]
    assert jobs[0].isdisjoint(jobs[1])


def test_a_spoilt_picture_is_made_again(running: Restarted, audited: Path, tmp_path: Path) -> None:
    before = (audited / "report.json").read_bytes()
    out = Path(shutil.copytree(audited.parent, tmp_path / "copy")) / "out"
    volume, *_ = sorted((out / DATASET).glob("*final_fv.nii.gz"))
    volume.write_bytes(volume.read_bytes()[:-1])
    told: list[Progress] = []
    with neurofv.Client(running.target) as client:
        client.audit(out.parent / "plan.yaml", out, told.append)
    assert (out / "report.json").read_bytes() == before
    shares = [progress.share for progress in told if progress.share is not None]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_the_exit_code_tells_what_came_of_it(running: Restarted, tmp_path: Path) -> None:
    small = {**PLAN, "units": [{"classes": ["grown"]}], "controls": {"random_weights": False}}
    for name, plan in {
        "passed": small,
        "failed": {**small, "thresholds": {"seed_agreement": 1.0}},
        "invalid": {**small, "seed": 3},
        "refused": {**small, "strategies": {"default": {"steps": 0}}},
    }.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(plan))
    runs = {
        name: command(running.server, "audit", "run", f"{name}.yaml", "-o", name, cwd=tmp_path)
        for name in ("passed", "failed", "invalid", "refused")
    }
    assert {name: run.returncode for name, run in runs.items()} == {
        **{"passed": 0, "failed": 1, "invalid": 2, "refused": 2}
    }, [run.stderr for run in runs.values()]
    assert "seed_agreement FAILS" in runs["failed"].stdout
    assert "invalid.yaml: seed is 3" in runs["invalid"].stderr
    assert "steps is 0" in runs["refused"].stderr
    # The folder holds one audit.
    again = command(running.server, "audit", "run", "failed.yaml", "-o", "passed", cwd=tmp_path)
    assert again.returncode == 2
    assert "another plan" in again.stderr
    page = tmp_path / "passed" / "report.html"
    page.unlink()
    assert command(running.server, "audit", "report", "passed", cwd=tmp_path).returncode == 0
    assert page.is_file()


def test_a_server_that_is_away_is_an_audit_that_could_not_run(running: Restarted, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    arguments = ["--server", "127.0.0.1:1", "--wait", "0.2"]
    run = command(running.server, "audit", "run", "plan.yaml", *arguments, cwd=tmp_path)
    assert run.returncode == 2
    assert "127.0.0.1:1" in run.stderr


def test_init_writes_a_plan_that_runs_as_it_is(running: Restarted, tmp_path: Path) -> None:
    run = command(running.server, "audit", "init", "sex-affine", "-o", "first.yaml", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    text = (tmp_path / "first.yaml").read_text()
    assert "sex-affine/1" in text
    again = command(running.server, "audit", "init", "sex-affine", "-o", "first.yaml", cwd=tmp_path)
    assert again.returncode == 2
    assert (tmp_path / "first.yaml").read_text() == text
