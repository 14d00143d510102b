"""Tokens and certificates, as the clients and the command send them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import neurofv
from models import ZOO
from neurofv.aio import AsyncClient
from neurofv.audit_log import verify
from neurofv.connection import _is_local, tls_credentials
from tests.client.test_command import NEUROFV
from tests.server import RunningServer
from tests.service.security.authorities import TOKENS, Authority, credentials, write_tokens

VARIABLES = ("NEUROFV_TOKEN", "NEUROFV_CA", "NEUROFV_CERTIFICATE", "NEUROFV_KEY", "NEUROFV_SERVER")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def mutual(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that knows clients by certificates and tokens, and keeps an audit log."""
    folder = tmp_path_factory.mktemp("mutual")
    certificate, key = authority.server()
    running = RunningServer(
        ZOO,
        credentials=credentials(authority, authority.issue("prober")),
        threads=1,
        tls_certificate=certificate,
        tls_key=key,
        tls_client_ca=authority.file,
        certificate_default_role="viewer",
        tokens=write_tokens(folder / "tokens.toml"),
        audit_log=folder / "audit.log",
    )
    running.folder = folder
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def pair(authority: Authority) -> tuple[str, str]:
    certificate, key = authority.issue("workstation")
    return str(certificate), str(key)


def test_both_clients_show_certificate_and_token(
    mutual: RunningServer, authority: Authority, pair: tuple[str, str]
) -> None:
    shown = tls_credentials(str(authority.file), *pair)
    with neurofv.Client(mutual.target, credentials=shown) as client:
        assert client.models()
        with pytest.raises(neurofv.NeurofvError) as caught:
            list(client.audit_log())
        assert caught.value.reason == "ROLE_REQUIRED"
    with neurofv.Client(mutual.target, token=TOKENS["admin"], credentials=shown) as client:
        client.wait_until_ready(10)
        assert verify(client.audit_log()).fault is None

    async def scenario() -> list[str]:
        async with AsyncClient(mutual.target, token=TOKENS["admin"], credentials=shown) as client:
            await client.wait_until_ready(10)
            assert await client.models()
            return [line async for line in client.audit_log(after_sequence=1)]

    lines = asyncio.run(scenario())
    assert lines
    assert '"sequence":2,' in lines[0]


def test_the_environment_tells_who_calls(
    mutual: RunningServer, authority: Authority, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEUROFV_CA", str(authority.file))
    monkeypatch.setenv("NEUROFV_CERTIFICATE", pair[0])
    with pytest.raises(neurofv.InvalidRequest, match="NEUROFV_KEY"):
        neurofv.Client(mutual.target)
    monkeypatch.setenv("NEUROFV_KEY", pair[1])
    with neurofv.Client(mutual.target) as client:
        assert client.models()
    monkeypatch.setenv("NEUROFV_TOKEN", "wrong")
    with neurofv.Client(mutual.target) as client, pytest.raises(neurofv.NeurofvError) as caught:
        client.models()
    assert caught.value.reason == "CREDENTIAL_INVALID"
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "local"),
    [
        *((f"localhost{port}", True) for port in (":1", ":50051")),
        *(
            ("127.0.0.1:50051", True),
            ("[::1]:50051", True),
            ("ipv4:127.0.0.1:1", True),
            ("unix:/run/x", True),
        ),
        *(("dns:///localhost:1", True), ("ipv6:[::1]:1", True), ("ipv6:%5B::1%5D:1", False)),
        *(("10.0.0.1:50051", False), ("example.org:50051", False), ("dns:///example.org:1", False)),
        *(("127.0.0.1.example.org:1", False), ("localhost.example.org:1", False), ("", False)),
        *(("ipv4:127.0.0.1:1,10.0.0.1:1", False), ("[::]:1", False), ("0.0.0.0:1", False)),
    ],
)
def test_a_token_travels_in_plaintext_on_this_machine_only(target: str, local: bool) -> None:
    assert _is_local(target) is local
    if local or not target:
        return
    for kind in (neurofv.Client, AsyncClient):
        with pytest.raises(neurofv.InvalidRequest, match="plaintext") as caught:
            kind(target, token="secret")
        assert "secret" not in str(caught.value)
    neurofv.Client(target, token="secret", allow_plaintext_token=True).close()


@pytest.mark.parametrize("token", ["a b", "a\n", "ä", "a\r\nx-other: 1"])
def test_a_token_that_cannot_be_sent_is_refused_without_repeating_it(token: str) -> None:
    with pytest.raises(neurofv.InvalidRequest) as caught:
        neurofv.Client("localhost:1", token=token)
    assert token not in str(caught.value)


def _run(server: RunningServer, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"NEUROFV_SERVER": server.target, "NO_COLOR": "1"}
    return subprocess.run(
        [*NEUROFV, *arguments],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_the_command_exports_and_verifies_the_audit_log(
    mutual: RunningServer, authority: Authority, pair: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKENS["admin"] + "\n")
    tls = ["--ca", str(authority.file), "--certificate", pair[0], "--key", pair[1]]
    admin = [*tls, "--token-file", "token"]
    assert _run(mutual, "models", *tls, cwd=tmp_path).returncode == 0
    refused = _run(mutual, "audit-log", "export", *tls, cwd=tmp_path)
    assert (refused.returncode, "ROLE_REQUIRED" in refused.stderr) == (1, True)
    for _ in range(3):
        exported = _run(mutual, "audit-log", "export", *admin, "--out", "log", cwd=tmp_path)
        assert exported.returncode == 0, exported.stderr
    good = _run(mutual, "audit-log", "verify", "log", cwd=tmp_path)
    assert good.returncode == 0
    head = good.stdout.split()[-1]
    # What is noted today is found in what the server holds later.
    assert _run(mutual, "audit-log", "verify", *admin, "--head", head, cwd=tmp_path).returncode == 0
    # The server's own file, with the head that lies beside it.
    own = str(mutual.folder / "audit.log")
    assert _run(mutual, "audit-log", "verify", own, cwd=tmp_path).returncode == 0

    lines = (tmp_path / "log").read_text().splitlines(keepends=True)
    (tmp_path / "altered").write_text(
        "".join([lines[0], lines[1].replace("OK", "NO").replace("call", "cell"), *lines[2:]])
    )
    (tmp_path / "cut").write_text("".join(lines[:-1]))
    altered = _run(mutual, "audit-log", "verify", "altered", cwd=tmp_path)
    assert (altered.returncode, "record 2: the record was altered" in altered.stderr) == (1, True)
    cut = _run(mutual, "audit-log", "verify", "cut", "--head", head, cwd=tmp_path)
    assert (cut.returncode, f"record {len(lines)}: no record has the hash" in cut.stderr) == (1, True)
    missing = _run(mutual, "audit-log", "verify", "nothing", cwd=tmp_path)
    assert (missing.returncode, "nothing: No such file" in missing.stderr) == (1, True)
    nobody = _run(mutual, "models", *tls, "--token-file", "nothing", cwd=tmp_path)
    assert (nobody.returncode, "Traceback" in nobody.stderr) == (1, False)


def test_the_client_installs_without_the_service() -> None:
    code = "import sys, neurofv.audit_log; sys.exit('service' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
