"""Authorities, certificates, tokens and JWTs, made for a test."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC)
TOKENS = {
    role: f"nfv_{role}-0123456789abcdefghijklmnopqrstuvwxyz" for role in ("viewer", "submitter", "admin")
}


def _pem(key: object) -> bytes:
    return key.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass
class Authority:
    """An authority with a certificate of its own."""

    folder: Path
    name: str = "authority"

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(self.name, self.key.public_key(), [], ca=True)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)
        self.file = self.folder / f"{self.name}.pem"
        self.file.write_bytes(self.pem)

    def _sign(self, name: str, key: object, alternatives: list[x509.GeneralName], ca: bool = False):
        issuer = self.name if ca else self.certificate.subject.rfc4514_string().removeprefix("CN=")
        days = timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key)  # type: ignore[arg-type]
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - days)
            .not_valid_after(NOW + days)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, name: str, *alternatives: x509.GeneralName, stem: str | None = None) -> tuple[Path, Path]:
        """Return the files of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, key.public_key(), list(alternatives))
        paths = self.folder / f"{stem or name}.crt", self.folder / f"{stem or name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(_pem(key))
        return paths

    def server(self, stem: str = "server") -> tuple[Path, Path]:
        """Return a certificate for this machine."""
        local = ipaddress.ip_address("127.0.0.1")
        return self.issue("localhost", x509.DNSName("localhost"), x509.IPAddress(local), stem=stem)


def credentials(authority: Authority, pair: tuple[Path, Path] | None = None) -> grpc.ChannelCredentials:
    """Return what a client of TLS needs."""
    if pair is None:
        return grpc.ssl_channel_credentials(authority.pem)
    certificate, key = pair
    return grpc.ssl_channel_credentials(authority.pem, key.read_bytes(), certificate.read_bytes())


def write_tokens(file: Path, **more: tuple[str, str, datetime | None]) -> Path:
    """Write the file of TOKENS, and of more: name to token, role and end."""
    entries = {name: (token, name, None) for name, token in TOKENS.items()} | more
    lines = []
    for name, (token, role, end) in entries.items():
        digest = hashlib.sha256(token.encode()).hexdigest()
        lines += ["[[token]]", f'name = "{name}"', f'role = "{role}"', f'sha256 = "{digest}"']
        lines += [f"expires = {end.isoformat()}"] if end else []
    # Whole and at once, as the command writes it: the server reads it at any time.
    new = file.with_suffix(".new")
    new.touch(0o600)
    new.write_text("\n".join(lines) + "\n")
    new.replace(file)
    return file


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


KEYS = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
ISSUER, AUDIENCE = "https://id.hospital.example", "neurofv"


def write_jwks(file: Path) -> Path:
    """Write the public keys of KEYS, and a symmetric one that must never count."""
    kinds = {"RS256": jwt.algorithms.RSAAlgorithm, "ES256": jwt.algorithms.ECAlgorithm}
    entries = []
    for name, key in KEYS.items():
        kind = kinds.get(name, jwt.algorithms.OKPAlgorithm)
        entries.append(json.loads(kind.to_jwk(key.public_key())) | {"kid": name, "use": "sig"})
    entries.append({"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTMy", "kid": "HS256"})
    file.write_text(json.dumps({"keys": entries}))
    return file


def public_pem(name: str) -> bytes:
    return (
        KEYS[name]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def claims(**more: object) -> dict[str, object]:
    """Return good claims, changed; None leaves one out."""
    # Made when tests are collected, used when their turn comes.
    soon = int((datetime.now(UTC) + timedelta(hours=2)).timestamp())
    good = {"sub": "ann", "iss": ISSUER, "aud": AUDIENCE, "exp": soon, "role": "submitter"} | more
    return {key: value for key, value in good.items() if value is not None}


def make_jwt(algorithm: str = "ES256", **more: object) -> str:
    return jwt.encode(claims(**more), KEYS[algorithm], algorithm, headers={"kid": algorithm})
