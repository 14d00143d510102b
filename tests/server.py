"""The real server as a process of its own, for tests."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc

from models import ZOO, read_bundle, write_bundle
from neurofv.v1 import job_service_pb2_grpc, model_service_pb2_grpc, visualization_service_pb2_grpc

START_SECONDS = 120


class RunningServer:
    """`python -m service`, ready for requests.

    Attributes
    ----------
    target : str
        `host:port` of gRPC.
    log : list of dict
        Every line that it has logged.
    """

    def __init__(
        self,
        repository: Path,
        own_group: bool = False,
        credentials: grpc.ChannelCredentials | None = None,
        module: str = "service",
        **settings: object,
    ) -> None:
        self._data = None
        if "data" not in settings:
            self._data = tempfile.TemporaryDirectory(prefix="neurofv-")
            settings["data"] = self._data.name
        self.data = Path(str(settings["data"]))
        chosen = {"port": 0, "http_port": 0, "repository": repository, "log_level": "info", **settings}
        environment = {f"NEUROFV_{name.upper()}": str(value) for name, value in chosen.items()}
        self.log: list[dict] = []
        self._serving = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            env=os.environ | environment,
            cwd=Path(__file__).parents[1],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=own_group,
        )
        threading.Thread(target=self._read_log, daemon=True).start()
        self._serving.wait(START_SECONDS)
        if not hasattr(self, "target"):
            self.process.kill()
            raise RuntimeError(f"the server does not serve; it logged {self.log}")
        self.channel = self.connect(credentials)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.jobs = job_service_pb2_grpc.JobServiceStub(self.channel)
        self.visualization = visualization_service_pb2_grpc.VisualizationServiceStub(self.channel)

    def connect(self, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
        """Open a channel of its own; under TLS, with a connection that no other channel shares."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        if credentials is None:
            return grpc.insecure_channel(self.target, options=options)
        return grpc.secure_channel(self.target, credentials, options=options)

    def check(self, service: str = "") -> int:
        """Ask the health service."""
        request = health_pb2.HealthCheckRequest(service=service)
        return health_pb2_grpc.HealthStub(self.channel).Check(request, timeout=10).status

    def get(self, path: str) -> tuple[int, str]:
        """Ask the operator's port."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, line: str) -> float:
        """Return the value of a metric's line, 0 if it has none yet."""
        for found in self.get("/metrics")[1].splitlines():
            if found.rpartition(" ")[0] == line:
                return float(found.rpartition(" ")[2])
        return 0.0

    def workers(self) -> list[int]:
        """Process ids of the server's children."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"event": "text", "text": line}
            self.log.append(entry)
            if entry["event"] == "serving":
                self.http_port = entry["http_port"]
                self.target = f"127.0.0.1:{entry['port']}"
                self._serving.set()
        self._serving.set()  # it has ended


def make_repository(root: Path) -> Path:
    """Copy the zoo, and add a version 2 of which one byte is damaged, and a model with a dead unit."""
    shutil.copytree(ZOO, root)
    spoiled = root / "lesion-shapes" / "2"
    shutil.copytree(root / "lesion-shapes" / "1", spoiled)
    weights = bytearray((spoiled / "weights.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (spoiled / "weights.safetensors").write_bytes(weights)
    _add_lifeless(root)
    return root


def _add_lifeless(root: Path) -> None:
    """Add a model, `lifeless`, in which channel 4 of `blocks.1.conv` has no weights."""
    bundle = read_bundle(ZOO / "lesion-shapes" / "1")
    network = bundle.network()
    with torch.no_grad():
        network.get_submodule("blocks.1.conv").weight[4] = 0.0
    manifest = bundle.manifest.model_copy(update={"name": "lifeless", "files": {}})
    folder = root / "lifeless" / "1"
    write_bundle(folder, manifest, network, bundle.reference(), bundle.prior(), bundle.card(), onnx=False)
