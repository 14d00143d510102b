"""Every kind of unit, start, parameterization and regularizer, asked of the real server."""

import hashlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

import engine
from engine import evaluation as figures
from engine.parameterization import PARAMETERIZATIONS
from engine.regularizer import REGULARIZERS
from models import ZOO, read_bundle
from neurofv.v1 import method_pb2
from neurofv.v1 import visualization_service_pb2 as vis
from tests.server import RunningServer
from tests.service.requests import CUBE, Stream, request

SMALL = "canvas { size_mm { i: 48 j: 48 k: 48 } } snapshot_every: 0 steps: 3"
# The smoother of the two: small differences between resamplings of a subject do not grow in it.
MODEL = "lesion-shapes-robust"
BUNDLE = read_bundle(ZOO / MODEL / "1")
SPACE = BUNDLE.manifest.input
LAYER = "blocks.1.conv"
MIDDLE = "voxel { i: 45 j: 54 k: 40 }"
PLACE = (22, 27, 20)  # its nearest unit, two voxels wide


def _stream(server: RunningServer, *parts: str, subject: bytes = b"") -> Stream:
    asked = request(*parts, model=MODEL)
    if subject:
        asked.subject.nifti = subject
    return Stream(list(server.visualization.Visualize(asked, timeout=240)))


def _volume(stream: Stream, name: str = "final") -> np.ndarray:
    return stream.image(name).get_fdata(dtype=np.float32)


def _answer(layer: str, volume: np.ndarray, behind: bool = False) -> torch.Tensor:
    """What a layer says, by a forward pass of its own."""
    network, kept = BUNDLE.network(), {}
    module = network.get_submodule(layer)
    module.register_forward_hook(
        lambda _, inputs, output: kept.update(into=inputs[0].clone(), out=output.clone())
    )
    with torch.no_grad():
        network(torch.from_numpy(volume)[None, None])
    nonlinear = isinstance(module, torch.nn.ReLU) and not behind
    return kept["into" if nonlinear else "out"][0].double()


@pytest.fixture(scope="module")
def person(cohort_dir: Path) -> bytes:
    """A brain of the cohort, with a name in its header."""
    path = sorted(cohort_dir.glob("sub-*/anat/*desc-affinebrain_T1w.nii.gz"))[0]
    image = nibabel.load(path)
    volume = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
    volume.header["descrip"] = b"Doe^Jane"
    return volume.to_bytes()


@pytest.fixture(scope="module")
def on_grid(person: bytes) -> np.ndarray:
    data = nibabel.Nifti1Image.from_bytes(person).get_fdata(dtype=np.float32)
    return np.clip(SPACE.normalization.apply(data), *SPACE.intensity_range)


def _term(unit: str, more: str = "") -> str:
    return f"objective {{ terms {{ {unit} {more} }} }}"


WEIGHTS = " ".join(f"weights: {value}" for value in np.linspace(-1, 1, 32).round(3))
READINGS = {
    f'channel {{ layer: "{LAYER}" channel: 5 }}': lambda a: a[5].mean(),
    f'neuron {{ layer: "{LAYER}" channel: 5 {MIDDLE} }}': lambda a: a[5, *PLACE],
    f'whole_layer {{ layer: "{LAYER}" }}': lambda a: a.square().mean(),
    f'direction {{ layer: "{LAYER}" {WEIGHTS} }}': lambda a: _dot(a.mean((1, 2, 3))),
    f'direction {{ layer: "{LAYER}" {WEIGHTS} {MIDDLE} }}': lambda a: _dot(a[:, *PLACE]),
    f'direction {{ layer: "{LAYER}" {WEIGHTS} measure: MEASURE_COSINE {MIDDLE} }}': (
        lambda a: _dot(a[:, *PLACE]) / a[:, *PLACE].norm()
    ),
}


def _dot(vector: torch.Tensor) -> torch.Tensor:
    weights = torch.from_numpy(np.linspace(-1, 1, 32).round(3))
    return vector @ weights / weights.norm()


@pytest.mark.parametrize("unit", READINGS)
def test_a_units_activation_is_what_a_forward_pass_gives(server: RunningServer, unit: str) -> None:
    stream = _stream(server, _term(unit), SMALL)
    found = stream.completed.evaluation.terms[0].activation
    assert found == pytest.approx(float(READINGS[unit](_answer(LAYER, _volume(stream)))), rel=1e-3, abs=1e-5)
    assert np.abs(_volume(stream) - BUNDLE.reference().get_fdata()).max() > 0.01


@pytest.mark.parametrize("behind", [False, True])
def test_a_relus_unit_is_read_before_it_unless_told(server: RunningServer, behind: bool) -> None:
    unit = 'channel { layer: "blocks.0.act" channel: 2 }'
    asked = f"objective {{ terms {{ {unit} }} behind_nonlinearities: {str(behind).lower()} }}"
    stream = _stream(server, asked, SMALL)
    expected = _answer("blocks.0.act", _volume(stream), behind)[2].mean()
    assert stream.completed.evaluation.terms[0].activation == pytest.approx(float(expected), rel=1e-3)


def test_a_contrast_sets_the_class_against_the_others(server: RunningServer) -> None:
    asked = _term('class_logit { class_name: "cube" contrast: true }', "weight: 2")
    terms = _stream(server, asked, SMALL).accepted.objective.terms
    assert [term.class_logit.class_name for term in terms[:1]] == ["cube"]
    assert {term.class_logit.class_name for term in terms} == set(BUNDLE.manifest.classes)
    assert all(term.sense == method_pb2.SENSE_MINIMIZE for term in terms[1:])
    assert sum(term.weight for term in terms[1:]) == pytest.approx(2)
    assert not any(term.class_logit.contrast for term in terms)


@pytest.mark.parametrize("comparison", ["INVERSION", "CARICATURE"])
def test_a_subjects_activations_are_a_target(
    server: RunningServer, person: bytes, on_grid: np.ndarray, comparison: str
) -> None:
    unit = f'subject_activations {{ layer: "{LAYER}" comparison: COMPARISON_{comparison} }}'
    stream = _stream(server, _term(unit), SMALL, subject=person)
    mine, target = (_answer(LAYER, volume).flatten() for volume in (_volume(stream), on_grid))
    if comparison == "INVERSION":
        expected = -(mine - target).square().mean() / target.square().mean()
    else:
        cosine = mine @ target / mine.norm() / target.norm()
        expected = mine @ target / (target @ target) * max(cosine, 0.1) ** 2
    assert stream.completed.evaluation.terms[0].activation == pytest.approx(float(expected), rel=1e-3)


def test_a_start_on_a_person_goes_on_outside_and_tells_nothing_of_them(
    server: RunningServer, person: bytes, on_grid: np.ndarray
) -> None:
    stream = _stream(server, CUBE, SMALL, "start { subject {} }", subject=person)
    volume = _volume(stream)
    changed = np.argwhere(np.abs(volume - on_grid) > 1e-5)
    assert len(changed)
    assert (np.ptp(changed, axis=0) < 24).all()
    digest = hashlib.sha256(person).hexdigest()
    provenance = stream.completed.provenance
    assert provenance.subject_sha256 == digest
    for resolved in (stream.accepted, provenance.request):
        assert resolved.subject.sha256 == digest
        assert not resolved.subject.nifti
    sent = b"".join(event.SerializeToString() for event in stream.events)
    assert b"Jane" not in sent
    assert b"Jane" not in b"".join(stream.volumes.values())


STARTS = {"noise": "start { noise {} }", "zeros": "start { zeros {} }", "reference_brain": ""}


PAIRS = [(name, start) for name in PARAMETERIZATIONS for start in STARTS]


@pytest.mark.parametrize(
    ("parameterization", "start"),
    [(name, start) for name, start in PAIRS if start not in PARAMETERIZATIONS[name].refused_starts],
)
def test_every_parameterization_on_its_starts(
    server: RunningServer, parameterization: str, start: str
) -> None:
    chosen = f"parameterization {{ {parameterization} {{}} }} transforms {{ copies: 2 }}"
    stream = _stream(server, CUBE, SMALL, STARTS[start], chosen)
    volume, low, high = _volume(stream), *SPACE.intensity_range
    assert low - 1e-6 <= volume.min()
    assert volume.max() <= high + 1e-6
    extras = set(stream.begins) - {"final"}
    assert extras == {
        "patch": {"opacity"},
        "deformation": {"jacobian", "gradient"},
    }.get(parameterization, {"gradient"})
    for name in extras:
        extra = _volume(stream, name)
        outside, inside = extra[:20], extra[30:60, 40:70, 20:60]
        assert (outside == (1 if name == "jacobian" else 0)).all()
        assert inside.any()
        assert extra.min() >= 0
    if "jacobian" in extras:
        judged = stream.completed.evaluation
        assert judged.smallest_jacobian > 0
        assert judged.smallest_jacobian == pytest.approx(float(_volume(stream, "jacobian").min()), rel=1e-5)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in stream.volumes.items()}
    assert dict(stream.completed.provenance.volumes) == digests


@pytest.mark.parametrize("name", REGULARIZERS)
def test_every_regularizer_by_its_name(server: RunningServer, name: str) -> None:
    stream = _stream(
        server, CUBE, SMALL, "samples: 2", f"regularization {{ regularizers {{ {name} {{}} }} }}"
    )
    chosen = stream.accepted.regularization.regularizers[0]
    assert chosen.WhichOneof("kind") == name
    costs = REGULARIZERS[name].penalty is not engine.Regularizer.penalty
    progress = [event.progress for event in stream.events if event.HasField("progress")]
    assert all(set(step.regularizers) == ({name} if costs else set()) for step in progress)
    if hasattr(getattr(chosen, name), "layer"):
        assert getattr(chosen, name).layer == "blocks.3.act"
    if name == "brain_mask":
        changed = np.abs(_volume(stream) - BUNDLE.reference().get_fdata().clip(*SPACE.intensity_range)) > 1e-5
        assert changed.any()
        assert not changed[~BUNDLE.prior().mask().numpy()].any()


def test_the_figures_are_those_of_the_volume_that_came(server: RunningServer) -> None:
    stream = _stream(server, _term(f'channel {{ layer: "{LAYER}" channel: 5 }}'), SMALL)
    volume, judged = _volume(stream), stream.completed.evaluation
    grid = engine.Grid(SPACE.shape, SPACE.voxel_size_mm)
    distance = figures.spectrum_distance(torch.from_numpy(volume), BUNDLE.prior().magnitude(), grid)
    assert judged.spectrum_distance == pytest.approx(distance, rel=1e-4)
    term = judged.terms[0]
    means = _answer(LAYER, volume).mean((1, 2, 3)).numpy()
    levels, values = BUNDLE.prior().quantile_levels, BUNDLE.prior().activation_quantiles(LAYER).numpy()
    low, high = (np.array([np.interp(p, levels, row) for row in values]) for p in (0.05, 0.95))
    strength = (means - low) / (high - low)
    assert term.layer_units == 32
    assert term.selectivity_rank == 1 + (strength > strength[5]).sum()
    assert term.real_maximum == pytest.approx(values[5, -1])
    assert term.HasField("ratio_to_best") == (values[5, -1] > 0)
    assert term.held_out.p5 <= term.held_out.mean
    box = tuple(slice(*edges) for edges in _box(stream))
    assert judged.total_variation == pytest.approx(
        figures.total_variation(
            torch.from_numpy(volume[box].copy()), grid=engine.Grid((24,) * 3, (2.0,) * 3)
        ),
        rel=1e-3,
    )
    assert judged.step in (1, 2, 3)
    assert judged.stop_reason == vis.STOP_REASON_STEPS


def _box(stream: Stream) -> list[tuple[int, int]]:
    center = stream.accepted.canvas.center_mm
    middle = (np.linalg.inv(SPACE.affine) @ [center.x, center.y, center.z, 1])[:3]
    return [(round(value - 11.5), round(value - 11.5) + 24) for value in middle]


def test_a_plateau_and_an_activation_end_the_run(server: RunningServer) -> None:
    rules = "stopping { look_every: 1 plateau_looks: 2 plateau_gain: 1000 }"
    plateau = _stream(server, CUBE, SMALL.replace("steps: 3", "steps: 50"), rules)
    assert plateau.completed.evaluation.stop_reason == vis.STOP_REASON_PLATEAU
    reached = _stream(server, CUBE, SMALL, "stopping { look_every: 1 activation: -1000 }")
    assert reached.completed.evaluation.stop_reason == vis.STOP_REASON_ACTIVATION
    assert reached.completed.evaluation.step == 1


def test_time_ends_the_run(server: RunningServer) -> None:
    stream = _stream(
        server, CUBE, "canvas { size_mm { i: 48 j: 48 k: 48 } } steps: 9999 stopping { seconds: 0.2 }"
    )
    assert stream.completed.evaluation.stop_reason == vis.STOP_REASON_TIME


def test_a_second_model_is_asked_what_it_sees(server: RunningServer) -> None:
    stream = _stream(server, CUBE, SMALL, f'comparisons {{ transfer_model: "{MODEL}" }}')
    logits = _answer("classifier", _volume(stream))
    found = stream.completed.evaluation.transfer
    assert found.class_name == BUNDLE.manifest.classes[int(logits.argmax())]
    assert found.same == (found.class_name == "cube")
    expected = float(logits.softmax(0)[BUNDLE.manifest.classes.index("cube")])
    assert found.probability == pytest.approx(expected, rel=1e-3)
    assert stream.accepted.comparisons.transfer_version == 1
