"""Requests and the engine's settings say the same, by name, for every kind there is."""

import dataclasses

import pytest

import engine
from engine.objective import UNITS
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
    assert all(field.has_presence for field in fields)


def test_stopping_has_the_same_fields() -> None:
    fields = method_pb2.Stopping.DESCRIPTOR.fields
    assert {field.name for field in fields} == {field.name for field in dataclasses.fields(engine.Stopping)}
    assert all(field.has_presence for field in fields)


def test_units_have_the_same_fields() -> None:
    """A class's name, a place and a subject's activations mean something only with the model at hand."""
    resolved = {"class_name": "channel", "contrast": None, "voxel": "position", "point_mm": "position"}
    choices = method_pb2.ObjectiveTerm.DESCRIPTOR.oneofs_by_name["unit"].fields
    of_message = {field.name: field.message_type for field in choices}
    assert set(of_message) == set(UNITS)
    for name, message in of_message.items():
        said = {resolved.get(field.name, field.name) for field in message.fields} - {None}
        meant = {field.name for field in dataclasses.fields(UNITS[name])} - {"target"}
        assert said | {"layer"} == meant


def test_an_empty_request_means_the_engines_defaults() -> None:
    choices = Method.read(vis.VisualizeRequest()).choices
    spec = engine.Spec(engine.Grid((1,), (1.0,)), engine.Objective(()))
    assert choices == {name: getattr(spec, name) for name in choices}
    assert set(choices) == {
        "parameterization",
        "start",
        "transforms",
        "regularizers",
        "optimizer",
        "schedule",
        "stopping",
        "precision",
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
    request.precision = method_pb2.PRECISION_BFLOAT16
    request.transforms.copies = 3
    request.stopping.activation = -2.5
    request.stopping.plateau_looks = 4
    request.regularization.regularizers.add().feature_distance.layer = "blocks.1.conv"
    request.seed = 2**62
    method = Method.read(request)
    written = vis.VisualizeRequest()
    method.write(written)
    assert Method.read(written) == method
    assert method.choices["stopping"].activation == -2.5
    assert written.stopping.look_every == engine.Stopping().look_every
    assert written.transforms.copies == 3
    assert written.regularization.regularizers[2].feature_distance.layer == "blocks.1.conv"
    assert written.regularization.regularizers[1].l2.weight == engine.L2().weight
    assert written.transforms.jitter_mm == engine.Transforms().jitter_mm
    assert method.choices["seed"] == 2**62
    assert method.choices["schedule"] is engine.Schedule.COSINE
    assert method.choices["precision"] is engine.Precision.BFLOAT16
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


def test_an_activation_that_is_not_asked_for_stays_absent() -> None:
    request = vis.VisualizeRequest()
    Method.read(request).write(request)
    assert request.HasField("stopping")
    assert not request.stopping.HasField("activation")


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_default_regularizers_fit_the_parameterization(name: str) -> None:
    request = vis.VisualizeRequest()
    getattr(request.parameterization, name).SetInParent()
    chosen = Method.read(request).choices["regularizers"]
    spec = engine.Spec(
        engine.Grid((1,), (1.0,)), engine.Objective(()), parameterization=PARAMETERIZATIONS[name]()
    )
    assert chosen == spec.regularizers
    names = [regularizer.name for regularizer in chosen]
    free = ["total_variation", "l1", "spectrum_match"]
    assert names == {"maco": [], "deformation": [], "patch": ["total_variation"]}.get(name, free)
