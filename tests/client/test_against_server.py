"""The clients and the command against the real server and its shipped model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import nibabel
import numpy as np
import pytest
from matplotlib import image as bitmap

import neurofv
from neurofv.v1 import method_pb2 as method
from neurofv.v1 import model_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis
from tests.server import RunningServer

MODEL = "lesion-shapes"
SMALL: dict[str, Any] = {"steps": 3, "canvas_mm": 48, "seed": 5}
NEUROFV = [sys.executable, "-c", "from neurofv.cli import main; main()"]


@pytest.fixture
def client(server: RunningServer) -> neurofv.Client:
    with neurofv.Client(server.target) as opened:
        yield opened


@pytest.fixture(scope="module")
def model(server: RunningServer) -> pb.Model:
    with neurofv.Client(server.target) as opened:
        return opened.model(MODEL)


def environment(server: RunningServer) -> dict[str, str]:
    return os.environ | {"NEUROFV_SERVER": server.target, "NO_COLOR": "1"}


def command(server: RunningServer, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*NEUROFV, *arguments], env=environment(server), cwd=cwd, capture_output=True, text=True, check=False
    )


def test_models_lists_what_is_ready_and_why_not(client: neurofv.Client) -> None:
    states = {(entry.name, entry.version): entry for entry in client.models()}
    assert states[MODEL, 1].ready
    assert "weights.safetensors" in states[MODEL, 2].reason


def test_a_visualization_lies_on_the_models_grid(client: neurofv.Client, model: pb.Model) -> None:
    events: list[neurofv.Event] = []
    result = client.visualize(MODEL, class_name="cube", snapshot_every=1, on_event=events.append, **SMALL)
    image = result.volume.nifti()
    assert image.shape == tuple(model.input.shape)
    np.testing.assert_allclose(image.affine.ravel(), model.input.affine)
    assert [event.step for event in events if isinstance(event, vis.Progress)] == [1, 2, 3]
    assert events[-1] == vis.Completed(evaluation=result.evaluation, provenance=result.provenance)
    assert all(not snapshot.final for snapshot in result.snapshots)
    assert result.label == "cube"


def test_a_saved_request_gives_the_same_volume(client: neurofv.Client, tmp_path: Path) -> None:
    first = client.visualize(MODEL, layer="blocks.1.conv", channel=0, snapshot_every=0, **SMALL)
    _, sidecar = first.save(tmp_path / "a.nii.gz")
    again = client.visualize(neurofv.read_request(sidecar))
    assert again.volume.bytes == first.volume.bytes
    other = client.visualize(
        MODEL, layer="blocks.1.conv", channel=0, snapshot_every=0, **(SMALL | {"seed": 6})
    )
    assert other.volume.bytes != first.volume.bytes


def test_every_keyword_is_understood_by_the_server(client: neurofv.Client, model: pb.Model) -> None:
    result = client.visualize(
        MODEL,
        version=1,
        class_name="cube",
        contrast=True,
        steps=2,
        seed=1,
        snapshot_every=0,
        canvas_mm=(48, 40, 44),
        center_mm=(10, -20, 10),
        transforms={"jitter_mm": 2, "rotation_degrees": 0, "scale": 0.05},
        regularizers={"l1": 0.1, "l2": {"weight": 0.2}, "total_variation": 0.3, "gaussian_blur": 4},
        parameterization={"fourier": {"decay": 1.25}},
        start={"reference_brain": 0.02},
        optimizer={"adam": 0.03},
        schedule="cosine",
    )
    request = result.request
    assert request.objective.terms[0].class_logit.class_name == "cube"
    assert len(request.objective.terms) == len(result.evaluation.terms) == len(model.classes)
    size = request.canvas.size_mm
    assert (size.i, size.j, size.k) == (48, 40, 44)
    assert request.parameterization.fourier.decay == 1.25
    assert request.start.reference_brain.deviation == 0.02
    assert request.optimizer.adam.learning_rate == 0.03
    assert request.optimizer.schedule == method.SCHEDULE_COSINE
    kinds = [each.WhichOneof("kind") for each in request.regularization.regularizers]
    assert kinds == ["l1", "l2", "total_variation", "gaussian_blur"]
    none = client.visualize(
        MODEL, class_name="cube", regularizers=[], start="noise", **(SMALL | {"steps": 1})
    )
    assert len(none.request.regularization.regularizers) == 0


@pytest.mark.parametrize("place", [{"voxel": (45, 54, 45)}, {"position_mm": (0, -18, 18)}])
def test_one_position_can_be_driven(client: neurofv.Client, place: dict[str, Any]) -> None:
    result = client.visualize(MODEL, layer="blocks.2.conv", channel=1, **place, **(SMALL | {"steps": 1}))
    assert result.evaluation.terms[0].unit.startswith("blocks.2.conv:1")


def test_an_unknown_class_is_answered_with_the_valid_ones(client: neurofv.Client, model: pb.Model) -> None:
    with pytest.raises(neurofv.NeurofvError) as caught:
        client.visualize(MODEL, class_name="blob")
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.NOT_FOUND, "CLASS_NOT_FOUND")
    for name in model.classes:
        assert name in str(caught.value)


def test_a_bad_number_names_its_field(client: neurofv.Client) -> None:
    with pytest.raises(neurofv.NeurofvError) as caught:
        client.visualize(MODEL, class_name="cube", regularizers={"l2": float("nan")})
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.field_violations[0][0] == "regularization.regularizers[0].l2.weight"


def test_a_deadline_ends_the_call(server: RunningServer) -> None:
    with (
        neurofv.Client(server.target, deadline_seconds=2) as client,
        pytest.raises(neurofv.NeurofvError, match="deadline") as caught,
    ):
        client.visualize(MODEL, class_name="cube", steps=9999, snapshot_every=0)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_an_exception_in_on_event_cancels_the_job(server: RunningServer, client: neurofv.Client) -> None:
    job = ""

    def stop(event: neurofv.Event) -> None:
        nonlocal job
        if isinstance(event, vis.Accepted):
            job = event.job
        if isinstance(event, vis.Progress):
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        client.visualize(MODEL, class_name="cube", on_event=stop, **(SMALL | {"steps": 9999}))
    assert ended(server, job) == "CANCELLED"


def test_leaving_a_stream_early_cancels_the_job(server: RunningServer, client: neurofv.Client) -> None:
    request = neurofv.build_request(MODEL, class_name="cube", **(SMALL | {"steps": 9999}))
    job = ""
    for response in client.stream(request):
        job = job or response.accepted.job
        if response.HasField("progress"):
            break
    assert ended(server, job) == "CANCELLED"


async def test_the_async_client_does_the_same(server: RunningServer, client: neurofv.Client) -> None:
    async with neurofv.AsyncClient(server.target) as aclient:
        await aclient.wait_until_ready(5)
        assert await aclient.models() == client.models()
        assert await aclient.model(MODEL) == client.model(MODEL)
        seen: list[str] = []

        async def on_event(event: neurofv.Event) -> None:
            await asyncio.sleep(0)
            seen.append(type(event).__name__)

        choices = {"class_name": "torus", "contrast": True, "snapshot_every": 2, **SMALL}
        result = await aclient.visualize(MODEL, on_event=on_event, **choices)
        assert seen[0] == "Accepted"
        assert seen.count("Progress") == 3
        assert result.volume.bytes == client.visualize(MODEL, **choices).volume.bytes
        with pytest.raises(neurofv.NeurofvError, match="CLASS_NOT_FOUND"):
            await aclient.visualize(MODEL, class_name="blob")


async def test_cancelling_a_task_cancels_the_job(server: RunningServer) -> None:
    started, jobs = asyncio.Event(), []

    def on_event(event: neurofv.Event) -> None:
        if isinstance(event, vis.Accepted):
            jobs.append(event.job)
        if isinstance(event, vis.Progress):
            started.set()

    async with neurofv.AsyncClient(server.target) as aclient:
        run = aclient.visualize(MODEL, class_name="cube", on_event=on_event, **(SMALL | {"steps": 9999}))
        task = asyncio.create_task(run)
        await asyncio.wait_for(started.wait(), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await asyncio.to_thread(ended, server, jobs[0]) == "CANCELLED"


async def test_a_server_that_is_not_there() -> None:
    with neurofv.Client("localhost:1") as client:
        for attempt in (client.models, lambda: client.wait_until_ready(0.1)):
            with pytest.raises(neurofv.NeurofvError, match="localhost:1") as caught:
                attempt()
            assert caught.value.reason == "SERVER_UNREACHABLE"
    async with neurofv.AsyncClient("localhost:1") as aclient:
        with pytest.raises(neurofv.NeurofvError, match="localhost:1"):
            await aclient.wait_until_ready(0.1)


def test_the_command_writes_everything(server: RunningServer, model: pb.Model, tmp_path: Path) -> None:
    arguments = ["--class", "cube", "-o", "cube.nii.gz", "--steps", "3", "--canvas", "48", "--seed", "5"]
    run = command(server, "visualize", MODEL, *arguments, "--snapshots", "way", "--every", "2", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("cube: activation ")
    assert "real held-out image" in run.stdout
    assert [line.strip() for line in run.stdout.splitlines()[1:]] == ["cube.nii.gz", "cube.json", "cube.png"]
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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.nii.gz"]


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
    endings = (".nii.gz", ".json", ".png")
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
        (["visualize", MODEL, "--class", "blob", "--contrast"], 2, "torus"),
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


def finished(server: RunningServer) -> list[dict[str, str]]:
    return [entry for entry in server.log if entry["event"] == "job_finished"]


def ended(server: RunningServer, job: str) -> str:
    """Wait until the server logs the job's end, and return its state."""
    wait_for(lambda: any(entry["job"] == job for entry in finished(server)))
    return next(entry["state"] for entry in finished(server) if entry["job"] == job)


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen within a minute"
        time.sleep(0.05)
