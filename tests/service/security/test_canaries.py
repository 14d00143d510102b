"""What a caller brings along appears in no log, error, metric or output."""

from __future__ import annotations

import ast
import gzip
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import nibabel
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension

from models import ZOO, read_bundle
from neurofv.v1 import method_pb2 as method
from neurofv.v1 import visualization_service_pb2 as vis
from service.observability.logs import KEYS, keep_allowed, places
from tests.server import RunningServer
from tests.service.requests import CUBE, SMALL, Stream, request
from tests.service.security.authorities import TOKENS, bearer, write_tokens

ROOT = Path(__file__).parents[3]
REFERENCE = read_bundle(ZOO / "lesion-shapes" / "1").reference()
NAMES = ("DESCRIP", "AUXFILE", "INTENT", "DBNAME", "EXTENSION", "GZIPNAME", "REQUESTID", "TOKEN", "METADATA")
CANARIES = {name: f"CANARY-{name}" for name in NAMES}


def _spoil(spoil: str, volume: np.ndarray, affine: np.ndarray) -> None:
    """Break what the image shows."""
    match spoil:
        case "nan":
            volume[40, 40, 40] = np.nan
        case "constant":
            volume[:] = 3.0
        case "empty":
            volume[volume > 0] = 0
            volume[0, 0, 0] = 1
        case "moved":
            affine[:3, 3] += 500


def _image(spoil: str = "") -> bytes:
    """Return a brain whose header tells who it is, in a gzip file that does too."""
    volume = np.asarray(REFERENCE.dataobj, dtype=np.float32).copy()
    affine = REFERENCE.affine.copy()
    _spoil(spoil, volume, affine)
    image = nibabel.Nifti1Image(volume, affine)
    image.set_sform(affine, 2)
    header = image.header
    for field, name in (("descrip", "DESCRIP"), ("aux_file", "AUXFILE"), ("intent_name", "INTENT")):
        header[field] = CANARIES[name].encode()
    header["db_name"] = CANARIES["DBNAME"].encode()
    header.extensions.append(Nifti1Extension("comment", CANARIES["EXTENSION"].encode()))
    data = bytearray(image.to_bytes())
    if spoil == "datatype":
        data[70:72] = (9999).to_bytes(2, "little")
    if spoil == "magic":
        data[344:348] = b"xxxx"
    if spoil == "extension":
        data[352:356] = (2**31 - 8).to_bytes(4, "little")
    if spoil == "cut":
        del data[5000:]
    target = io.BytesIO()
    with gzip.GzipFile(CANARIES["GZIPNAME"], "wb", 1, target) as file:
        file.write(data)
    packed = bytearray(target.getvalue())
    if spoil == "gzip":
        packed[len(packed) // 2] ^= 0xFF
    return bytes(packed[: len(packed) // 2] if spoil == "half" else packed)


SPOILED = ["nan", "constant", "empty", "moved", "datatype", "magic", "extension", "cut", "gzip", "half"]


def _asked(spoil: str = "") -> vis.VisualizeRequest:
    asked = request(CUBE, SMALL, "steps: 2 snapshot_every: 1 start { subject {} }")
    # What is stored under an id is one request alone.
    asked.request_id = CANARIES["REQUESTID"] + spoil
    asked.subject.nifti = _image(spoil)
    return asked


def _probe(spoil: str = "") -> vis.ProbeRequest:
    return vis.ProbeRequest(model="lesion-shapes", image=method.Subject(nifti=_image(spoil)))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("canaries")
    token = f"{CANARIES['TOKEN']}-1"
    running = RunningServer(
        ZOO,
        threads=1,
        log_level="debug",
        tokens=write_tokens(folder / "tokens.toml", ann=(token, "submitter", None)),
        audit_log=folder / "audit.log",
    )
    running.folder = folder
    running.metadata = (*bearer(token), ("x-note", CANARIES["METADATA"]))
    yield running
    assert running.stop() == 0


def _found(text: str) -> list[str]:
    """Return the canaries in a text, also in hexadecimal or with their letters apart."""
    plain = text.replace(" ", "").upper()
    return [
        name for name, canary in CANARIES.items() if canary in plain or canary.encode().hex().upper() in plain
    ]


def _written(server: RunningServer) -> str:
    """Return everything that the server has written anywhere."""
    files = [file.read_text() for file in server.folder.iterdir() if file.name.startswith("audit")]
    return json.dumps(server.log) + server.get("/metrics")[1] + "".join(files)


def test_a_valid_request_leaves_no_trace_of_who_it_shows(own: RunningServer) -> None:
    stream = Stream(list(own.visualization.Visualize(_asked(), metadata=own.metadata, timeout=200)))
    assert stream.kinds()[-1] == "completed"
    for volume in stream.volumes.values():
        plain = gzip.decompress(volume)
        image = nibabel.Nifti1Image.from_bytes(plain)
        assert _found(plain.decode("latin-1")) == []
        assert not image.header.extensions
        assert image.header["aux_file"].item() == image.header["db_name"].item() == b""
    for event in stream.events:
        event.ClearField("volume_chunk")
        assert _found(str(event)) == []
    probed = own.visualization.Probe(_probe(), metadata=own.metadata, timeout=100)
    assert len(probed.logits) == 6
    assert _found(str(probed)) == []
    assert _found(_written(own)) == []


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_broken_request_leaves_none_either(own: RunningServer, spoil: str) -> None:
    for call in (
        lambda: list(own.visualization.Visualize(_asked(spoil), metadata=own.metadata, timeout=100)),
        lambda: own.visualization.Estimate(
            vis.EstimateRequest(request=_asked(spoil)), metadata=own.metadata, timeout=100
        ),
        lambda: own.visualization.Probe(_probe(spoil), metadata=own.metadata, timeout=100),
    ):
        if spoil == "extension":
            # Nothing reads extensions, so nothing is wrong with it.
            continue
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        details = "".join(f"{key}{value!r}" for key, value in caught.value.trailing_metadata())
        assert _found((caught.value.details() or "") + details) == []
    assert _found(_written(own)) == []


def test_tokens_and_names_of_methods_leave_none(own: RunningServer) -> None:
    for metadata in (bearer(CANARIES["TOKEN"]), own.metadata + bearer(CANARIES["TOKEN"]), own.metadata):
        with pytest.raises(grpc.RpcError) as caught:
            own.channel.unary_unary(f"/{CANARIES['METADATA']}/{CANARIES['REQUESTID']}")(
                b"", metadata=metadata
            )
        assert _found(caught.value.details() or "") == []
    with pytest.raises(grpc.RpcError):
        own.channel.unary_unary("/neurofv.v1.ModelService/GetModel")(
            CANARIES["DESCRIP"].encode(), metadata=bearer(TOKENS["viewer"])
        )
    assert _found(_written(own)) == []


FAILING = """
import asyncio, logging, sys, threading, warnings
import structlog
from service.observability.logs import configure_logs
from service.status import to_status
configure_logs(sys.argv[1], "debug")
log = structlog.get_logger()
canary = "CANARY-DESCRIP"

def fail(argument):
    try:
        raise ValueError(canary)
    except ValueError as error:
        raise RuntimeError(f"deep {canary}") from error

try:
    fail(canary)
except RuntimeError as error:
    status = to_status(error)
    assert canary not in str(status)
    log.exception("broken", subject=canary, request=canary)
    log.error("broken", exc_info=error)
    log.error("broken", exc_info=sys.exc_info())
    logging.getLogger("grpc._cython").exception("Unexpected %s", canary)
    logging.getLogger("x").error(canary)
log.info(f"free text with {canary}", model="m")
log.info("objects", kind={"a": canary}, reason=ValueError(canary))
warnings.warn(canary)
thread = threading.Thread(target=fail, args=(canary,))
thread.start()
thread.join()

async def leave():
    asyncio.get_running_loop().create_task(late())
    await asyncio.sleep(0.01)

async def late():
    fail(canary)

asyncio.run(leave())
fail(canary)
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_exception_repeats_what_it_was_told(form: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FAILING, form],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert run.returncode == 1
    assert _found(run.stdout + run.stderr) == []
    assert "Traceback" not in run.stderr
    if form == "json":
        lines = [json.loads(line) for line in run.stderr.splitlines()]
        internal = next(line for line in lines if line["event"] == "internal_error")
        assert internal["error_id"]
        assert internal["trace"][0] == "RuntimeError"
        assert "ValueError" in internal["trace"]
        assert any(":fail:" in frame for frame in internal["trace"])
        assert next(line for line in lines if line["event"] == "broken")["dropped"] == 2
        assert [line["event"] for line in lines].count("library_log") >= 3
        assert {"uncaught", "unnamed"} <= {line["event"] for line in lines}


def test_unknown_keys_are_dropped_and_counted() -> None:
    kept = keep_allowed(None, "info", {"event": "x", "model": "m", "patient": "Jane", "file": "Jane"})
    assert kept == {"event": "x", "model": "m", "dropped": 2}
    assert len(keep_allowed(None, "info", {"event": "x", "reason": "a" * 9000})["reason"]) == 512


def test_places_of_a_chain_that_bites_its_tail_end() -> None:
    error = ValueError("CANARY-DESCRIP")
    other = KeyError("CANARY-DESCRIP")
    error.__cause__, other.__cause__ = other, error
    assert places(error) == ["ValueError", "KeyError"]


def test_every_key_that_the_service_logs_is_allowed() -> None:
    """A key that is new in the code must be judged, and then be named in KEYS."""
    found: set[str] = set()
    for file in (ROOT / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value
            if (
                isinstance(owner, ast.Name)
                and owner.id in ("_log", "log")
                and node.func.attr in logging_levels()
            ):
                found |= {each.arg or "**" for each in node.keywords}
    assert found - KEYS == {"exc_info"}


def logging_levels() -> set[str]:
    return {name.lower() for name in logging.getLevelNamesMapping()} | {"exception"}
