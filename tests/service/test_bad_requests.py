"""Each kind of bad request: its exact status, and a server that serves on."""

import grpc
import pytest
from grpc_health.v1 import health_pb2

from models import ZOO, read_bundle
from neurofv.v1 import model_service_pb2
from neurofv.v1 import visualization_service_pb2 as vis
from tests.server import RunningServer
from tests.service.requests import CUBE, SMALL, failure, request, violations

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
LAYER = "blocks.1.conv"


def _unit(text: str, more: str = "") -> str:
    return f"objective {{ terms {{ {text} {more} }} }}"


WEIGHTS = " ".join(["weights: 1"] * 32)
SUBJECT = "start { subject {} }"
BRAIN = read_bundle(ZOO / "lesion-shapes" / "1").reference().to_bytes()


def _invalid(field: str, *parts: str, reason: str = "INVALID_FIELD") -> tuple:
    """Make the case of a request whose field cannot be used."""
    return request(*parts), INVALID, reason, field


def _absent(reason: str, *parts: str) -> tuple:
    """Make the case of a request for what is not there."""
    return request(*parts), NOT_FOUND, reason, None


def _beside(*class_names: str, nifti: bytes = BRAIN) -> vis.VisualizeRequest:
    """Ask for a comparison with real images."""
    asked = request(CUBE, SMALL, "steps: 1")
    for name in class_names:
        asked.comparisons.real_images.add(class_name=name).image.nifti = nifti
    return asked


def _direction(weights: str, more: str = "") -> str:
    return _unit(f'direction {{ layer: "{LAYER}" {weights} {more} }}')


def _regularizer(text: str) -> str:
    return f"regularization {{ regularizers {{ {text} }} }}"


def _transfer(text: str) -> str:
    return f"comparisons {{ {text} }}"


TERM = "objective.terms[0]"
REAL = "comparisons.real_images"
CUBES = 'terms { class_logit { class_name: "cube" } }'
CONTRAST = 'terms { class_logit { class_name: "cube" contrast: true } }'
CHANNEL = f'channel {{ layer: "{LAYER}" channel: %d }}'
PERSON = f'subject_activations {{ layer: "{LAYER}" comparison: %d }}'
HELLO = 'subject { nifti: "hello" }'
ZEROS = f'sha256: "{64 * "0"}"'
MACO = "parameterization { maco {} }"
WARP = "parameterization { deformation {} }"
CLIP = "intensity_clip { low: 0.9 high: 0.1 }"
MORE = {
    "a direction with too few numbers": _invalid(f"{TERM}.direction.weights", _direction("weights: 1")),
    "a direction of zeros": _invalid(f"{TERM}.direction.weights", _direction(WEIGHTS.replace("1", "0"))),
    "a direction of no number": _invalid(
        f"{TERM}.direction.weights", _direction(WEIGHTS.replace("1", "nan", 1))
    ),
    "a direction off the grid": _invalid(
        f"{TERM}.direction.position", _direction(WEIGHTS, "voxel { i: 400 }")
    ),
    "an unknown measure": _invalid(f"{TERM}.direction.measure", _direction(WEIGHTS, "measure: 9")),
    "an unknown sense": _invalid(f"{TERM}.sense", _unit('class_logit { class_name: "cube" }', "sense: 9")),
    "an unknown layer to take whole": _absent("LAYER_NOT_FOUND", _unit('whole_layer { layer: "conv9" }')),
    "a batch that reads another layer": _invalid("batch[0]", CUBE, f"batch {{ terms {{ {CHANNEL % 0} }} }}"),
    "a batch without terms": _invalid("batch[0].terms", CUBE, "batch {}"),
    "an unknown class in a batch": _absent(
        "CLASS_NOT_FOUND", CUBE, 'batch { terms { class_logit { class_name: "blob" } } }'
    ),
    "a unit out of range in a batch": (
        request(_unit(CHANNEL % 0), f"batch {{ terms {{ {CHANNEL % 99} }} }}"),
        grpc.StatusCode.OUT_OF_RANGE,
        "UNIT_OUT_OF_RANGE",
        "batch[0].terms[0].channel.channel",
    ),
    "a batch on both sides of the nonlinearities": _invalid(
        "batch[0].behind_nonlinearities", CUBE, f"batch {{ {CUBES} behind_nonlinearities: true }}"
    ),
    "too many objectives": _invalid("batch", CUBE, 64 * f"batch {{ {CUBES} }}"),
    "too many terms by contrast": _invalid("objective.terms", f"objective {{ {11 * CONTRAST} }}"),
    "negative samples": _invalid("samples", CUBE, "samples: -2"),
    "too many samples": _invalid("batch", CUBE, "samples: 65"),
    "more voxels than the server takes": _invalid(
        "canvas.size_mm", CUBE, "canvas { size_mm {} } samples: 60", reason="VOLUME_TOO_LARGE"
    ),
    "a start on nobody": _invalid("subject.nifti", CUBE, SUBJECT),
    "the activations of nobody": _invalid("subject.nifti", _unit(PERSON % 0)),
    "an unknown comparison with a subject": _invalid(
        f"{TERM}.subject_activations.comparison", _unit(PERSON % 9), HELLO
    ),
    "a subject that nothing uses": _invalid("subject", CUBE, HELLO),
    "a subject that is no image": _invalid("subject.nifti", CUBE, SUBJECT, HELLO, reason="SUBJECT_UNUSABLE"),
    "a subject by its digest alone": _invalid("subject.nifti", CUBE, SUBJECT, f"subject {{ {ZEROS} }}"),
    "another subject than the digest's": _invalid(
        "subject.sha256", CUBE, SUBJECT, f'subject {{ nifti: "x" {ZEROS} }}'
    ),
    "a ceiling that nobody knows": _invalid(
        "regularization.activation_ceiling",
        _unit('channel { layer: "blocks.1.norm" }'),
        _regularizer("activation_ceiling {}"),
    ),
    "a ceiling on a whole layer": _invalid(
        "regularization.activation_ceiling",
        _unit(f'whole_layer {{ layer: "{LAYER}" }}'),
        _regularizer("activation_ceiling {}"),
    ),
    "phases of nothing": _invalid("start", CUBE, MACO, "start { zeros {} }"),
    "a warp of noise": _invalid("start", CUBE, WARP, "start { noise {} }"),
    "a warp of nothing": _invalid("start", CUBE, WARP, "start { zeros {} }"),
    "a blur of phases": _invalid("parameterization", CUBE, MACO, _regularizer("gaussian_blur {}")),
    "a clip of warps": _invalid("parameterization", CUBE, WARP, _regularizer("intensity_clip {}")),
    "real brains that the server has not": _invalid(
        "parameterization.patch.real", CUBE, "parameterization { patch { real: true } }"
    ),
    "quantiles upside down": _invalid(
        "regularization.regularizers[0].intensity_clip.low", CUBE, _regularizer(CLIP)
    ),
    "a regularizer on an unknown layer": _absent(
        "LAYER_NOT_FOUND", CUBE, _regularizer('feature_distance { layer: "conv9" }')
    ),
    "a second opinion from nobody": _absent("MODEL_NOT_FOUND", CUBE, _transfer('transfer_model: "nobody"')),
    "a second opinion from another version": _absent(
        "MODEL_NOT_FOUND", CUBE, _transfer('transfer_model: "lesion-shapes" transfer_version: 9')
    ),
    "a second opinion from a damaged bundle": (
        request(CUBE, _transfer('transfer_model: "lesion-shapes" transfer_version: 2')),
        grpc.StatusCode.DATA_LOSS,
        "ARTIFACT_CORRUPT",
        None,
    ),
    "real images for a channel": _invalid(
        REAL, _unit(CHANNEL % 0), _transfer('real_images { class_name: "cube" }')
    ),
    "too few real images": (_beside("cube"), INVALID, "INVALID_FIELD", REAL),
    "real images of one class": (_beside("cube", "cube"), INVALID, "INVALID_FIELD", REAL),
    "real images of an unknown class": (_beside("cube", "blob"), NOT_FOUND, "CLASS_NOT_FOUND", None),
    "a real image without a file": (
        _beside("cube", nifti=b""),
        INVALID,
        "INVALID_FIELD",
        f"{REAL}[0].image.nifti",
    ),
    "a real image that is none": (
        _beside("cube", nifti=b"hello"),
        INVALID,
        "SUBJECT_UNUSABLE",
        f"{REAL}[0].image.nifti",
    ),
    "an end before the start": _invalid("stopping.seconds", CUBE, "stopping { seconds: -1 }"),
    "an activation that is no number": _invalid("stopping.activation", CUBE, "stopping { activation: nan }"),
    "a look every zero steps": _invalid("stopping.look_every", CUBE, "stopping { look_every: 0 }"),
    "no copy at all": _invalid("transforms.copies", CUBE, "transforms { copies: 0 }"),
}
CASES = MORE | {
    "no model": (request(CUBE, model=""), INVALID, "INVALID_FIELD", "model"),
    "unknown model": (request(CUBE, model="nobody"), NOT_FOUND, "MODEL_NOT_FOUND", None),
    "a path as model": (request(CUBE, model="../../etc"), NOT_FOUND, "MODEL_NOT_FOUND", None),
    "unknown version": (request(CUBE, "version: 9"), NOT_FOUND, "MODEL_NOT_FOUND", None),
    "negative version": (request(CUBE, "version: -1"), INVALID, "INVALID_FIELD", "version"),
    "damaged bundle": (request(CUBE, "version: 2"), grpc.StatusCode.DATA_LOSS, "ARTIFACT_CORRUPT", None),
    "no objective": (request(), INVALID, "INVALID_FIELD", "objective.terms"),
    "no unit": (request("objective { terms {} }"), INVALID, "INVALID_FIELD", "objective.terms[0]"),
    "unknown layer": (request(_unit('channel { layer: "conv1" }')), NOT_FOUND, "LAYER_NOT_FOUND", None),
    "unknown class": (
        request(_unit('class_logit { class_name: "blob" }')),
        NOT_FOUND,
        "CLASS_NOT_FOUND",
        None,
    ),
    "unit out of range": (
        request(_unit(f'channel {{ layer: "{LAYER}" channel: 999 }}')),
        grpc.StatusCode.OUT_OF_RANGE,
        "UNIT_OUT_OF_RANGE",
        "objective.terms[0].channel.channel",
    ),
    "negative unit": (
        request(_unit(f'neuron {{ layer: "{LAYER}" channel: -1 }}')),
        grpc.StatusCode.OUT_OF_RANGE,
        "UNIT_OUT_OF_RANGE",
        "objective.terms[0].neuron.channel",
    ),
    "negative weight of a term": (
        request(_unit('class_logit { class_name: "cube" }', "weight: -1")),
        INVALID,
        "INVALID_FIELD",
        "objective.terms[0].weight",
    ),
    "negative weight of a regularizer": _invalid(
        "regularization.regularizers[0].l2.weight",
        CUBE,
        "regularization { regularizers { l2 { weight: -0.5 } } }",
    ),
    "a regularizer without kind": _invalid(
        "regularization.regularizers[0]", CUBE, "regularization { regularizers {} }"
    ),
    "a regularizer twice": _invalid(
        "regularization.regularizers[1]",
        CUBE,
        "regularization { regularizers { l1 {} } regularizers { l1 {} } }",
    ),
    "too many terms": _invalid(
        "objective.terms", "objective {" + 65 * ' terms { class_logit { class_name: "cube" } }' + "}"
    ),
    "a layer with an endless name": (
        request(_unit(f'channel {{ layer: "{"x" * 100_000}" }}')),
        NOT_FOUND,
        "LAYER_NOT_FOUND",
        None,
    ),
    "a weight that no number survives": (
        request(
            CUBE,
            SMALL,
            "steps: 1 regularization { regularizers { l2 { weight: 1e300 } } } start { noise {} }",
        ),
        grpc.StatusCode.FAILED_PRECONDITION,
        "OPTIMISATION_DIVERGED",
        None,
    ),
    "negative steps": (request(CUBE, "steps: -5"), INVALID, "INVALID_FIELD", "steps"),
    "zero steps": (request(CUBE, "steps: 0"), INVALID, "INVALID_FIELD", "steps"),
    "too many steps": (request(CUBE, "steps: 1000000"), INVALID, "INVALID_FIELD", "steps"),
    "negative seed": (request(CUBE, "seed: -1"), INVALID, "INVALID_FIELD", "seed"),
    "NaN in a field": (
        request(CUBE, "transforms { rotation_degrees: nan }"),
        INVALID,
        "INVALID_FIELD",
        "transforms.rotation_degrees",
    ),
    "infinity in a field": _invalid(
        "optimizer.adam.learning_rate", CUBE, "optimizer { adam { learning_rate: inf } }"
    ),
    "an unknown schedule": _invalid("optimizer.schedule", CUBE, "optimizer { schedule: 7 }"),
    "an unknown precision": _invalid("precision", CUBE, "precision: 9"),
    "NaN in the canvas": _invalid("canvas.size_mm.j", CUBE, "canvas { size_mm { j: nan } }"),
    "a canvas too large": (
        request(CUBE, "canvas { size_mm { i: 5000 j: 50 k: 50 } }"),
        INVALID,
        "VOLUME_TOO_LARGE",
        "canvas.size_mm.i",
    ),
    "a canvas too small": (
        request(CUBE, "canvas { size_mm { i: 2 j: 2 k: 2 } }"),
        INVALID,
        "INVALID_FIELD",
        "canvas.size_mm",
    ),
    "a canvas off the grid": _invalid("canvas.center_mm", CUBE, "canvas { center_mm { x: 900 } }"),
    "a neuron off the grid": _invalid(
        "objective.terms[0].neuron.position", _unit(f'neuron {{ layer: "{LAYER}" voxel {{ i: 400 }} }}')
    ),
    "a neuron outside its canvas": _invalid(
        "objective.terms[0].neuron.position",
        _unit(f'neuron {{ layer: "{LAYER}" voxel {{ i: 2 j: 2 k: 2 }} }}'),
        SMALL,
        "canvas { center_mm {} }",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_status_is_exact_and_the_server_serves_on(server: RunningServer, name: str) -> None:
    asked, code, reason, field = CASES[name]
    with pytest.raises(grpc.RpcError) as caught:
        list(server.visualization.Visualize(asked, timeout=60))
    assert failure(caught.value)[:2] == (code, reason)
    assert violations(caught.value) == ([field] if field else [])
    assert "/" + "tmp" not in caught.value.details()
    assert server.check() == health_pb2.HealthCheckResponse.SERVING


def test_bytes_that_are_no_message(server: RunningServer) -> None:
    send = server.channel.unary_stream("/neurofv.v1.VisualizationService/Visualize")
    ask = server.channel.unary_unary("/neurofv.v1.ModelService/GetModel")
    for call in (lambda: list(send(b"\xff\xff\xff", timeout=30)), lambda: ask(b"\xff\xff\xff", timeout=30)):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert failure(caught.value)[:2] == (INVALID, "INVALID_FIELD")
        assert violations(caught.value) == ["request"]


def test_the_valid_layers_are_listed(server: RunningServer) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(server.visualization.Visualize(CASES["unknown layer"][0], timeout=60))
    metadata = failure(caught.value)[2]
    assert {"blocks.0.conv", "classifier"} <= set(metadata["valid"].split(", "))
    assert "blocks.0.conv" in caught.value.details()


def test_the_valid_classes_and_models_are_listed(server: RunningServer) -> None:
    for name, expected in (("unknown class", "sphere"), ("unknown model", "lesion-shapes/1")):
        with pytest.raises(grpc.RpcError) as caught:
            list(server.visualization.Visualize(CASES[name][0], timeout=60))
        assert expected in failure(caught.value)[2]["valid"]


def test_the_damaged_file_is_named_everywhere(server: RunningServer) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(server.visualization.Visualize(CASES["damaged bundle"][0], timeout=60))
    assert failure(caught.value)[2]["file"] == "weights.safetensors"
    listed = {
        (model.name, model.version): model
        for model in server.models.ListModels(model_service_pb2.ListModelsRequest(), timeout=60).models
    }
    assert listed["lesion-shapes", 1].ready
    assert not listed["lesion-shapes", 2].ready
    assert "weights.safetensors" in listed["lesion-shapes", 2].reason


def test_limits_are_told_to_programs(server: RunningServer) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(server.visualization.Visualize(CASES["a canvas too large"][0], timeout=60))
    assert float(failure(caught.value)[2]["limit"]) == 182
    assert float(failure(caught.value)[2]["actual"]) == 5000


def test_get_model_of_an_unknown_name(server: RunningServer) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.models.GetModel(model_service_pb2.GetModelRequest(name="nobody"), timeout=60)
    assert failure(caught.value)[:2] == (NOT_FOUND, "MODEL_NOT_FOUND")
