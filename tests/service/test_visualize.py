"""The main job against the real server, the shipped model and its worker."""

import numpy as np
import pytest

from models import ZOO, read_bundle
from tests.server import RunningServer
from tests.service.requests import CUBE, SMALL, Stream, request

LESIONS = [name for name in read_bundle(ZOO / "lesion-shapes" / "1").manifest.classes if name != "none"]


@pytest.fixture(scope="module")
def stream(server: RunningServer) -> Stream:
    asked = request(CUBE, SMALL, "steps: 5 snapshot_every: 2 seed: 7")
    return Stream(list(server.visualization.Visualize(asked, timeout=240)))


def test_events_come_in_order_without_gaps(stream: Stream) -> None:
    assert stream.has_no_gaps()
    kinds = stream.kinds()
    assert kinds[:3] == ["accepted", "QUEUED", "RUNNING"]
    assert kinds[-2:] == ["SUCCEEDED", "completed"]
    assert kinds.count("progress") == 5
    assert [event.progress.step for event in stream.events if event.HasField("progress")] == [1, 2, 3, 4, 5]
    assert list(stream.begins) == ["step00002", "step00004", "final", "gradient"]
    times = [event.time.ToNanoseconds() for event in stream.events]
    assert times == sorted(times)


def test_progress_tells_each_regularizer_by_name(stream: Stream) -> None:
    progress = next(event.progress for event in stream.events if event.HasField("progress"))
    named = [entry.WhichOneof("kind") for entry in stream.accepted.regularization.regularizers]
    assert set(progress.regularizers) <= set(named)
    assert "total_variation" in progress.regularizers
    assert progress.steps == 5
    assert progress.step_seconds > 0


def test_the_volume_lies_on_the_reference(stream: Stream) -> None:
    reference = read_bundle(ZOO / "lesion-shapes" / "1").reference()
    image = stream.image()
    assert image.shape == reference.shape
    np.testing.assert_array_equal(image.affine, reference.affine)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 4
    outside = np.ones(image.shape, bool)
    outside[18:72, 25:90, 15:75] = False
    np.testing.assert_allclose(image.get_fdata()[outside], reference.get_fdata()[outside].clip(0), atol=1e-6)
    assert np.abs(image.get_fdata() - reference.get_fdata()).max() > 0.05


def test_values_stay_within_the_intensity_range(stream: Stream) -> None:
    low, high = read_bundle(ZOO / "lesion-shapes" / "1").manifest.input.intensity_range
    for name in stream.volumes:
        values = stream.image(name).get_fdata()
        assert np.isfinite(values).all()
        assert values.min() >= low - 1e-6
        assert values.max() <= high + 1e-6
    assert float(stream.image().header["cal_max"]) == pytest.approx(high)


def test_the_file_is_named_as_bids_derivatives_are(stream: Stream) -> None:
    name = stream.begins["final"].file_name
    assert name.startswith("space-MNI152NLin6Asym_model-lesionshapes_layer-classifier_unit-")
    assert name.endswith("_desc-final_fv.nii.gz")
    assert "sub-" not in name


def test_the_resolved_request_makes_the_same_bits_again(server: RunningServer, stream: Stream) -> None:
    again = Stream(list(server.visualization.Visualize(stream.accepted, timeout=240)))
    assert again.accepted == stream.accepted
    assert again.begins["final"].sha256 == stream.begins["final"].sha256
    assert again.completed.provenance.volume_sha256 == stream.begins["final"].sha256


def test_another_seed_makes_another_volume(server: RunningServer, stream: Stream) -> None:
    asked = request(CUBE, SMALL, "steps: 5 seed: 8")
    other = Stream(list(server.visualization.Visualize(asked, timeout=240)))
    assert other.begins["final"].sha256 != stream.begins["final"].sha256


def test_every_default_is_filled_in(stream: Stream) -> None:
    for name in ("parameterization", "start", "transforms", "regularization", "optimizer", "canvas", "seed"):
        assert stream.accepted.HasField(name), name
    assert stream.accepted.version == 1
    assert stream.accepted.transforms.HasField("scale")


def test_provenance_says_what_made_it(stream: Stream) -> None:
    provenance = stream.completed.provenance
    assert provenance.model_digest == read_bundle(ZOO / "lesion-shapes" / "1").digest
    assert provenance.request == stream.accepted
    assert provenance.software["torch"].startswith("2.13.0")
    assert provenance.device == "cpu"
    assert provenance.threads >= 1
    assert provenance.synthetic
    assert provenance.finished.ToNanoseconds() > provenance.started.ToNanoseconds()


@pytest.mark.parametrize("lesion", LESIONS)
def test_the_logit_exceeds_that_of_real_lesions_of_the_class(server: RunningServer, lesion: str) -> None:
    asked = request(f'objective {{ terms {{ class_logit {{ class_name: "{lesion}" }} }} }}')
    (term,) = Stream(list(server.visualization.Visualize(asked, timeout=280))).completed.evaluation.terms
    manifest = read_bundle(ZOO / "lesion-shapes" / "1").manifest
    assert term.real_p95 == pytest.approx(manifest.evaluation.logit_quantiles[lesion]["0.95"])
    assert term.activation > term.real_p95


@pytest.mark.parametrize(
    "objective",
    [
        'channel { layer: "blocks.2.norm" channel: 3 }',
        'channel { layer: "blocks.0.conv" channel: 0 }',
        'neuron { layer: "blocks.3.conv" channel: 5 point_mm { x: 10 y: -20 z: 30 } }',
        'neuron { layer: "blocks.1.conv" channel: 1 voxel { i: 40 j: 50 k: 44 } }',
        'neuron { layer: "blocks.3.act" channel: 2 }',
    ],
)
def test_units_inside_the_network(server: RunningServer, objective: str) -> None:
    asked = request(f"objective {{ terms {{ {objective} }} }}", SMALL, "steps: 3 snapshot_every: 0")
    stream = Stream(list(server.visualization.Visualize(asked, timeout=240)))
    assert stream.kinds()[-1] == "completed"
    (term,) = stream.completed.evaluation.terms
    assert np.isfinite(term.activation)
    known = objective.split('"')[1].endswith("conv")  # of which the prior holds quantiles
    assert term.HasField("percentile") is known
    assert not known or 0 <= term.percentile <= 1


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("", False),
        ("start { reference_brain { deviation: 0.01 } }", False),
        ("parameterization { voxels {} }", True),
        ("parameterization { fourier { decay: 1 } }", True),
        ("start { noise {} }", True),
        ("start { reference_brain { deviation: 0.3 } }", True),
        ("regularization {}", True),
        ("regularization { regularizers { l1 { weight: 2 } } regularizers { l2 {} } }", True),
        ("regularization { regularizers { gaussian_blur { fwhm_mm: 6 } } }", True),
        ("transforms { jitter_mm: 0 }", True),
        ("transforms { rotation_degrees: 0 }", True),
        ("transforms { scale: 0 }", True),
        ("optimizer { adam { learning_rate: 0.1 } }", True),
        ("optimizer { nadam {} }", True),
        ("optimizer { sgd {} }", True),
        ("optimizer { schedule: SCHEDULE_COSINE }", True),
        ("optimizer { schedule: SCHEDULE_CONSTANT }", False),
        ("precision: PRECISION_FLOAT32", False),
        ("precision: PRECISION_BFLOAT16", True),
        ("canvas { center_mm { x: 20 y: -20 z: 20 } }", True),
    ],
)
def test_every_choice_of_the_method_changes_the_volume(
    server: RunningServer, stream: Stream, method: str, changes: bool
) -> None:
    asked = request(CUBE, SMALL, method, "steps: 5 seed: 7 snapshot_every: 0")
    found = Stream(list(server.visualization.Visualize(asked, timeout=240)))
    assert (found.begins["final"].sha256 != stream.begins["final"].sha256) is changes


def test_several_terms_add_up_in_spreads(server: RunningServer) -> None:
    terms = (
        'terms { class_logit { class_name: "cube" } }'
        'terms { class_logit { class_name: "sphere" } sense: SENSE_MINIMIZE weight: 0.5 }'
    )
    asked = request(f"objective {{ {terms} }}", SMALL, "steps: 2")
    evaluation = Stream(list(server.visualization.Visualize(asked, timeout=240))).completed.evaluation
    bundle = read_bundle(ZOO / "lesion-shapes" / "1")
    prior = bundle.prior()
    shares = []
    for term, name, factor in zip(evaluation.terms, ("cube", "sphere"), (1, -0.5), strict=True):
        channel = bundle.manifest.classes.index(name)
        assert term.unit == f"classifier:{channel}"
        low, high = np.interp(
            [0.05, 0.95], prior.quantile_levels, prior.activation_quantiles("classifier")[channel].numpy()
        )
        shares.append(factor * term.activation / (high - low))
    assert evaluation.objective == pytest.approx(sum(shares), rel=1e-4)


@pytest.mark.parametrize("start", ["reference_brain", "noise"])
def test_the_canvas_meets_the_brain_without_a_step(server: RunningServer, start: str) -> None:
    asked = request(CUBE, SMALL, f"steps: 30 snapshot_every: 0 start {{ {start} {{}} }}")
    stream = Stream(list(server.visualization.Visualize(asked, timeout=240)))
    brain = read_bundle(ZOO / "lesion-shapes" / "1").reference().get_fdata().clip(0, 1.1)
    departure = np.abs(stream.image().get_fdata() - brain)
    center = stream.accepted.canvas.center_mm
    middle = np.linalg.inv(stream.image().affine) @ [center.x, center.y, center.z, 1]
    first = round(float(middle[0]) - 15.5)
    assert departure[first - 1].max() < 1e-6
    assert departure[first].max() < 0.125 * 1.1 + 1e-6
    assert departure[first + 10].max() > departure[first].max()


def test_empty_edges_mean_the_whole_grid(server: RunningServer) -> None:
    asked = request(CUBE, "steps: 1 snapshot_every: 0 canvas { size_mm {} }")
    stream = Stream(list(server.visualization.Visualize(asked, timeout=240)))
    size = stream.accepted.canvas.size_mm
    assert (size.i, size.j, size.k) == (182, 218, 182)


def test_the_default_canvas_holds_the_receptive_field(server: RunningServer) -> None:
    layers = read_bundle(ZOO / "lesion-shapes" / "1").layers()
    local = [layer for layer in layers if not layer.whole_input][-1]
    asked = request(CUBE, "steps: 1 snapshot_every: 0")
    stream = Stream(list(server.visualization.Visualize(asked, timeout=240)))
    assert stream.accepted.canvas.size_mm.i == pytest.approx(1.5 * local.receptive_field_mm[0] + 16, abs=2)
