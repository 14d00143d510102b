from __future__ import annotations

from collections.abc import Iterator

import pytest

from models import ZOO
from tests.server import RunningServer
from tests.service.security.authorities import (
    AUDIENCE,
    ISSUER,
    NOW,
    Authority,
    credentials,
    timedelta,
    write_jwks,
    write_tokens,
)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority of the same name that nobody here trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="session")
def guarded(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server behind TLS that takes tokens and JWTs, and keeps an audit log."""
    folder = tmp_path_factory.mktemp("guarded")
    certificate, key = authority.server("guarded")
    running = RunningServer(
        ZOO,
        credentials=credentials(authority),
        threads=1,
        tls_certificate=certificate,
        tls_key=key,
        tokens=write_tokens(folder / "tokens.toml", late=("late", "admin", NOW - timedelta(seconds=1))),
        jwt_keys=write_jwks(folder / "jwks.json"),
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        audit_log=folder / "audit.log",
        metrics_auth=True,
    )
    running.folder = folder
    yield running
    assert running.stop() == 0
