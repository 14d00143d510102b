"""Each kind of bad request: its exact status, and a server that serves on."""

import grpc
import pytest
from grpc_health.v1 import health_pb2

from neurofv.v1 import model_service_pb2
from tests.server import RunningServer
from tests.service.requests import CUBE, SMALL, failure, request, violations

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
LAYER = "blocks.1.conv"


def _unit(text: str, more: str = "") -> str:
    return f"objective {{ terms {{ {text} {more} }} }}"


WEIGHTS = " ".join(["weights: 1"] * 32)
SUBJECT = "start { subject {} }"


def _field(kind: str, field: str) -> tuple:
    return INVALID, kind, field


MORE = {
    "a direction with too few numbers": (
        request(_unit(f'direction {{ layer: "{LAYER}" weights: 1 }}')),
        *_field("INVALID_FIELD", "objective.terms[0].direction.weights"),
    ),
    "a direction of zeros": (
        request(_unit(f'direction {{ layer: "{LAYER}" {WEIGHTS.replace("1", "0")} }}')),
        *_field("INVALID_FIELD", "objective.terms[0].direction.weights"),
    ),
    "an unknown measure": (
        request(_unit(f'direction {{ layer: "{LAYER}" {WEIGHTS} measure: 9 }}')),
        *_field("INVALID_FIELD", "objective.terms[0].direction.measure"),
    ),
    "an unknown layer to take whole": (
        request(_unit('whole_layer { layer: "conv9" }')),
        NOT_FOUND,
        "LAYER_NOT_FOUND",
        None,
    ),
    "a batch that reads another layer": (
        request(CUBE, f'batch {{ terms {{ channel {{ layer: "{LAYER}" }} }} }}'),
        *_field("INVALID_FIELD", "batch[0]"),
    ),
    "a batch without terms": (request(CUBE, "batch {}"), *_field("INVALID_FIELD", "batch[0].terms")),
    "an unknown class in a batch": (
        request(CUBE, 'batch { terms { class_logit { class_name: "blob" } } }'),
        NOT_FOUND,
        "CLASS_NOT_FOUND",
        None,
    ),
    "negative samples": (request(CUBE, "samples: -2"), *_field("INVALID_FIELD", "samples")),
    "too many samples": (request(CUBE, "samples: 65"), *_field("INVALID_FIELD", "batch")),
    "more voxels than the server takes": (
        request(CUBE, "canvas { size_mm {} } samples: 60"),
        *_field("VOLUME_TOO_LARGE", "canvas.size_mm"),
    ),
    "a start on nobody": (request(CUBE, SUBJECT), *_field("INVALID_FIELD", "subject.nifti")),
    "a subject that nothing uses": (
        request(CUBE, 'subject { nifti: "x" }'),
        *_field("INVALID_FIELD", "subject"),
    ),
    "a subject that is no image": (
        request(CUBE, SUBJECT, 'subject { nifti: "hello" }'),
        *_field("SUBJECT_UNUSABLE", "subject.nifti"),
    ),
    "a subject by its digest alone": (
        request(CUBE, SUBJECT, f'subject {{ sha256: "{64 * "0"}" }}'),
        *_field("INVALID_FIELD", "subject.nifti"),
    ),
    "another subject than the digest's": (
        request(CUBE, SUBJECT, f'subject {{ nifti: "x" sha256: "{64 * "0"}" }}'),
        *_field("INVALID_FIELD", "subject.sha256"),
    ),
    "a ceiling that nobody knows": (
        request(
            _unit('channel { layer: "blocks.1.norm" }'),
            "regularization { regularizers { activation_ceiling {} } }",
        ),
        *_field("INVALID_FIELD", "regularization.activation_ceiling"),
    ),
    "phases of nothing": (
        request(CUBE, "parameterization { maco {} } start { zeros {} }"),
        *_field("INVALID_FIELD", "start"),
    ),
    "a warp of noise": (
        request(CUBE, "parameterization { deformation {} } start { noise {} }"),
        *_field("INVALID_FIELD", "start"),
    ),
    "a blur of phases": (
        request(CUBE, "parameterization { maco {} } regularization { regularizers { gaussian_blur {} } }"),
        *_field("INVALID_FIELD", "parameterization"),
    ),
    "real brains that the server has not": (
        request(CUBE, "parameterization { patch { real: true } }"),
        *_field("INVALID_FIELD", "parameterization.patch.real"),
    ),
    "quantiles upside down": (
        request(CUBE, "regularization { regularizers { intensity_clip { low: 0.9 high: 0.1 } } }"),
        *_field("INVALID_FIELD", "regularization.regularizers[0].intensity_clip.low"),
    ),
    "a regularizer on an unknown layer": (
        request(CUBE, 'regularization { regularizers { feature_distance { layer: "conv9" } } }'),
        NOT_FOUND,
        "LAYER_NOT_FOUND",
        None,
    ),
    "a second opinion from nobody": (
        request(CUBE, 'comparisons { transfer_model: "nobody" }'),
        NOT_FOUND,
        "MODEL_NOT_FOUND",
        None,
    ),
    "real images for a channel": (
        request(
            _unit(f'channel {{ layer: "{LAYER}" }}'), 'comparisons { real_images { class_name: "cube" } }'
        ),
        *_field("INVALID_FIELD", "comparisons.real_images"),
    ),
    "a look every zero steps": (
        request(CUBE, "stopping { look_every: 0 }"),
        *_field("INVALID_FIELD", "stopping.look_every"),
    ),
    "no copy at all": (
        request(CUBE, "transforms { copies: 0 }"),
        *_field("INVALID_FIELD", "transforms.copies"),
    ),
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
    "negative weight of a regularizer": (
        request(CUBE, "regularization { regularizers { l2 { weight: -0.5 } } }"),
        INVALID,
        "INVALID_FIELD",
        "regularization.regularizers[0].l2.weight",
    ),
    "a regularizer without kind": (
        request(CUBE, "regularization { regularizers {} }"),
        INVALID,
        "INVALID_FIELD",
        "regularization.regularizers[0]",
    ),
    "a regularizer twice": (
        request(CUBE, "regularization { regularizers { l1 {} } regularizers { l1 {} } }"),
        INVALID,
        "INVALID_FIELD",
        "regularization.regularizers[1]",
    ),
    "too many terms": (
        request("objective {" + 65 * ' terms { class_logit { class_name: "cube" } }' + "}"),
        INVALID,
        "INVALID_FIELD",
        "objective.terms",
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
    "infinity in a field": (
        request(CUBE, "optimizer { adam { learning_rate: inf } }"),
        INVALID,
        "INVALID_FIELD",
        "optimizer.adam.learning_rate",
    ),
    "an unknown schedule": (
        request(CUBE, "optimizer { schedule: 7 }"),
        INVALID,
        "INVALID_FIELD",
        "optimizer.schedule",
    ),
    "NaN in the canvas": (
        request(CUBE, "canvas { size_mm { j: nan } }"),
        INVALID,
        "INVALID_FIELD",
        "canvas.size_mm.j",
    ),
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
    "a canvas off the grid": (
        request(CUBE, "canvas { center_mm { x: 900 } }"),
        INVALID,
        "INVALID_FIELD",
        "canvas.center_mm",
    ),
    "a neuron off the grid": (
        request(_unit(f'neuron {{ layer: "{LAYER}" voxel {{ i: 400 }} }}')),
        INVALID,
        "INVALID_FIELD",
        "objective.terms[0].neuron.position",
    ),
    "a neuron outside its canvas": (
        request(
            _unit(f'neuron {{ layer: "{LAYER}" voxel {{ i: 2 j: 2 k: 2 }} }}'),
            SMALL,
            "canvas { center_mm {} }",
        ),
        INVALID,
        "INVALID_FIELD",
        "objective.terms[0].neuron.position",
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
