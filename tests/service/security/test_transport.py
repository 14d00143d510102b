"""Who can read along, and whom TLS lets in."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from models import ZOO
from neurofv.v1 import model_service_pb2 as pb
from neurofv.v1 import model_service_pb2_grpc
from service.security.transport import DoorsRefused, check_doors, is_loopback
from service.settings import Settings
from tests.server import RunningServer
from tests.service.requests import failure
from tests.service.security.authorities import TOKENS, Authority, bearer, credentials, write_tokens

ROOT = Path(__file__).parents[3]


def _list(channel: grpc.Channel, metadata: tuple = ()) -> int:
    with channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        return len(stub.ListModels(pb.ListModelsRequest(), metadata=metadata, timeout=20).models)


@pytest.fixture(scope="module")
def mutual(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that asks clients for a certificate."""
    certificate, key = authority.server("mutual")
    prober = authority.issue("prober")
    running = RunningServer(
        ZOO,
        credentials=credentials(authority, prober),
        threads=1,
        tls_certificate=certificate,
        tls_key=key,
        tls_client_ca=authority.file,
        certificate_roles='{"pacs.hospital.example": "viewer", "prober": "viewer"}',
        tokens=write_tokens(tmp_path_factory.mktemp("mutual") / "tokens.toml"),
        ui=False,
    )
    yield running
    assert running.stop() == 0


def test_a_token_under_tls_is_let_in(guarded: RunningServer, authority: Authority) -> None:
    assert _list(guarded.connect(credentials(authority)), bearer(TOKENS["viewer"])) > 0


def test_plaintext_reaches_nobody(guarded: RunningServer) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        _list(guarded.connect(), bearer(TOKENS["viewer"]))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_client_does_not_take_a_foreign_server(guarded: RunningServer, stranger: Authority) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        _list(guarded.connect(credentials(stranger)))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_old_tls_is_refused(guarded: RunningServer, authority: Authority, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=str(authority.file))
    context.set_alpn_protocols(["h2"])
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    host, port = guarded.target.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        if version < ssl.TLSVersion.TLSv1_2:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                context.wrap_socket(plain, server_hostname="localhost")
        else:
            with context.wrap_socket(plain, server_hostname="localhost") as secure:
                assert secure.version() == version.name.replace("v1_", "v1.")


def test_certificates_show_who_calls(mutual: RunningServer, authority: Authority) -> None:
    pacs = authority.issue("whatever", x509.DNSName("pacs.hospital.example"), stem="pacs")
    assert _list(mutual.connect(credentials(authority, pacs))) > 0
    assert _list(mutual.connect(credentials(authority, authority.issue("prober", stem="again")))) > 0


def test_a_certificate_without_role_is_refused(mutual: RunningServer, authority: Authority) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        _list(mutual.connect(credentials(authority, authority.issue("somebody"))))
    assert failure(caught.value)[:2] == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")


@pytest.mark.parametrize("name", ["local", "server"])
def test_a_certificate_cannot_be_the_server_itself(
    mutual: RunningServer, authority: Authority, name: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        _list(mutual.connect(credentials(authority, authority.issue(name, stem=f"as-{name}"))))
    assert failure(caught.value)[:2] == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")


def test_a_token_counts_more_than_the_certificate(mutual: RunningServer, authority: Authority) -> None:
    pair = authority.issue("somebody", stem="bearer")
    assert _list(mutual.connect(credentials(authority, pair)), bearer(TOKENS["viewer"])) > 0
    prober = authority.issue("prober", stem="wrong-token")
    with pytest.raises(grpc.RpcError) as caught:
        _list(mutual.connect(credentials(authority, prober)), bearer("wrong"))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_foreign_certificate_or_none_does_not_get_through_tls(
    mutual: RunningServer, authority: Authority, stranger: Authority
) -> None:
    before = len(mutual.log)
    pair = stranger.issue("prober")
    for shown in (pair, None):
        with pytest.raises(grpc.RpcError) as caught:
            _list(mutual.connect(credentials(authority, shown)), bearer(TOKENS["admin"]))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert all(entry["event"] == "text" for entry in mutual.log[before:])
    assert mutual.check() == 1


def test_without_the_setting_there_is_no_page(mutual: RunningServer) -> None:
    assert [mutual.get(path)[0] for path in ("/ui", "/ui/", "/ui/api/jobs", "/ui/api/door")] == [404] * 4
    assert mutual.get("/livez")[0] == 200


def test_a_renewed_certificate_is_served_without_a_restart(
    authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    certificate, key = (tmp_path / name for name in ("live.crt", "live.key"))

    def install(pair: tuple[Path, Path]) -> None:
        for new, file in zip(pair, (certificate, key), strict=True):
            new.replace(file)

    install(authority.server("first"))
    tokens = write_tokens(tmp_path / "tokens.toml")
    running = RunningServer(
        ZOO,
        credentials=credentials(authority),
        threads=1,
        tls_certificate=certificate,
        tls_key=key,
        tokens=tokens,
    )
    try:
        assert _list(running.connect(credentials(authority)), bearer(TOKENS["viewer"])) > 0
        install(stranger.server("second"))
        assert _list(running.connect(credentials(stranger)), bearer(TOKENS["viewer"])) > 0
        # A pair that does not match: the one before serves on.
        stranger.server("third")[1].replace(key)
        assert _list(running.connect(credentials(stranger)), bearer(TOKENS["viewer"])) > 0
        events = [entry["event"] for entry in running.log]
        assert "certificate_renewed" in events
        assert "certificate_not_renewed" in events
    finally:
        running.process.kill()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *(("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("[::1]", True), ("localhost", True)),
        *(("0.0.0.0", False), ("::", False), ("[::]", False), ("10.0.0.1", False), ("", False)),
        *(("127.0.0.1.evil.example", False), ("example.org", False), ("localhost.example", False)),
    ],
)
def test_loopback_is_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


EVERYWHERE = {"host": "0.0.0.0"}
TLS = {"tls_certificate": "a", "tls_key": "b"}


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (
            EVERYWHERE,
            ["NEUROFV_HOST", "0.0.0.0", "NEUROFV_TLS_CERTIFICATE", "NEUROFV_INSECURE", "--insecure"],
        ),
        (EVERYWHERE | {"tokens": "t"}, ["NEUROFV_HOST", "plaintext"]),
        (EVERYWHERE | TLS, ["NEUROFV_HOST", "admin", "NEUROFV_TOKENS", "NEUROFV_TLS_CLIENT_CA"]),
        ({"http_host": "::"}, ["NEUROFV_HTTP_HOST", "plaintext"]),
        ({"http_host": "::"} | TLS, ["NEUROFV_HTTP_HOST", "/ui", "NEUROFV_TOKENS", "NEUROFV_UI=false"]),
        ({"tls_certificate": "a"}, ["NEUROFV_TLS_KEY"]),
        ({"tls_client_ca": "a"}, ["NEUROFV_TLS_CERTIFICATE"]),
        ({"jwt_keys": "a", "jwt_issuer": "i"}, ["NEUROFV_JWT_AUDIENCE"]),
        ({"jwt_issuer": "i"}, ["NEUROFV_JWT_KEYS"]),
        ({"certificate_roles": {"a": "viewer"}}, ["NEUROFV_TLS_CLIENT_CA"]),
        ({"metrics_auth": True}, ["NEUROFV_TOKENS"]),
    ],
)
def test_open_doors_are_refused_with_the_remedies(chosen: dict, words: list[str]) -> None:
    with pytest.raises(DoorsRefused) as caught:
        check_doors(Settings(**chosen))
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("more", [{"ui": False}, {"tokens": "t"}, {"insecure": True}])
def test_jobs_are_not_shown_to_a_network_unsaid(more: dict) -> None:
    check_doors(Settings(http_host="0.0.0.0", **TLS, **more))


@pytest.mark.parametrize("more", [{"tokens": "t"}, {"jwt_keys": "k", "jwt_issuer": "i", "jwt_audience": "a"}])
def test_the_page_is_no_way_round_client_certificates(more: dict) -> None:
    chosen = TLS | {"tls_client_ca": "c"} | more
    words = "'0.0.0.0', where /ui .* no certificate of NEUROFV_TLS_CLIENT_CA.*NEUROFV_UI=false.*127.0.0.1"
    with pytest.raises(DoorsRefused, match=f"^NEUROFV_HTTP_HOST is {words}"):
        check_doors(Settings(http_host="0.0.0.0", **chosen))
    for other in ({"http_host": "0.0.0.0", "ui": False}, {"http_host": "127.0.0.1"}):
        check_doors(Settings(**other, **chosen))
    # With certificates alone the page lets nobody in, and others may come for /metrics.
    check_doors(Settings(http_host="0.0.0.0", **TLS, tls_client_ca="c"))


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        EVERYWHERE | {"http_host": "0.0.0.0", "insecure": True},
        EVERYWHERE | TLS | {"tokens": "t", "http_host": "0.0.0.0"},
        EVERYWHERE | TLS | {"tls_client_ca": "c", "certificate_default_role": "viewer"},
    ],
)
def test_doors_that_are_shut_or_open_on_purpose_pass(chosen: dict) -> None:
    check_doors(Settings(**chosen))


def _start(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    chosen = {"port": 0, "http_port": 0, **settings}
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        env=os.environ | {f"NEUROFV_{name.upper()}": str(value) for name, value in chosen.items()},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_server_does_not_start_with_an_open_door(tmp_path: Path, authority: Authority) -> None:
    ended = _start(host="0.0.0.0")
    assert ended.returncode == 1
    assert "NEUROFV_INSECURE=true" in ended.stderr
    tokens = write_tokens(tmp_path / "tokens.toml")
    tokens.chmod(0o644)
    ended = _start(tokens=tokens)
    assert (ended.returncode, "chmod 600" in ended.stderr) == (1, True)
    certificate, _ = authority.server("one")
    _, key = authority.server("two")
    ended = _start(tls_certificate=certificate, tls_key=key)
    assert (ended.returncode, "NEUROFV_TLS_CERTIFICATE" in ended.stderr) == (1, True)
    (tmp_path / "audit.log").write_text("hello\n")
    ended = _start(audit_log=tmp_path / "audit.log")
    assert (ended.returncode, "audit log cannot be used" in ended.stderr) == (1, True)
    assert "Traceback" not in ended.stderr


@pytest.fixture(scope="module")
def open_doors() -> Iterator[RunningServer]:
    """A server without TLS, tokens and reflection, for everybody."""
    running = RunningServer(
        ZOO, threads=1, host="0.0.0.0", http_host="0.0.0.0", insecure="true", reflection="off"
    )
    yield running
    running.process.kill()


@pytest.fixture(scope="module")
def beyond(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that listens beyond loopback, under TLS and with tokens, but lists its methods to all."""
    certificate, key = authority.server("http")
    running = RunningServer(
        ZOO,
        credentials=credentials(authority),
        threads=1,
        host="0.0.0.0",
        http_host="0.0.0.0",
        tls_certificate=certificate,
        tls_key=key,
        tokens=write_tokens(tmp_path_factory.mktemp("beyond") / "tokens.toml"),
        metrics_auth=True,
        reflection="on",
    )
    yield running
    running.process.kill()


def test_the_flag_opens_the_door_on_purpose(open_doors: RunningServer) -> None:
    assert open_doors.check() == 1
    assert open_doors.get("/readyz")[0] == 200


def _list_methods(server: RunningServer) -> grpc.StatusCode:
    """Ask for reflection without a credential."""
    asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
    call = reflection_pb2_grpc.ServerReflectionStub(server.channel).ServerReflectionInfo(
        iter(asked), timeout=20
    )
    with suppress(grpc.RpcError):
        assert len(list(call)) == 1
    return call.code()


def test_reflection_can_be_off(open_doors: RunningServer) -> None:
    # Whoever calls is an administrator there.
    assert _list_methods(open_doors) is grpc.StatusCode.UNIMPLEMENTED


def test_reflection_can_be_free(beyond: RunningServer) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        beyond.models.ListModels(pb.ListModelsRequest(), timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert _list_methods(beyond) is grpc.StatusCode.OK


def test_beyond_loopback_http_has_the_same_certificate(beyond: RunningServer, authority: Authority) -> None:
    context = ssl.create_default_context(cafile=str(authority.file))

    def get(path: str, token: str | None = None) -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        asked = urllib.request.Request(f"https://127.0.0.1:{beyond.http_port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(asked, context=context, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    # A client that connects and says nothing keeps nobody waiting.
    with socket.create_connection(("127.0.0.1", beyond.http_port)):
        begun = time.monotonic()
        assert get("/livez") == get("/readyz") == 200
        assert time.monotonic() - begun < 5
    assert [get("/metrics", token) for token in (None, "wrong", TOKENS["viewer"])] == [401, 401, 200]
    with pytest.raises((urllib.error.URLError, ConnectionError, OSError)):
        beyond.get("/livez")
