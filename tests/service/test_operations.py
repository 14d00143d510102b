"""What an operator and a generic client see: models, health, reflection, metrics, probes, logs."""

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from models import ZOO, read_bundle
from neurofv.v1 import model_service_pb2
from tests.server import RunningServer
from tests.service.requests import CUBE, SMALL, request


def test_get_model_describes_the_bundle(server: RunningServer) -> None:
    bundle = read_bundle(ZOO / "lesion-shapes" / "1")
    model = server.models.GetModel(model_service_pb2.GetModelRequest(name="lesion-shapes"), timeout=60).model
    assert (model.name, model.version, model.digest) == ("lesion-shapes", 1, bundle.digest)
    assert tuple(model.classes) == bundle.manifest.classes
    assert tuple(model.input.shape) == (91, 109, 91)
    assert model.input.orientation == "LAS"
    assert model.card == bundle.card()
    table = {layer.name: layer for layer in model.layers}
    assert list(table) == [layer.name for layer in bundle.layers()]
    first = table["blocks.0.conv"]
    assert (first.type, list(first.receptive_field_voxels)) == ("Conv3d", [3, 3, 3])
    assert list(first.receptive_field_mm) == [6, 6, 6]
    assert table[model.classifier_layer].whole_input
    assert table[model.classifier_layer].channels == len(model.classes)


def test_every_service_and_model_has_its_health(server: RunningServer) -> None:
    serving = health_pb2.HealthCheckResponse.SERVING
    for name in ("", "neurofv.v1.ModelService", "neurofv.v1.VisualizationService", "model/lesion-shapes"):
        assert server.check(name) == serving, name


def test_reflection_lists_the_services(server: RunningServer) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([asked]), timeout=30)
    names = {service.name for service in answer.list_services_response.service}
    assert {"neurofv.v1.ModelService", "neurofv.v1.VisualizationService", "grpc.health.v1.Health"} <= names


def test_metrics_tell_of_the_run(server: RunningServer) -> None:
    steps = 'neurofv_optimizer_steps_total{model="lesion-shapes"}'
    before = server.metric(steps)
    list(server.visualization.Visualize(request(CUBE, SMALL, "steps: 4 snapshot_every: 2"), timeout=240))
    assert server.metric(steps) == before + 4
    families = {family.name: family for family in text_string_to_metric_families(server.get("/metrics")[1])}
    for name in (
        "neurofv_jobs_submitted",
        "neurofv_jobs_finished",
        "neurofv_jobs_running",
        "neurofv_queue_depth",
        "neurofv_queue_wait_seconds",
        "neurofv_job_duration_seconds",
        "neurofv_time_to_first_volume_seconds",
        "neurofv_optimizer_step_duration_seconds",
        "neurofv_volumes_sent",
        "neurofv_volume_bytes_sent",
        "neurofv_build_info",
        "grpc_server_started",
        "grpc_server_handled",
        "grpc_server_handling_seconds",
        "grpc_server_msg_sent",
        "grpc_server_msg_received",
    ):
        assert families[name].samples, name
    assert server.metric("neurofv_volume_bytes_sent_total") > 100_000
    labels = {label for family in families.values() for sample in family.samples for label in sample.labels}
    assert not labels & {"job", "request", "id"}


def test_calls_are_counted_by_their_code(server: RunningServer) -> None:
    line = (
        'grpc_server_handled_total{grpc_code="NOT_FOUND",grpc_method="GetModel",'
        'grpc_service="neurofv.v1.ModelService",grpc_type="unary"}'
    )
    before = server.metric(line)
    for _ in range(2):
        call = server.models.GetModel.future(model_service_pb2.GetModelRequest(name="nobody"), timeout=30)
        assert call.code() == grpc.StatusCode.NOT_FOUND
    assert server.metric(line) == before + 2


def test_probes(server: RunningServer) -> None:
    assert server.get("/livez") == (200, "alive\n")
    assert server.get("/readyz") == (200, "ready\n")
    assert server.get("/secrets")[0] == 404


def test_logs_are_json_lines(server: RunningServer) -> None:
    events = {entry["event"] for entry in server.log}
    assert "text" not in events, [entry for entry in server.log if entry["event"] == "text"]
    assert {"serving", "model_not_ready"} <= events
    assert all({"timestamp", "level"} <= set(entry) for entry in server.log)
