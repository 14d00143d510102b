"""The whole method, asked of the real server, beside what numpy, scipy and a forward pass of torch say."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import nibabel
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from engine.parameterization import PARAMETERIZATIONS
from models import ZOO, read_bundle
from neurofv.v1 import visualization_service_pb2 as vis
from tests.server import RunningServer
from tests.service.requests import CUBE, Stream, failure, request, violations
from training.lesions import shapes as lesions

CANVAS = "canvas { size_mm { i: 48 j: 48 k: 48 } } snapshot_every: 0"
SMALL = f"{CANVAS} steps: 3"
BUNDLE = read_bundle(ZOO / "lesion-shapes" / "1")
SPACE = BUNDLE.manifest.input
AFFINE = np.asarray(SPACE.affine)
LOW, HIGH = SPACE.intensity_range
LAYER = "blocks.1.conv"
NAME = b"Wintergreen"  # longer than what a compressed volume holds by chance
LOGIT = 'class_logit { class_name: "cube" }'
VOXEL = np.array([50, 47, 36])  # left of the middle, behind it and below it
PLACE = (25, 23, 18)  # its unit, as units sit two voxels apart


def _ask(server: RunningServer, asked: vis.VisualizeRequest) -> Stream:
    return Stream(list(server.visualization.Visualize(asked, timeout=240)))


def _run(server: RunningServer, *parts: str) -> Stream:
    return _ask(server, request(*parts))


def _term(unit: str, more: str = "") -> str:
    return f"objective {{ terms {{ {unit} {more} }} }}"


def _volume(stream: Stream, name: str = "final") -> np.ndarray:
    return stream.image(name).get_fdata(dtype=np.float32)


def _box(stream: Stream) -> tuple[slice, ...]:
    canvas = stream.accepted.canvas
    middle = np.linalg.inv(AFFINE) @ [canvas.center_mm.x, canvas.center_mm.y, canvas.center_mm.z, 1]
    edges = np.array([canvas.size_mm.i, canvas.size_mm.j, canvas.size_mm.k]) / SPACE.voxel_size_mm
    first = np.rint(middle[:3] - (edges - 1) / 2).astype(int)
    return tuple(slice(start, start + int(edge)) for start, edge in zip(first, edges, strict=True))


def _outside(stream: Stream) -> np.ndarray:
    outside = np.ones(SPACE.shape, bool)
    outside[_box(stream)] = False
    return outside


def _answers(volume: np.ndarray) -> dict[str, np.ndarray]:
    """What every layer says behind its non-linearity, by a forward pass of its own."""
    network, kept = BUNDLE.network(), {}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.ReLU):  # before others run on in its place
            module.inplace = False
        module.register_forward_hook(lambda _, inputs, out, name=name: kept.update({name: out[0].numpy()}))
    with torch.no_grad():
        network(torch.from_numpy(np.ascontiguousarray(volume))[None, None])
    return kept


def _on_grid(nifti: bytes) -> np.ndarray:
    data = nibabel.Nifti1Image.from_bytes(nifti).get_fdata(dtype=np.float32)
    return np.clip(SPACE.normalization.apply(data), LOW, HIGH)


def _named(volume: np.ndarray) -> bytes:
    """Write a NIfTI file whose header holds a person's name."""
    image = nibabel.Nifti1Image(volume, AFFINE)
    image.header["descrip"] = NAME + b"^Jane"
    return image.to_bytes()


@pytest.fixture(scope="module")
def scans(cohort_dir: Path) -> list[Path]:
    return sorted(cohort_dir.glob("sub-*/anat/*desc-affinebrain_T1w.nii.gz"))[:3]


@pytest.fixture(scope="module")
def person(scans: list[Path]) -> bytes:
    return _named(np.asarray(nibabel.Nifti1Image.from_filename(scans[0]).dataobj))


def _cosines(answer: np.ndarray, weights: np.ndarray) -> float:
    return float((np.tensordot(weights, answer, 1) / np.linalg.norm(answer, axis=0)).mean())


POINT = "point_mm {{ x: {} y: {} z: {} }}".format(*(AFFINE @ [*VOXEL, 1])[:3])
WEIGHTS = np.linspace(-1, 1, 32).round(3)
UNIT = WEIGHTS / np.linalg.norm(WEIGHTS)


def _direction(more: str, scale: float = 1.0) -> str:
    weights = " ".join(f"weights: {value}" for value in scale * WEIGHTS)
    return f'direction {{ layer: "{LAYER}" {more} {weights} }}'


READINGS = {
    LOGIT: lambda said: said["classifier"][BUNDLE.manifest.classes.index("cube")],
    f'neuron {{ layer: "{LAYER}" channel: 5 {POINT} }}': lambda said: said[LAYER][5, *PLACE],
    _direction(POINT): lambda said: UNIT @ said[LAYER][:, *PLACE],
    _direction("", 1e300): lambda said: UNIT @ said[LAYER].mean((1, 2, 3)),
    _direction("", 1e-60): lambda said: UNIT @ said[LAYER].mean((1, 2, 3)),
    _direction("measure: MEASURE_COSINE"): lambda said: _cosines(said[LAYER], UNIT),
}


@pytest.mark.parametrize("unit", READINGS, ids=lambda unit: unit.split(" ", 1)[0])
def test_an_activation_is_what_the_volume_that_came_gives(server: RunningServer, unit: str) -> None:
    stream = _run(server, _term(unit), SMALL)
    expected = float(READINGS[unit](_answers(_volume(stream))))
    assert stream.completed.evaluation.terms[0].activation == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_a_neuron_without_a_place_sits_in_the_middle_of_the_canvas(server: RunningServer) -> None:
    asked = _term(f'neuron {{ layer: "{LAYER}" channel: 5 }}')
    stream = _run(server, asked, SMALL, f"canvas {{ center_mm {{ {POINT.split('{')[1]} }}")
    (term,) = stream.accepted.objective.terms
    assert term.neuron.point_mm == stream.accepted.canvas.center_mm
    middle = np.array([(part.start + part.stop - 1) / 2 for part in _box(stream)])
    assert np.abs(middle - VOXEL).max() <= 0.5
    index = np.rint((middle - 0.5) / 2).astype(int)
    expected = float(_answers(_volume(stream))[LAYER][5, *index])
    assert stream.completed.evaluation.terms[0].activation == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_every_parameterization_on_a_persons_image(server: RunningServer, person: bytes, name: str) -> None:
    asked = request(
        CUBE, f"{CANVAS} steps: 6", f"parameterization {{ {name} {{}} }} start {{ subject {{}} }}"
    )
    asked.subject.nifti = person
    stream = _ask(server, asked)
    outside, home = _outside(stream), _on_grid(person)
    np.testing.assert_array_equal(_volume(stream)[outside], home[outside])
    assert np.abs(_volume(stream) - home).max() > 0.01
    begins = {begin.kind: name for name, begin in stream.begins.items() if name != "final"}
    kinds = {
        "deformation": {vis.VOLUME_KIND_JACOBIAN, vis.VOLUME_KIND_GRADIENT},
        "patch": {vis.VOLUME_KIND_OPACITY},
    }
    assert set(begins) == kinds.get(name, {vis.VOLUME_KIND_GRADIENT})
    for kind, extra in begins.items():
        image, values = stream.image(extra), _volume(stream, extra)
        assert image.shape == SPACE.shape
        np.testing.assert_array_equal(image.affine, AFFINE)
        rest = 1 if kind == vis.VOLUME_KIND_JACOBIAN else 0
        assert (values[outside] == rest).all()
        assert (values[~outside] != rest).mean() > 0.1
        assert values.min() >= 0
        if kind == vis.VOLUME_KIND_OPACITY:
            assert values.max() <= 1
        if kind == vis.VOLUME_KIND_JACOBIAN:
            assert values.min() > 0
            assert values.max() == pytest.approx(stream.completed.evaluation.largest_jacobian, rel=1e-5)


@pytest.mark.parametrize("name", ["voxels", "fourier", "laplacian_pyramid"])
def test_clipped_intensities_stay_between_the_quantiles_of_real_brains(
    server: RunningServer, name: str
) -> None:
    bounds = np.interp([0.3, 0.7], BUNDLE.prior().quantile_levels, BUNDLE.prior().intensity_quantiles.numpy())
    home = BUNDLE.reference().get_fdata(dtype=np.float32).clip(LOW, HIGH)
    beyond = {}
    for chosen in ("regularizers { intensity_clip { low: 0.3 high: 0.7 } }", ""):
        held = f"parameterization {{ {name} {{}} }} start {{ reference_brain {{ deviation: 0.5 }} }}"
        stream = _run(server, CUBE, SMALL, held, f"regularization {{ {chosen} }}")
        volume = _volume(stream)
        above, below = volume - np.maximum(home, bounds[1]), np.minimum(home, bounds[0]) - volume
        beyond[bool(chosen)] = max(above.max(), below.max())
    assert beyond[True] < 1e-5
    assert beyond[False] > 0.05


def test_a_plateau_ends_the_run_at_the_first_look_that_may(server: RunningServer) -> None:
    # The first look is a gain on nothing; no other gains 1000.
    rules = "stopping { look_every: 2 plateau_looks: 3 plateau_gain: 1000 }"
    stream = _run(server, CUBE, CANVAS, "steps: 40", rules)
    judged = stream.completed.evaluation
    assert judged.stop_reason == vis.STOP_REASON_PLATEAU
    assert stream.kinds().count("progress") == 8
    assert judged.step in (2, 4, 6, 8)
    assert stream.begins["final"].step == judged.step


@pytest.mark.parametrize("sense", [1, -1])
def test_the_run_ends_when_the_canvas_reaches_an_activation(server: RunningServer, sense: int) -> None:
    asked = _term(LOGIT, "sense: SENSE_MINIMIZE" if sense < 0 else "")
    steps = f"{CANVAS} steps: 12 regularization {{}}"
    reached = [
        _run(server, asked, steps, f"stopping {{ look_every: {every} {more} }}").completed.evaluation
        for every, more in ((12, ""), (1, f"activation: {-1000 * sense}"))
    ]
    last, first = (judged.terms[0].held_out.activation for judged in reached)
    assert sense * last > sense * first
    between = (last + first) / 2
    stream = _run(server, asked, steps, f"stopping {{ look_every: 1 activation: {between} }}")
    judged = stream.completed.evaluation
    assert judged.stop_reason == vis.STOP_REASON_ACTIVATION
    assert sense * judged.terms[0].held_out.activation >= sense * between - 1e-4
    assert 1 < judged.step == stream.kinds().count("progress") < 12


@pytest.mark.parametrize(
    ("unit", "layer", "index", "statistic"),
    [
        (f'channel {{ layer: "{LAYER}" channel: 9 }}', LAYER, 9, "mean"),
        (f'neuron {{ layer: "{LAYER}" channel: 9 {POINT} }}', LAYER, 9, "maximum"),
        (LOGIT, "classifier", BUNDLE.manifest.classes.index("cube"), "mean"),
    ],
    ids=["channel", "neuron", "class_logit"],
)
def test_a_unit_is_placed_among_real_images_and_its_layer(
    server: RunningServer, unit: str, layer: str, index: int, statistic: str
) -> None:
    stream = _run(server, _term(unit), SMALL)
    answer = _answers(_volume(stream))[layer]
    said = answer[:, *PLACE] if statistic == "maximum" else answer.reshape(len(answer), -1).mean(1)
    levels = BUNDLE.prior().quantile_levels
    values = BUNDLE.prior().activation_quantiles(layer, statistic).numpy()
    term = stream.completed.evaluation.terms[0]
    assert term.percentile == pytest.approx(np.interp(said[index], values[index], levels, right=1), abs=1e-3)
    assert term.real_maximum == pytest.approx(values[index].max())
    assert term.real_maximum > 0
    assert term.ratio_to_best == pytest.approx(said[index] / values[index].max(), rel=1e-3)
    low, high = (np.array([np.interp(level, levels, row) for row in values]) for level in (0.05, 0.95))
    assert (high > low).all()
    strength = (said - low) / (high - low)
    assert term.selectivity_rank == 1 + (strength > strength[index]).sum()
    assert term.layer_units == len(said)


def test_the_figures_of_the_canvas_are_those_of_numpy(server: RunningServer) -> None:
    stream = _run(server, CUBE, SMALL, "start { noise { deviation: 3 } } regularization {}")
    judged, box = stream.completed.evaluation, _box(stream)
    part, among = _volume(stream)[box], BUNDLE.prior().mask().numpy()[box]
    margin = 0.01 * (HIGH - LOW)
    bound = (part <= LOW + margin) | (part >= HIGH - margin)
    assert judged.saturated_share == pytest.approx(bound[among].mean(), abs=2 / among.sum())
    assert judged.saturated_share > 0
    steps = [
        np.diff(part, axis=axis, append=part.take([-1], axis)) / edge
        for axis, edge in enumerate(SPACE.voxel_size_mm)
    ]
    slope = np.sqrt(np.sum(np.square(steps), 0) + 1e-8).mean()
    assert judged.total_variation == pytest.approx(slope, rel=1e-4)
    held = judged.terms[0].held_out
    alone = _answers(part)["classifier"][BUNDLE.manifest.classes.index("cube")]
    assert held.activation == pytest.approx(float(alone), rel=1e-3)
    assert held.p5 < held.mean != held.activation


def test_a_second_model_is_asked_of_a_unit_that_is_no_class(server: RunningServer) -> None:
    unit = f'whole_layer {{ layer: "{LAYER}" }}'
    stream = _run(server, _term(unit), SMALL, 'comparisons { transfer_model: "lesion-shapes" }')
    found = stream.completed.evaluation.transfer
    seen = BUNDLE.manifest.classes[int(_answers(_volume(stream))["classifier"].argmax())]
    assert (found.class_name, found.same, found.HasField("probability")) == (seen, False, False)


def test_paths_are_compared_by_the_ranks_of_scipy(server: RunningServer, scans: list[Path]) -> None:
    rng, mask = np.random.default_rng(0), BUNDLE.prior().mask().numpy()
    asked, shown = request(CUBE, SMALL), []
    for scan, name in zip(scans, ("cube", "cube", "sphere"), strict=True):
        brain = _on_grid(nibabel.Nifti1Image.from_filename(scan).to_bytes())
        lesion = lesions.draw_lesion(name, lesions.centers(mask & (brain > 0)), rng)
        painted = _named(lesions.paint(brain, lesion))
        asked.comparisons.real_images.add(class_name=name).image.nifti = painted
        shown.append(_answers(_on_grid(painted)))
    stream = _ask(server, asked)
    found = {entry.layer: entry.similarity for entry in stream.completed.evaluation.path}
    assert list(found) == [layer.name for layer in BUNDLE.layers() if layer.name in found]
    mine = _answers(_volume(stream))
    assert np.isfinite(list(found.values())).all()
    for name in ("pool", "classifier"):  # of layers above 50000 activations only a part is ranked
        picture, first, second, other = (said[name].ravel() for said in (mine, *shown))
        top = spearmanr(first, second).statistic
        bottom = np.mean([spearmanr(one, other).statistic for one in (first, second)])
        alike = np.mean([spearmanr(one, picture).statistic for one in (first, second)])
        assert found[name] == pytest.approx((alike - bottom) / (top - bottom), abs=1e-3)
    for resolved in (stream.accepted, stream.completed.provenance.request):
        sent = [one.image.nifti for one in asked.comparisons.real_images]
        told = [(one.image.nifti, one.image.sha256) for one in resolved.comparisons.real_images]
        assert told == [(b"", hashlib.sha256(nifti).hexdigest()) for nifti in sent]


def test_a_name_in_a_header_is_told_to_nobody(server: RunningServer, person: bytes) -> None:
    asked = request(_term(f'subject_activations {{ layer: "{LAYER}" }}'), SMALL)
    asked.subject.nifti = person
    stream = _ask(server, asked)
    asked.subject.nifti = person[:-5000]
    with pytest.raises(grpc.RpcError) as caught:
        _ask(server, asked)
    assert failure(caught.value)[1] == "SUBJECT_UNUSABLE"
    sent = b"".join(event.SerializeToString() for event in stream.events)
    images = b"".join(stream.image(name).to_bytes() for name in stream.volumes)
    told = sent + images + repr(caught.value).encode() + json.dumps(server.log).encode()
    assert stream.accepted.subject.sha256.encode() in told
    assert NAME in person
    assert NAME not in told


REAL = "parameterization { patch { real: true } } transforms { copies: 2 }"


@pytest.fixture
def with_brains(tmp_path: Path) -> Iterator[RunningServer]:
    """A server whose folder for real brains is the test's, empty at first."""
    running = RunningServer(ZOO, brains=tmp_path)
    yield running
    assert running.stop() == 0


def _refusal(server: RunningServer) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        _run(server, CUBE, SMALL, REAL)
    assert failure(caught.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert violations(caught.value) == ["parameterization.patch.real"]
    return str(caught.value.details())


def test_patches_on_real_brains_need_and_use_the_servers(
    server: RunningServer, with_brains: RunningServer, scans: list[Path], tmp_path: Path
) -> None:
    assert "NEUROFV_BRAINS" in _refusal(server)
    assert "holds no NIfTI file" in _refusal(with_brains)
    for scan in scans[:2]:
        shutil.copy(scan, tmp_path)
    real = _run(with_brains, CUBE, SMALL, REAL)
    drawn = _run(with_brains, CUBE, SMALL, REAL.replace("true", "false"))
    assert real.accepted.parameterization.patch.real
    assert real.begins["opacity"].kind == vis.VOLUME_KIND_OPACITY
    assert np.abs(_volume(real) - _volume(drawn)).max() > 1e-4
