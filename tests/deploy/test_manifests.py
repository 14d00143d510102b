"""What deploys the service: every field is known to the platform, every setting and port to the service."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import compose_spec
import jsonschema
import kubernetes_validate
import pytest
import yaml

from service.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
# The oldest release whose fields are used without a feature gate, and a current one.
RELEASES = ("1.29", "1.34")
GRPC, OPERATOR = Settings.model_fields["port"].default, Settings.model_fields["http_port"].default
LONGEST_PARTS = 3


def _fields(*names: str, required: tuple[str, ...] = (), **schemas: Any) -> dict[str, Any]:
    properties = {name: {} for name in names} | schemas
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


# No registry offers these definitions by themselves. The names are those of the package kserve 0.21 (its
# V1alpha1ServingRuntimeSpec, V1alpha1SupportedModelFormat, V1beta1PredictorSpec and V1beta1ModelSpec) and of
# the Prometheus operator's API reference, of each what a manifest of ours could need.
_FORMAT = _fields("version", "autoSelect", "autoUpdateProfiles", "priority", name={"type": "string"})
_MODEL = _fields(
    "env",
    "resources",
    "volumeMounts",
    "storage",
    modelFormat=_fields("version", name={"type": "string"}, required=("name",)),
    runtime={"type": "string"},
    protocolVersion={"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]},
    storageUri={"type": "string", "pattern": r"^(pvc|s3|gs|https|hf|oci)://."},
    required=("modelFormat",),
)
OTHERS = {
    "ServingRuntime": _fields(
        "annotations",
        "labels",
        "containers",
        "volumes",
        "nodeSelector",
        "tolerations",
        "affinity",
        "imagePullSecrets",
        multiModel={"type": "boolean"},
        disabled={"type": "boolean"},
        protocolVersions=_list({"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]}),
        supportedModelFormats=_list(_FORMAT),
        required=("containers",),
    ),
    "InferenceService": _fields(
        predictor=_fields(
            "serviceAccountName",
            minReplicas={"type": "integer"},
            maxReplicas={"type": "integer"},
            model=_MODEL,
            required=("model",),
        ),
        required=("predictor",),
    ),
    "ServiceMonitor": _fields(
        jobLabel={"type": "string"},
        namespaceSelector={"type": "object"},
        selector=_fields("matchLabels", "matchExpressions"),
        endpoints=_list(
            _fields(
                "path",
                "authorization",
                port={"type": "string"},
                scheme={"enum": ["http", "https"]},
                interval={"type": "string", "pattern": r"^\d+[smh]$"},
                tlsConfig=_fields("ca", "cert", "keySecret", "serverName", "insecureSkipVerify"),
            )
        ),
        required=("selector", "endpoints"),
    ),
}


def check(document: dict[str, Any]) -> None:
    """Refuse a manifest with a field that its platform does not know."""
    schema = OTHERS.get(document["kind"])
    if schema is None:
        for release in RELEASES:
            kubernetes_validate.validate(document, release, strict=True)
        return
    jsonschema.validate(document["spec"], schema)
    if document["kind"] == "ServingRuntime":
        # Its containers and volumes are a pod's.
        spec = {name: document["spec"][name] for name in ("containers", "volumes")}
        check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "it"}, "spec": spec})


def built(folder: str) -> list[dict[str, Any]]:
    """Return what kustomize makes of a folder; without it, the files that a folder without patches lists."""
    if shutil.which("kubectl"):
        done = subprocess.run(
            ["kubectl", "kustomize", str(KUBERNETES / folder)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return list(yaml.safe_load_all(done.stdout))
    chosen = yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text())
    if "patches" in chosen:
        pytest.skip("there is no kubectl on this machine, which alone merges patches")
    found: list[dict[str, Any]] = []
    for name in chosen["resources"]:
        path = KUBERNETES / folder / name
        found += built(f"{folder}/{name}") if path.is_dir() else [yaml.safe_load(path.read_text())]
    return found


def _of(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def _kserve() -> list[dict[str, Any]]:
    return [yaml.safe_load(path.read_text()) for path in sorted((DEPLOY / "kserve").glob("*.yaml"))]


@pytest.mark.parametrize("folder", ["base", "gpu", "monitoring"])
def test_kubernetes_knows_every_field(folder: str) -> None:
    documents = built(folder)
    assert len(documents) >= 7
    for document in documents:
        check(document)


def test_kserve_knows_every_field() -> None:
    documents = _kserve()
    assert {document["kind"] for document in documents} == {"InferenceService", "ServingRuntime"}
    for document in documents:
        check(document)


def test_every_file_is_part_of_its_folder() -> None:
    for chosen in KUBERNETES.glob("*/kustomization.yaml"):
        facts = yaml.safe_load(chosen.read_text())
        named = {*facts["resources"], *(patch["path"] for patch in facts.get("patches", []))}
        files = {path.name for path in chosen.parent.glob("*.yaml")} - {chosen.name}
        assert {name for name in named if name.endswith(".yaml")} == files


def _pod(document: dict[str, Any]) -> dict[str, Any]:
    return document["spec"]["template"]["spec"]


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "a field of the pod": lambda spec: spec.update(terminationGraceSeconds=5),
    "a field of the container": lambda spec: spec["containers"][0].update(readOnlyRootFilesystem=True),
    "a probe": lambda spec: spec["containers"][0]["livenessProbe"]["httpGet"].update(schema="HTTPS"),
    "a type": lambda spec: spec.update(terminationGracePeriodSeconds="75"),
    "a secret": lambda spec: spec["volumes"][1].update(secret={"name": "tokens"}),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_field_is_refused(case: str) -> None:
    deployment = _of(built("base"), "Deployment")
    check(deployment)
    WRONG[case](_pod(deployment))
    with pytest.raises(kubernetes_validate.ValidationError):
        check(deployment)


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.update(protocolVersion="grpc-v2"),
        lambda spec: spec.update(protocolVersions=["grpc"]),
        lambda spec: spec["supportedModelFormats"][0].update(autoselect=True),
        lambda spec: spec["containers"][0].update(readinessprobe={}),
    ],
)
def test_a_wrong_field_of_kserve_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    runtime = _of(_kserve(), "ServingRuntime")
    change(runtime["spec"])
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(runtime)


def _compose() -> dict[str, Any]:
    # What the specification calls merging is done here: the validator does not know `<<`.
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def _judge(composed: dict[str, Any]) -> None:
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(composed)).validate()


def test_compose_knows_every_field() -> None:
    _judge(_compose())


@pytest.mark.parametrize(
    "wrong", [{"readonly": True}, {"read_only": "maybe"}, {"secrets": ["none"]}, {"networks": ["none"]}]
)
def test_a_wrong_field_of_compose_is_refused(wrong: dict[str, Any]) -> None:
    composed = copy.deepcopy(_compose())
    composed["services"]["neurofv"].update(wrong)
    with pytest.raises(ValueError):  # noqa: PT011
        _judge(composed)


def test_compose_hardens_and_watches_every_container() -> None:
    composed = _compose()
    for name, service in composed["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert re.fullmatch(r"[a-z/]+:\w[\w.]*", service["image"]), name
        for volume in service["volumes"]:
            assert volume.partition(":")[0] in composed["volumes"]
    for kept in ("configs", "secrets"):
        for name, source in composed[kept].items():
            path = DEPLOY / source.get("file", "compose.yaml")
            assert path.is_file() or kept == "secrets", (name, path)


def test_compose_scrapes_as_prometheus_is_shipped() -> None:
    inline = yaml.safe_load(_compose()["configs"]["prometheus"]["content"])
    shipped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert (inline["global"], inline["rule_files"]) == (shipped["global"], shipped["rule_files"])
    (job,) = inline["scrape_configs"]
    assert job["job_name"] == shipped["scrape_configs"][0]["job_name"]
    assert job["static_configs"] == [{"targets": [f"neurofv:{OPERATOR}"]}]
    source = yaml.safe_load(_compose()["configs"]["datasource"]["content"])["datasources"][0]
    shipped = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert {**source, "url": ""} == {**shipped["datasources"][0], "url": ""}


def _environments() -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield each place where the server is started: its settings, and the seconds that its end may take."""
    service = _compose()["services"]["neurofv"]
    yield "compose", service["environment"], float(service["stop_grace_period"].removesuffix("s"))
    documents = built("base")
    seconds = _pod(_of(documents, "Deployment"))["terminationGracePeriodSeconds"]
    yield "kubernetes", _of(documents, "ConfigMap")["data"], seconds
    container = _of(_kserve(), "ServingRuntime")["spec"]["containers"][0]
    # Kubernetes' own default.
    yield "kserve", {each["name"]: each["value"] for each in container["env"]}, 30


def test_every_setting_exists_and_has_a_value_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for place, environment, _ in _environments():
        for name in environment:
            assert name.removeprefix("NEUROFV_").lower() in Settings.model_fields, (place, name)
        with monkeypatch.context() as set_:
            for name, value in environment.items():
                set_.setenv(name, value)
            Settings()
    patch = yaml.safe_load((KUBERNETES / "gpu" / "configmap.yaml").read_text())
    assert Settings(device=patch["data"]["NEUROFV_DEVICE"]).device == "cuda:0"


def test_the_end_has_time_enough() -> None:
    for place, environment, seconds in _environments():
        grace = float(
            environment.get("NEUROFV_GRACE_SECONDS", Settings.model_fields["grace_seconds"].default)
        )
        assert seconds >= LONGEST_PARTS * grace + 10, place


def test_ports_agree_with_the_service() -> None:
    documents = built("base")
    ports = {port["name"]: port["containerPort"] for port in _server(documents)["ports"]}
    assert ports == {"grpc": GRPC, "operator": OPERATOR}
    for port in _of(documents, "Service")["spec"]["ports"]:
        assert port["port"] == ports[port["targetPort"]]
    for rule in _of(documents, "NetworkPolicy")["spec"]["ingress"]:
        assert {port["port"] for port in rule["ports"]} <= set(ports)
    container = _of(_kserve(), "ServingRuntime")["spec"]["containers"][0]
    assert [port["containerPort"] for port in container["ports"]] == [GRPC]
    assert container["readinessProbe"]["grpc"]["port"] == GRPC
    assert _compose()["services"]["neurofv"]["ports"] == [f"{GRPC}:{GRPC}"]
    text = (DEPLOY.parent / "Dockerfile").read_text()
    assert f"EXPOSE {GRPC} {OPERATOR}" in text


def _server(documents: list[dict[str, Any]]) -> dict[str, Any]:
    (container,) = _pod(_of(documents, "Deployment"))["containers"]
    return container


def test_every_container_is_hardened_and_probed() -> None:
    runtime = _of(_kserve(), "ServingRuntime")["spec"]["containers"][0]
    for container in (_server(built("base")), runtime):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "readinessProbe" in container
    pod = _pod(_of(built("base"), "Deployment"))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert {
        probe["httpGet"]["path"] for name, probe in _server(built("base")).items() if "Probe" in name
    } == {
        "/livez",
        "/readyz",
    }


def test_one_server_at_a_time_has_a_database() -> None:
    deployment = _of(built("base"), "Deployment")["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    predictor = _of(_kserve(), "InferenceService")["spec"]["predictor"]
    assert predictor["minReplicas"] == predictor["maxReplicas"] == 1


def test_the_gpu_is_asked_for_and_used() -> None:
    documents = built("gpu")
    assert _server(documents)["resources"]["limits"] == {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "1"}
    data = _of(documents, "ConfigMap")["data"]
    assert data["NEUROFV_DEVICE"] == "cuda:0"
    assert "NEUROFV_TOKENS" in data, json.dumps(data)
