"""The command against the real server and its shipped model."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import nibabel
import numpy as np
import pytest
from matplotlib import image as bitmap

from neurofv.cli import main
from neurofv.v1 import model_service_pb2 as pb
from tests.client.running import MODEL, SUBJECT, finished, wait_for
from tests.server import RunningServer

NEUROFV = [sys.executable, "-c", "from neurofv.cli import main; main()"]


def environment(server: RunningServer) -> dict[str, str]:
    return os.environ | {"NEUROFV_SERVER": server.target, "NO_COLOR": "1"}


def process(server: RunningServer, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own."""
    return subprocess.run(
        [*NEUROFV, *arguments], env=environment(server), cwd=cwd, capture_output=True, text=True, check=False
    )


def command(server: RunningServer, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, which has imported already what it needs."""
    out, err = io.StringIO(), io.StringIO()
    with (
        chdir(cwd),
        patch.dict(os.environ, environment(server)),
        patch("sys.argv", ["neurofv", *arguments]),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert isinstance(ended.value.code, int)
    return subprocess.CompletedProcess(arguments, ended.value.code, out.getvalue(), err.getvalue())


def test_the_command_writes_everything(server: RunningServer, model: pb.Model, tmp_path: Path) -> None:
    arguments = ["--class", "cube", "-o", "cube.nii.gz", "--steps", "3", "--canvas", "48", "--seed", "5"]
    run = process(server, "visualize", MODEL, *arguments, "--snapshots", "way", "--every", "2", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("cube: activation ")
    assert "real held-out image" in run.stdout
    assert "of its activation" in run.stdout or "its activation is" in run.stdout
    assert "decades from that of real brains" in run.stdout
    assert [line.strip() for line in run.stdout.splitlines()[-4:]] == [
        *("cube.nii.gz", "cube.json", "cube_gradient.nii.gz", "cube.png")
    ]
    image = nibabel.load(tmp_path / "cube.nii.gz")
    assert image.shape == tuple(model.input.shape)
    np.testing.assert_allclose(image.affine.ravel(), model.input.affine)
    record = json.loads((tmp_path / "cube.json").read_text())
    assert record["provenance"]["model_digest"] == model.digest
    assert record["request"]["steps"] == 3
    assert bitmap.imread(tmp_path / "cube.png").std() > 0.05
    assert [path.name.partition("desc-")[2] for path in (tmp_path / "way").iterdir()] == [
        "step00002_fv.nii.gz"
    ]


def test_the_command_makes_several_volumes_at_once(server: RunningServer, tmp_path: Path) -> None:
    arguments = ["--layer", "blocks.1.conv", "--channel", "0-1", "--samples", "2", "-o", "out"]
    small = ["--steps", "2", "--canvas", "40", "--start", "noise", "--transform", "copies=2"]
    run = command(server, "visualize", MODEL, *arguments, *small, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert len(names) == 4 * 3 + 1
    assert "overview.png" in names
    for channel in range(2):
        for seed in range(2):
            name = f"unit-{channel}_desc-seed{seed}final_fv"
            assert len([each for each in names if name in each]) == 2
            assert f"{name}.nii.gz: blocks.1.conv:{channel} (seed {seed})" in run.stdout
    assert run.stdout.count("agrees with the first sample") == 2
    assert run.stdout.endswith("13 files lie in out\n")


def test_the_command_takes_a_control(server: RunningServer, tmp_path: Path) -> None:
    arguments = ["growth", "--class", "grown", "--steps", "2", "--no-picture", "-o", "out"]
    (tmp_path / "out").mkdir()
    for control, seed in (("random_weights", 0), ("random_weights=4", 4)):
        run = command(server, "visualize", *arguments, "--control", control, cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        assert f"a control (random weights, seed {seed})" in run.stdout
        (sidecar,) = (tmp_path / "out").glob(f"*_desc-random{seed}final_fv.json")
        assert json.loads(sidecar.read_text())["request"]["control"] == {"random_weights": {"seed": seed}}
    run = command(server, "visualize", *arguments, "--control", "sleep", cwd=tmp_path)
    assert run.returncode == 2
    assert "random_weights" in run.stderr


def test_the_command_takes_a_subject_and_another_model(server: RunningServer, tmp_path: Path) -> None:
    arguments = ["--class", "cube", "--subject", str(SUBJECT), "--start", "subject", "--minimize"]
    for setting in ("reach_mm=6", "smoothness_mm=12"):
        arguments += ["--parameterization", f"deformation.{setting}"]
    arguments += ["--transfer", MODEL, "--stop", "look_every=1", "--stop", "seconds=600"]
    arguments += ["--steps", "2", "--canvas", "48", "-o", "a.nii.gz"]
    run = command(server, "visualize", MODEL, *arguments, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    record = json.loads((tmp_path / "a.json").read_text())["request"]
    assert record["objective"]["terms"][0]["sense"] == "SENSE_MINIMIZE"
    assert record["parameterization"]["deformation"] == {"reach_mm": 6, "smoothness_mm": 12}
    assert record["stopping"]["seconds"] == 600
    assert (tmp_path / "a_jacobian.nii.gz").is_file()
    assert "derived from a person's image" in run.stdout
    assert f"{MODEL}/1 sees" in run.stdout


def test_a_place_that_cannot_be_written_is_noticed_before_the_work(
    server: RunningServer, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    submitted = server.metric('neurofv_jobs_submitted_total{model="lesion-shapes"}')
    for output in (tmp_path / "file" / "x.nii.gz", Path("/proc/x.nii.gz")):
        run = command(server, "visualize", MODEL, "--class", "cube", "-o", str(output), cwd=tmp_path)
        assert run.returncode == 2
        assert "nothing can be written there" in run.stderr
    assert server.metric('neurofv_jobs_submitted_total{model="lesion-shapes"}') == submitted


def test_without_the_plot_extra_the_other_files_are_kept(server: RunningServer, tmp_path: Path) -> None:
    script = "import sys; sys.modules['nilearn'] = None\nfrom neurofv.cli import main\nmain()"
    arguments = ["visualize", MODEL, "--class", "cube", "-o", "a.nii.gz", "--steps", "1", "--canvas", "48"]
    run = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment(server),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "the extra 'plot'" in run.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.nii.gz", "a_gradient.nii.gz"]


def test_the_command_lists_models_and_layers(server: RunningServer, model: pb.Model, tmp_path: Path) -> None:
    listed = command(server, "models", cwd=tmp_path)
    assert "ready" in listed.stdout
    assert "weights.safetensors" in listed.stdout
    layers = command(server, "layers", f"{MODEL}/1", cwd=tmp_path)
    for layer in model.layers:
        assert f"{layer.name} " in layers.stdout
        assert layer.type in layers.stdout
    assert ", ".join(model.classes) in layers.stdout


def test_demo_asks_for_every_class(server: RunningServer, model: pb.Model, tmp_path: Path) -> None:
    run = command(server, "demo", "-o", "out", "--steps", "1", "--canvas", "48", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    endings = (".nii.gz", ".json", ".png", "_gradient.nii.gz")
    assert names == {f"{name}{ending}" for name in model.classes for ending in endings} | {"overview.png"}
    for name in model.classes:
        assert f"{name}.nii.gz" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["visualize", MODEL, "--class", "blob"], 1, "CLASS_NOT_FOUND"),
        (["visualize", "nothing", "--class", "cube"], 1, MODEL),
        (["visualize", f"{MODEL}/2", "--class", "cube"], 1, "weights.safetensors"),
        (["visualize", MODEL, "--class", "cube", "--steps", "-1"], 1, "steps"),
        (["visualize", MODEL, "--class", "blob", "--contrast"], 1, "torus"),
        (["visualize", MODEL, "--class", "cube,torus", "-o", "a.nii.gz"], 2, "such as a"),
        (["visualize", MODEL, "--class", "cube", "--samples", "2", "-o", "a.nii.gz"], 2, "--output"),
        (["visualize", MODEL, "--class", "cube", "--stop", "looks=3"], 2, "--stop looks 3"),
        (["visualize", MODEL, "--class", "cube", "--start", "subject"], 1, "subject"),
        (["visualize", MODEL, "--class", "cube", "--subject", "none.nii"], 1, "none.nii"),
        (["visualize", MODEL, "--class", "cube", "--transfer", "other/x"], 2, "--transfer"),
        (["visualize", MODEL, "--layer", "pool", "--compare", "copy"], 2, "--compare"),
        (["visualize", MODEL, "--layer", "blocks.1.conv", "--direction", "1,2"], 1, "32 channels"),
        (["visualize", f"{MODEL}/x", "--class", "cube"], 2, "MODEL"),
        (["visualize", MODEL], 2, "--class"),
        (["visualize", MODEL, "--class", "cube", "-o", "a.nii"], 2, "--output"),
        (["visualize", MODEL, "--class", "cube", "--start", "brain"], 2, "reference_brain"),
        (["visualize", MODEL, "--class", "cube", "--steps", "many"], 2, "--steps"),
        (["layers", "nothing"], 1, "MODEL_NOT_FOUND"),
        (["models", "--server", "localhost:1", "--wait", "0.1"], 1, "localhost:1"),
    ],
)
def test_failures_are_told_in_a_line(
    server: RunningServer, arguments: list[str], code: int, words: str, tmp_path: Path
) -> None:
    run = command(server, *arguments, cwd=tmp_path)
    assert run.returncode == code
    assert words in run.stderr
    assert "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []
    if "Usage" not in run.stderr:
        assert len(run.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(("wanted", "code"), [("blob", 1), ("cube,torus", 2)])
def test_a_process_ends_with_its_code(server: RunningServer, wanted: str, code: int, tmp_path: Path) -> None:
    run = process(server, "visualize", MODEL, "--class", wanted, "-o", "a.nii.gz", cwd=tmp_path)
    assert (run.returncode, run.stdout) == (code, "")
    assert len(run.stderr.strip().splitlines()) == 1


def test_ctrl_c_cancels_the_job(server: RunningServer, tmp_path: Path) -> None:
    before = len(finished(server))
    arguments = ["visualize", MODEL, "--class", "cube", "--steps", "9999", "--canvas", "48"]
    with subprocess.Popen(
        [*NEUROFV, *arguments],
        env=environment(server),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs this in the background would have told it to ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        wait_for(lambda: server.metric("neurofv_jobs_running") == 1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "cancelled" in said
    assert "Traceback" not in said
    wait_for(lambda: len(finished(server)) > before)
    assert finished(server)[-1]["state"] == "CANCELLED"
    assert list(tmp_path.iterdir()) == []


def test_the_command_tells_what_a_volume_would_cost(server: RunningServer, tmp_path: Path) -> None:
    arguments = ["--class", "cube", "--canvas", "48", "--steps", "9", "--samples", "2"]
    run = command(server, "estimate", MODEL, *arguments, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "48 x 48 x 48 mm, 13,824 voxels, 2 volumes" in run.stdout
    for word in ("one step", "ms on", "for 9 steps", "MB", "waiting"):
        assert word in run.stdout
    assert list(tmp_path.iterdir()) == []
    refused = command(server, "estimate", MODEL, "--class", "blob", cwd=tmp_path)
    assert refused.returncode == 1
    assert "blob" in refused.stderr
