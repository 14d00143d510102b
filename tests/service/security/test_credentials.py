"""Tokens and JWTs: what proves who calls, and what does not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import stat
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import jwt
import pytest

from neurofv.v1 import model_service_pb2 as pb
from service.security import credentials
from service.security.credentials import CredentialsRefused, TokenFile, WatchedFile
from service.security.identity import Principal, Role
from service.security.jwts import JwtExpired, JwtVerifier
from tests.server import RunningServer
from tests.service.requests import failure
from tests.service.security.authorities import (
    AUDIENCE,
    ISSUER,
    KEYS,
    TOKENS,
    bearer,
    claims,
    make_jwt,
    public_pem,
    write_jwks,
    write_tokens,
)

ROOT = Path(__file__).parents[3]
INVALID = (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")
EXPIRED = (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")


def _models(server: RunningServer, metadata: tuple = ()) -> tuple | int:
    """List models; return how many, or the code and reason of the refusal."""
    try:
        return len(server.models.ListModels(pb.ListModelsRequest(), metadata=metadata, timeout=20).models)
    except grpc.RpcError as error:
        return failure(error)[:2]


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _forged(header: dict, signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), json.dumps(claims(role="admin")).encode(), signature)
    return ".".join(map(_b64, parts))


def _hmac_with_the_public_key(name: str) -> str:
    """Sign as an attacker does who hopes that the server takes its public key for an HMAC's secret."""
    body = _forged({"alg": "HS256", "typ": "JWT", "kid": name}).rpartition(".")[0]
    return f"{body}.{_b64(hmac.digest(public_pem(name), body.encode(), 'sha256'))}"


PAST = int((datetime.now(UTC) - timedelta(hours=1)).timestamp())
FUTURE = int((datetime.now(UTC) + timedelta(hours=1)).timestamp())
HASH = hashlib.sha256(TOKENS["admin"].encode()).hexdigest()
WRONG = {
    "nothing": (),
    "a wrong token": bearer("nfv_wrong"),
    "the stored hash": bearer(HASH),
    "an empty token": bearer(""),
    "the beginning of a token": bearer(TOKENS["admin"][:-1]),
    "another scheme": (("authorization", f"Basic {TOKENS['admin']}"),),
    "no scheme": (("authorization", TOKENS["admin"]),),
    "two tokens": bearer(TOKENS["admin"]) + bearer("nfv_wrong"),
    "JWT: algorithm none": bearer(_forged({"alg": "none", "typ": "JWT"})),
    "JWT: algorithm None": bearer(_forged({"alg": "None"}, b"x")),
    "JWT: HMAC with the public RSA key": bearer(_hmac_with_the_public_key("RS256")),
    "JWT: HMAC with the public EC key": bearer(_hmac_with_the_public_key("ES256")),
    "JWT: HMAC with the symmetric key of the set": bearer(
        jwt.encode(claims(), b"secret-secret-secret-secret-secret-32"[:31] + b"2", "HS256", {"kid": "HS256"})
    ),
    "JWT: a stronger hash of the same key": bearer(
        jwt.encode(claims(), KEYS["RS256"], "RS512", {"kid": "RS256"})
    ),
    "JWT: another kind of padding": bearer(jwt.encode(claims(), KEYS["RS256"], "PS256", {"kid": "RS256"})),
    "JWT: another issuer": bearer(make_jwt(iss="https://evil.example")),
    "JWT: no issuer": bearer(make_jwt(iss=None)),
    "JWT: another audience": bearer(make_jwt(aud="another")),
    "JWT: no audience": bearer(make_jwt(aud=None)),
    "JWT: no end": bearer(make_jwt(exp=None)),
    "JWT: an end that is no number": bearer(make_jwt(exp="soon")),
    "JWT: not yet": bearer(make_jwt(nbf=FUTURE)),
    "JWT: no subject": bearer(make_jwt(sub=None)),
    "JWT: an empty subject": bearer(make_jwt(sub="")),
    "JWT: the server's own name": bearer(make_jwt(sub="server")),
    "JWT: everybody's name": bearer(make_jwt(sub="local")),
    "JWT: a very long subject": bearer(make_jwt(sub="a" * 300)),
    "JWT: no role": bearer(make_jwt(role=None)),
    "JWT: an unknown role": bearer(make_jwt(role="root")),
    "JWT: a role that is no text": bearer(make_jwt(role={"a": 1})),
    "JWT: another one's signature": bearer(make_jwt()[:-8] + "AAAAAAAA"),
    "JWT: changed claims": bearer(".".join([make_jwt().split(".")[0], _forged({}).split(".")[1], "AAAA"])),
    "JWT: a deep header": bearer(f"{_b64(b'[' * 3000)}.e30.AAAA"),
    "JWT: nonsense": bearer("a.b.c"),
    "JWT: dots": bearer(".."),
}


@pytest.mark.parametrize("metadata", WRONG.values(), ids=WRONG)
def test_what_proves_nothing_is_refused_with_one_answer(guarded: RunningServer, metadata: tuple) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        guarded.models.ListModels(pb.ListModelsRequest(), metadata=metadata, timeout=20)
    assert failure(caught.value) == (*INVALID, {})
    assert caught.value.details() == "the call has no valid credential; send `authorization: Bearer <token>`"


def test_expired_credentials_say_so(guarded: RunningServer) -> None:
    assert _models(guarded, bearer("late")) == EXPIRED
    assert _models(guarded, bearer(make_jwt(exp=PAST))) == EXPIRED
    # Only to who could have signed it.
    assert _models(guarded, bearer(make_jwt(exp=PAST)[:-8] + "AAAAAAAA")) == INVALID


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_good_jwt_is_let_in(guarded: RunningServer, algorithm: str) -> None:
    assert _models(guarded, bearer(make_jwt(algorithm))) > 0
    assert _models(guarded, bearer(make_jwt(algorithm, aud=["other", AUDIENCE], role=["x", "viewer"]))) > 0


def test_failures_are_counted_and_recorded(guarded: RunningServer) -> None:
    line = 'neurofv_auth_failures_total{reason="%s"}'
    request = bearer(TOKENS["admin"])

    def count(reason: str) -> float:
        headers = {"Authorization": f"Bearer {TOKENS['viewer']}"}
        asked = urllib.request.Request(f"http://127.0.0.1:{guarded.http_port}/metrics", headers=headers)
        text = urllib.request.urlopen(asked, timeout=10).read().decode()
        found = [each for each in text.splitlines() if each.startswith(line % reason)]
        return float(found[0].split()[-1]) if found else 0.0

    before = count("CREDENTIAL_INVALID"), count("TOKEN_EXPIRED")
    assert (_models(guarded), _models(guarded, bearer("late"))) == (INVALID, EXPIRED)
    assert (count("CREDENTIAL_INVALID"), count("TOKEN_EXPIRED")) == (before[0] + 1, before[1] + 1)
    assert _models(guarded, request) > 0
    assert guarded.get("/metrics")[0] == 401
    assert guarded.get("/livez")[0] == guarded.get("/readyz")[0] == 200


def test_a_revoked_token_ends_at_once(guarded: RunningServer) -> None:
    file = guarded.folder / "tokens.toml"
    whole = file.read_text()
    late = datetime.now(UTC) - timedelta(seconds=1)
    write_tokens(file, late=("late", "admin", late), brief=("brief", "viewer", None))
    assert _models(guarded, bearer("brief")) > 0
    write_tokens(file, late=("late", "admin", late))
    assert _models(guarded, bearer("brief")) == INVALID
    try:
        # Nobody gets in by a file with a slip in it.
        file.write_text("[[token]\n")
        assert _models(guarded, bearer(TOKENS["admin"])) == INVALID
        file.write_text(whole)
        file.chmod(0o640)
        assert _models(guarded, bearer(TOKENS["admin"])) == INVALID
    finally:
        file.chmod(0o600)
        file.write_text(whole)
    assert _models(guarded, bearer(TOKENS["admin"])) > 0
    assert str(file) not in json.dumps(guarded.log)


def test_no_thread_goes_on_with_a_revoked_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second thread that comes while the file is read again waits for what it says now."""
    tokens = TokenFile(write_tokens(tmp_path / "tokens.toml"))
    (tmp_path / "tokens.toml").write_text("")
    reading, go_on, parse = threading.Event(), threading.Event(), credentials.parse_tokens

    def slow(*arguments: str) -> list[credentials.Token]:
        reading.set()
        assert go_on.wait(20)
        return parse(*arguments)

    monkeypatch.setattr(credentials, "parse_tokens", slow)

    def ask() -> object:
        tokens.refresh()
        return tokens.find(TOKENS["viewer"])

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(ask)
        assert reading.wait(20)
        second = threads.submit(ask)
        with suppress(TimeoutError):
            assert second.result(0.2) is None
        go_on.set()
        assert (first.result(20), second.result(20)) == (None, None)


def test_a_file_that_was_mended_is_read_again(tmp_path: Path) -> None:
    path = write_tokens(tmp_path / "tokens.toml")
    tokens = TokenFile(path)
    path.chmod(0o644)
    with pytest.raises(CredentialsRefused, match="chmod 600"):
        tokens.refresh()
    assert tokens.find(TOKENS["viewer"]) is None
    path.chmod(0o600)
    tokens.refresh()
    assert tokens.find(TOKENS["viewer"]) == (Principal("viewer", Role.VIEWER), False)


def test_a_jwt_needs_its_own_key(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(public_pem("ES256"))
    verifier = JwtVerifier(WatchedFile(file), ISSUER, AUDIENCE, "role")
    assert verifier.find(make_jwt("ES256")) == Principal("ann", Role.SUBMITTER)
    assert verifier.find(make_jwt("EdDSA")) is None
    with pytest.raises(JwtExpired):
        verifier.find(make_jwt("ES256", exp=PAST))
    write_jwks(file)
    verifier.refresh()
    assert verifier.find(make_jwt("EdDSA", role=["viewer", "ADMIN"])) == Principal("ann", Role.ADMIN)
    groups = JwtVerifier(WatchedFile(file), ISSUER, AUDIENCE, "groups")
    assert groups.find(make_jwt("RS256", groups=["viewer"])) == Principal("ann", Role.VIEWER)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"{}",
        b'{"keys": []}',
        b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}',
        jwt.algorithms.RSAAlgorithm.to_jwk(KEYS["RS256"].public_key()).encode(),
    ],
)
def test_keys_that_cannot_be_used_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(CredentialsRefused, match=r"public key|no key"):
        JwtVerifier(WatchedFile(tmp_path / "keys"), ISSUER, AUDIENCE, "role")


def _token(*arguments: str, file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", "token", *arguments, "--file", str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_makes_lists_and_revokes_tokens(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    made = _token("add", "ann", "--role", "submitter", "--days", "90", file=file)
    token = made.stdout.strip()
    assert made.returncode == 0
    assert len(base64.urlsafe_b64decode(token.removeprefix("nfv_") + "=")) == 32
    assert token not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    known = TokenFile(file)
    assert known.find(token) == (Principal("ann", Role.SUBMITTER), False)
    assert _token("add", "bob", "--role", "viewer", file=file).returncode == 0
    listed = _token("list", file=file).stdout.splitlines()
    assert [line.split("\t")[:2] for line in listed] == [["ann", "submitter"], ["bob", "viewer"]]
    assert token not in "".join(listed)
    assert _token("revoke", "ann", file=file).returncode == 0
    known.refresh()
    assert known.find(token) is None
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.toml"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", "ann", "--role", "viewer"], "revoke it"),
        (["add", "local", "--role", "viewer"], "local"),
        (["add", "server", "--role", "viewer"], "server"),
        (["add", 'a"b', "--role", "viewer"], "letters"),
        (["add", "../x", "--role", "viewer"], "letters"),
        (["add", "eve", "--role", "viewer", "--days", "-1"], "--days"),
        (["add", "eve", "--role", "viewer", "--days", "nan"], "--days"),
        (["add", "eve", "--role", "root"], "root"),
        (["revoke", "eve"], "there are: ann"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path: Path, arguments: list[str], words: str) -> None:
    file = write_tokens(tmp_path / "tokens.toml")
    file.write_text(
        file.read_text().split("[[token]]")[1].join(["[[token]]", ""]).replace('"viewer"', '"ann"', 1)
    )
    file.write_text(file.read_text().replace('role = "ann"', 'role = "viewer"'))
    before = file.read_text()
    done = _token(*arguments, file=file)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert file.read_text() == before


def test_commands_at_once_lose_no_token(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    with ThreadPoolExecutor(4) as pool:
        codes = list(
            pool.map(lambda n: _token("add", f"n{n}", "--role", "viewer", file=file).returncode, range(8))
        )
    assert codes == [0] * 8
    assert len(_token("list", file=file).stdout.splitlines()) == 8


@pytest.mark.parametrize(
    "text",
    [
        "[[token]]\nname = 'a'\n",
        "[[token]]\nname = 'a'\nrole = 'root'\nsha256 = '" + 64 * "0" + "'\n",
        "[[token]]\nname = 'a'\nrole = 'viewer'\nsha256 = 'secret-in-plain'\n",
        "[[token]]\nname = 'a'\nrole = 'viewer'\nexpires = 2026-01-01\nsha256 = '" + 64 * "0" + "'\n",
        "[[token]]\nname = 'a'\nrole = 'viewer'\nexpire = 2026-01-01\nsha256 = '" + 64 * "0" + "'\n",
        2 * ("[[token]]\nname = 'a'\nrole = 'viewer'\nsha256 = '" + 64 * "0" + "'\n"),
        "token = 3\n",
        "token = [3]\n",
    ],
)
def test_a_file_with_a_slip_is_refused_without_repeating_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(CredentialsRefused) as caught:
        TokenFile(file)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CredentialsRefused, match="cannot be read"):
        TokenFile(tmp_path / "nothing.toml")
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to root and be somebody else")
@pytest.mark.parametrize(
    ("mode", "group", "taken"),
    [(0o440, 10001, True), (0o460, 10001, False), (0o444, 10001, False), (0o440, 10002, False)],
)
def test_a_secret_of_root_is_the_group_of_the_servers_to_read(
    mode: int, group: int, taken: bool, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text("")
    os.chown(tokens, 0, group)
    tokens.chmod(mode)
    tmp_path.chmod(0o755)
    code = f"""
import os
from pathlib import Path
from service.security import credentials
from service.security.credentials import CredentialsRefused, WatchedFile
file = os.open({str(tokens)!r}, os.O_RDONLY)
os.setgroups([]); os.setgid(10001); os.setuid(10001)
try:
    print(WatchedFile(Path(f"/proc/self/fd/{{file}}"), private=True).changed())
except CredentialsRefused as refused:
    print(refused)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ("b''" in done.stdout) == taken, done.stdout + done.stderr
