"""The clients against the real server and its shipped model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import nibabel
import numpy as np
import pytest

import neurofv
from neurofv.v1 import method_pb2 as method
from neurofv.v1 import model_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis
from tests.client.running import MODEL, SMALL, SUBJECT, ended
from tests.server import RunningServer

# Adam divides by the gradient's size, so that last bits, which differ with the batch's size, would grow.
STEADY = {"sgd": {"learning_rate": 20, "momentum": 0}}


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
    _, sidecar, *_ = first.save(tmp_path / "a.nii.gz")
    again = client.visualize(neurofv.read_request(sidecar))
    assert again.volume.bytes == first.volume.bytes
    other = client.visualize(
        MODEL, layer="blocks.1.conv", channel=0, snapshot_every=0, **(SMALL | {"seed": 6})
    )
    assert other.volume.bytes != first.volume.bytes


def test_a_batch_gives_what_each_unit_gives_alone(client: neurofv.Client) -> None:
    choices: dict[str, Any] = {"layer": "blocks.1.conv", "snapshot_every": 2, "optimizer": STEADY, **SMALL}
    events: list[neurofv.Event] = []
    result = client.visualize(MODEL, channel=[0, 3], on_event=events.append, **choices)
    assert [each.label for each in result.items] == ["blocks.1.conv:0", "blocks.1.conv:3"]
    assert [len(event.batch) for event in events if isinstance(event, vis.Progress)] == [1, 1, 1]
    assert [snapshot.item for snapshot in result.batch[0].snapshots] == [1]
    for channel, each in zip((0, 3), result.items, strict=True):
        alone = client.visualize(MODEL, channel=channel, **choices)
        np.testing.assert_allclose(voxels(each), voxels(alone), atol=1e-4)
        assert each.evaluation.objective == pytest.approx(alone.evaluation.objective, abs=1e-4)
        mine, theirs = (one.extras["gradient"].nifti().get_fdata() for one in (each, alone))
        assert np.corrcoef(mine.ravel(), theirs.ravel())[0, 1] > 0.999
    assert np.abs(voxels(result) - voxels(result.batch[0])).max() > 0.05


def test_samples_begin_with_consecutive_seeds_and_say_how_they_agree(client: neurofv.Client) -> None:
    choices: dict[str, Any] = {"layer": "blocks.1.conv", "channel": 0, "optimizer": STEADY} | SMALL
    first, second = client.visualize(MODEL, samples=2, **choices).items
    assert (first.seed, second.seed) == (5, 6)
    assert not first.evaluation.HasField("agreement")
    assert -1 <= second.evaluation.agreement <= 1
    assert any("agrees with the first sample" in line for line in second.verdicts())
    alone = client.visualize(MODEL, **(choices | {"seed": 6}))
    np.testing.assert_allclose(voxels(second), voxels(alone), atol=1e-4)
    assert np.abs(voxels(first) - voxels(second)).max() > 0.05


def test_minimizing_is_the_opposite_of_maximizing(client: neurofv.Client) -> None:
    choices: dict[str, Any] = {"layer": "blocks.1.conv", "channel": 0, "steps": 12, "canvas_mm": 40}
    up = client.visualize(MODEL, **choices).evaluation.terms[0]
    down = client.visualize(MODEL, minimize=True, **choices).evaluation.terms[0]
    # On the canvas; the mean over the whole grid hardly notices so small a box.
    assert down.held_out.activation < up.held_out.activation - 0.05


@pytest.mark.parametrize(
    "unit",
    [
        {"whole_layer": True},
        {"direction": np.eye(32)[2], "measure": "cosine"},
        {"direction": np.ones(32), "position_mm": (0, -18, 18)},
        {"compare": "inversion", "subject": SUBJECT},
        {"compare": "caricature", "subject": SUBJECT.read_bytes()},
        {"channel": 1, "behind_nonlinearities": True},
    ],
)
def test_each_objective_is_understood_by_the_server(client: neurofv.Client, unit: dict[str, Any]) -> None:
    result = client.visualize(MODEL, layer="blocks.1.conv", **unit, **SMALL)
    assert np.isfinite(result.evaluation.objective)
    assert "blocks.1.conv" in result.label
    assert result.objective.behind_nonlinearities == unit.get("behind_nonlinearities", False)


def test_weighted_sums_are_an_objective_of_ones_own(client: neurofv.Client) -> None:
    terms = [
        method.ObjectiveTerm(channel=method.Channel(layer="blocks.1.conv", channel=0), weight=2),
        method.ObjectiveTerm(class_logit=method.ClassLogit(class_name="cube"), sense=method.SENSE_MINIMIZE),
    ]
    result = client.visualize(MODEL, objective=method.Objective(terms=terms), **SMALL)
    assert len(result.evaluation.terms) == 2
    assert result.label == "blocks.1.conv:0 and 1 more term"


def test_a_subject_is_sent_but_never_comes_back(client: neurofv.Client, tmp_path: Path) -> None:
    image = nibabel.load(SUBJECT)
    result = client.visualize(MODEL, class_name="cube", subject=image, start="subject", **SMALL)
    assert result.request.subject.nifti == b""
    assert result.provenance.subject_sha256 == result.request.subject.sha256 != ""
    assert "derived from a person's image" in result.verdicts()[-1]
    _, sidecar, *_ = result.save(tmp_path / "a.nii.gz")
    assert client.visualize(neurofv.read_request(sidecar, image)).volume.bytes == result.volume.bytes
    with pytest.raises(neurofv.NeurofvError, match="keeps no image"):
        client.visualize(neurofv.read_request(sidecar))


def test_a_deformation_brings_its_jacobian(client: neurofv.Client, tmp_path: Path) -> None:
    result = client.visualize(MODEL, class_name="cube", parameterization="deformation", **SMALL)
    jacobian = result.extras["jacobian"].nifti().get_fdata()
    assert jacobian.shape == voxels(result).shape
    assert jacobian.min() == pytest.approx(result.evaluation.smallest_jacobian)
    assert jacobian.min() > 0
    assert any("does not fold" in line for line in result.verdicts())
    assert (tmp_path / "a_jacobian.nii.gz") in result.save(tmp_path / "a.nii.gz")


def test_a_patch_brings_its_opacity(client: neurofv.Client) -> None:
    patch = {"patch": {"size_mm": 24, "sparsity": 0.1}}
    result = client.visualize(MODEL, class_name="cube", parameterization=patch, **SMALL)
    opacity = result.extras["opacity"].nifti().get_fdata()
    assert 0 <= opacity.min() < opacity.max() <= 1


def test_the_result_is_compared_with_another_model_and_with_real_images(client: neurofv.Client) -> None:
    images = [shifted(0), shifted(1), noisy()]
    result = client.visualize(
        MODEL,
        class_name="cube",
        transfer=f"{MODEL}/1",
        real_images={"cube": images[:2], "none": images[2]},
        **SMALL,
    )
    seen = result.evaluation.transfer
    assert (seen.model, seen.version) == (MODEL, 1)
    assert 0 <= seen.probability <= 1
    assert len(result.evaluation.path) > 3
    lines = " ".join(result.verdicts())
    assert f"{MODEL}/1 sees" in lines
    assert "real images of class cube" in lines


def shifted(voxels: int) -> nibabel.Nifti1Image:
    """A brain, moved."""
    image = nibabel.load(SUBJECT)
    return nibabel.Nifti1Image(np.roll(image.get_fdata(dtype=np.float32), voxels, axis=1), image.affine)


def noisy() -> nibabel.Nifti1Image:
    """Noise in the place of a brain: nothing that a layer could mistake for one."""
    image = nibabel.load(SUBJECT)
    brain = image.get_fdata(dtype=np.float32)
    return nibabel.Nifti1Image(
        (brain > 0.1) * np.random.default_rng(0).random(brain.shape, np.float32), image.affine
    )


def voxels(result: neurofv.Visualization) -> np.ndarray:
    return result.volume.nifti().get_fdata()


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
        transforms={"jitter_mm": 2, "rotation_degrees": 0, "scale": 0.05, "copies": 2},
        regularizers={
            "l1": 0.1,
            "l2": {"weight": 0.2},
            "gaussian_blur": 4,
            "feature_distance": {"layer": "blocks.0.conv", "weight": 1},
        },
        stopping={"look_every": 1, "activation": 1000.0},
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
    assert request.transforms.copies == 2
    assert (request.stopping.look_every, request.stopping.activation) == (1, 1000)
    assert request.regularization.regularizers[3].feature_distance.layer == "blocks.0.conv"
    kinds = [each.WhichOneof("kind") for each in request.regularization.regularizers]
    assert kinds == ["l1", "l2", "gaussian_blur", "feature_distance"]
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


def test_an_estimate_takes_what_visualize_takes(client: neurofv.Client) -> None:
    found = client.estimate(MODEL, class_name="cube", canvas_mm=48, steps=7, samples=2)
    assert found.voxels == 24**3
    assert found.volumes == 2
    assert found.request.steps == 7
    assert found.voxel_steps == 7 * 2 * 24**3
    assert min(found.step_seconds, found.seconds, found.peak_bytes) > 0
    again = client.estimate(found.request)
    assert again.request == found.request
    with pytest.raises(neurofv.NeurofvError, match="sphere"):
        client.estimate(MODEL, class_name="blob")


def test_an_estimate_can_be_awaited(server: RunningServer) -> None:
    async def ask() -> int:
        async with neurofv.AsyncClient(server.target) as client:
            return (await client.estimate(MODEL, class_name="cube", canvas_mm=48)).voxels

    assert asyncio.run(ask()) == 24**3
