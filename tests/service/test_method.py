"""Requests and the engine's settings say the same, by name, for every kind there is."""

import dataclasses

import pytest
from google.protobuf.descriptor import FieldDescriptor

import engine
from engine.optimizer import OPTIMIZERS
from engine.parameterization import PARAMETERIZATIONS
from engine.regularizer import REGULARIZERS
from engine.start import STARTS
from neurofv.v1 import method_pb2
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import InvalidField
from service.method import Method

REGISTRIES = [
    (method_pb2.Parameterization, PARAMETERIZATIONS),
    (method_pb2.Start, STARTS),
    (method_pb2.Regularizer, REGULARIZERS),
    (method_pb2.Optimizer, OPTIMIZERS),
]


@pytest.mark.parametrize(("message", "registry"), REGISTRIES)
def test_contract_and_engine_know_the_same_kinds_and_fields(message: type, registry: dict) -> None:
    kinds = {field.name: field.message_type for field in message.DESCRIPTOR.oneofs_by_name["kind"].fields}
    assert set(kinds) == set(registry)
    for name, kind in registry.items():
        settings = {field.name for field in dataclasses.fields(kind)}
        assert {field.name for field in kinds[name].fields} == settings
        assert all(field.has_presence for field in kinds[name].fields), "a default needs an optional field"


def test_transforms_have_the_same_fields() -> None:
    fields = method_pb2.Transforms.DESCRIPTOR.fields
    assert {field.name for field in fields} == {field.name for field in dataclasses.fields(engine.Transforms)}
    assert all(field.type == FieldDescriptor.TYPE_DOUBLE for field in fields)


def test_an_empty_request_means_the_engines_defaults() -> None:
    choices = Method.read(vis.VisualizeRequest()).choices
    spec = engine.Spec(grid=None, objective=None)
    assert choices == {name: getattr(spec, name) for name in choices}
    assert set(choices) == {
        "parameterization",
        "start",
        "transforms",
        "regularizers",
        "optimizer",
        "schedule",
        "steps",
        "seed",
        "snapshot_every",
    }


def test_written_choices_read_the_same() -> None:
    request = vis.VisualizeRequest()
    request.regularization.regularizers.add().gaussian_blur.fwhm_mm = 3.5
    request.regularization.regularizers.add().l2.SetInParent()
    request.start.noise.deviation = 0.5
    request.parameterization.fourier.decay = 1
    request.transforms.scale = 0
    request.optimizer.sgd.momentum = 0.5
    request.optimizer.schedule = method_pb2.SCHEDULE_COSINE
    request.seed = 2**62
    method = Method.read(request)
    written = vis.VisualizeRequest()
    method.write(written)
    assert Method.read(written) == method
    assert written.regularization.regularizers[1].l2.weight == engine.L2().weight
    assert written.transforms.jitter_mm == engine.Transforms().jitter_mm
    assert method.choices["seed"] == 2**62
    assert method.choices["schedule"] is engine.Schedule.COSINE
    assert written.optimizer.sgd.learning_rate == engine.Sgd().learning_rate


def test_an_empty_regularization_means_none() -> None:
    request = vis.VisualizeRequest()
    request.regularization.SetInParent()
    method = Method.read(request)
    assert method.choices["regularizers"] == ()
    written = vis.VisualizeRequest()
    method.write(written)
    assert written.HasField("regularization")


def test_errors_carry_the_path_of_the_field() -> None:
    request = vis.VisualizeRequest()
    request.regularization.regularizers.add().total_variation.weight = -2
    with pytest.raises(InvalidField) as caught:
        Method.read(request)
    assert caught.value.field == "regularization.regularizers[0].total_variation.weight"
    assert "-2" in caught.value.message
    assert "at least 0" in caught.value.message
