"""A real TorchServe with the shipped configuration, and the two ways to call it."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, proto
from google.rpc import status_pb2

from neurofv.v1 import visualization_service_pb2 as vis

CONFIG = Path(__file__).parents[2] / "deploy" / "torchserve" / "config.properties"
START_SECONDS = 120
SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"
_KEYS = ("TS_INFERENCE_ADDRESS", "TS_MANAGEMENT_ADDRESS", "TS_METRICS_ADDRESS")


def need_java() -> None:
    """Without Java the test is skipped, in CI it fails."""
    if shutil.which("java") is None:
        lack = "there is no java on this machine; install Debian's package openjdk-17-jre-headless"
        if os.environ.get("CI") == "true":
            pytest.fail(lack)
        pytest.skip(lack)


def _messages() -> tuple[type, type]:
    """Return what Predictions takes and gives: TorchServe's wheel holds no .proto file."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="torchserve.proto", package="torchserve", syntax="proto3")
    request = file.message_type.add(name="Request")
    entry = request.nested_type.add(name="InputEntry")
    entry.options.map_entry = True
    answer = file.message_type.add(name="Answer")
    for message, name, number, kind in (
        (request, "model_name", 1, field.TYPE_STRING),
        (request, "sequence_id", 4, field.TYPE_STRING),
        (entry, "key", 1, field.TYPE_STRING),
        (entry, "value", 2, field.TYPE_BYTES),
        (answer, "prediction", 1, field.TYPE_BYTES),
    ):
        message.field.add(name=name, number=number, type=kind, label=field.LABEL_OPTIONAL)
    entries = {"type": field.TYPE_MESSAGE, "type_name": ".torchserve.Request.InputEntry"}
    request.field.add(name="input", number=3, label=field.LABEL_REPEATED, **entries)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    named = (pool.FindMessageTypeByName(f"torchserve.{name}") for name in ("Request", "Answer"))
    first, second = map(message_factory.GetMessageClass, named)
    return first, second


Request, Answer = _messages()


class RunningTorchServe:
    """`torchserve --start`, with every model ready, in a folder of its own.

    Attributes
    ----------
    token : str
        That of the inference API.
    """

    def __init__(self, folder: Path, store: Path, **environment: str) -> None:
        *http, port, management = _free_ports(5)
        addresses = {key: f"http://127.0.0.1:{number}" for key, number in zip(_KEYS, http, strict=True)}
        ports = {"TS_GRPC_INFERENCE_PORT": str(port), "TS_GRPC_MANAGEMENT_PORT": str(management)}
        scratch = folder / "tmp"
        scratch.mkdir(parents=True)
        places = {"TEMP": str(scratch), "TMPDIR": str(scratch), "LOG_LOCATION": str(folder / "logs")}
        self._folder, self._log = folder, folder / "torchserve.log"
        command = [sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--ncs"]
        command += ["--model-store", str(store), "--ts-config", str(CONFIG)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | addresses | ports | places | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._http, self._port = addresses["TS_INFERENCE_ADDRESS"], port
        try:
            self._await(len(list(store.glob("*.mar"))))
        except BaseException:
            self.stop()
            raise
        keys = json.loads((folder / "key_file.json").read_text())
        self.token = keys["inference"]["key"]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def log(self) -> str:
        """Return what it and its workers have logged."""
        return self._log.read_text(errors="replace")

    def post(
        self,
        body: bytes,
        model: str = "lesion-shapes",
        content_type: str = "application/octet-stream",
        token: str | None = None,
    ) -> tuple[int, str, bytes]:
        """Call /predictions over HTTP; return the status, the content type and the body."""
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        headers["Content-Type"] = content_type
        asked = urllib.request.Request(f"{self._http}/predictions/{model}", data=body, headers=headers)
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers["Content-Type"], error.read()

    def predict(self, body: bytes, model: str = "lesion-shapes", token: str | None = None) -> bytes:
        """Call Predictions over gRPC."""
        call = self._channel.unary_unary(
            f"{SERVICE}Predictions", Request.SerializeToString, Answer.FromString
        )
        asked = Request(model_name=model, input={"data": body})
        return call(asked, metadata=self._metadata(token), timeout=60).prediction

    def stream(self, body: bytes, field: str = "stream") -> Iterator[bytes]:
        """Call StreamPredictions over gRPC."""
        call = self._channel.unary_stream(
            f"{SERVICE}StreamPredictions", Request.SerializeToString, Answer.FromString
        )
        asked = Request(model_name="lesion-shapes", input={field: body})
        return (answer.prediction for answer in call(asked, metadata=self._metadata(), timeout=60))

    def stream_both_ways(self, body: bytes) -> list[bytes]:
        """Call StreamPredictions2 over gRPC."""
        call = self._channel.stream_stream(
            f"{SERVICE}StreamPredictions2", Request.SerializeToString, Answer.FromString
        )
        asked = Request(model_name="lesion-shapes", input={"stream": body}, sequence_id="one")
        answers = call(iter([asked]), metadata=self._metadata(), timeout=60)
        return [answer.prediction for answer in answers]

    def stop(self) -> None:
        """End it and its workers, which are of its group; it would take ten seconds to do so itself."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def _metadata(self, token: str | None = None) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self.token if token is None else token}")]

    def _await(self, workers: int) -> None:
        until = time.monotonic() + START_SECONDS
        while self.log().count("WorkerLoadTime") < workers:
            if self.process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"TorchServe does not serve:\n{self.log()[-4000:]}")
            time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    doors = [socket.socket() for _ in range(count)]
    for door in doors:
        door.bind(("127.0.0.1", 0))
    ports = [door.getsockname()[1] for door in doors]
    for door in doors:
        door.close()
    return ports


def read_frames(data: bytes) -> tuple[list[vis.VisualizeResponse], status_pb2.Status | None]:
    """Return the events of a stream, and why it failed if it did."""
    stream, events = io.BytesIO(data), []
    while (frame := proto.parse_length_prefixed(any_pb2.Any, stream)) is not None:
        status = status_pb2.Status()
        if frame.Unpack(status):
            assert not stream.read(), "something comes behind the end"
            return events, status
        events.append(vis.VisualizeResponse())
        assert frame.Unpack(events[-1])
    return events, None


def joined(parts: Iterable[bytes]) -> bytes:
    """Return the whole of a stream."""
    return b"".join(parts)
