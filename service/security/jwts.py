"""JSON Web Tokens of an identity provider, checked with its public keys."""

import json
import threading
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from service.security.credentials import CredentialsRefused, WatchedFile
from service.security.identity import Principal, Role

_CLOCK_SLACK_SECONDS = 30
_LEAST_RSA_BITS = 2048
_LONGEST_NAME = 128


class JwtExpired(Exception):
    """The token is genuine, but its time is over."""


class JwtVerifier:
    """Checks signature, algorithm, issuer, audience and time.

    Parameters
    ----------
    file : WatchedFile
        Public keys: one in PEM, or a JSON Web Key Set.
    issuer, audience : str
        What `iss` and `aud` must be.
    role_claim : str
        The claim that holds the role: a text, or a list of texts of which the highest role counts.

    Raises
    ------
    CredentialsRefused
        The keys cannot be used.
    """

    def __init__(self, file: WatchedFile, issuer: str, audience: str, role_claim: str) -> None:
        self._file = file
        self._issuer = issuer
        self._audience = audience
        self._role_claim = role_claim
        self._refreshing = threading.Lock()
        self._keys: list[tuple[str | None, str, Any]] = []
        self.refresh()

    def refresh(self) -> None:
        """Read the keys again if they have changed.

        Raises
        ------
        CredentialsRefused
            They cannot be used any more; no JWT is taken then, until they can.
        """
        with self._refreshing:
            try:
                content = self._file.changed()
                if content is not None:
                    self._keys = _read_keys(content, str(self._file.path))
            except CredentialsRefused:
                self._keys = []
                raise

    def find(self, token: str) -> Principal | None:
        """Return who a token is of; None if it proves nothing.

        Raises
        ------
        JwtExpired
            It did, until it ran out.
        """
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, ValueError, RecursionError):
            return None
        algorithm, named = header.get("alg"), header.get("kid")
        for key_id, expected, key in self._keys:
            # The key says which algorithm it is for, never the token: so neither `none` nor an HMAC with
            # the public key as its secret gets through.
            if algorithm == expected and (named is None or key_id is None or named == key_id):
                claims = self._claims(token, key, expected)
                if claims is not None:
                    return self._principal(claims)
        return None

    def _claims(self, token: str, key: Any, algorithm: str) -> dict[str, Any] | None:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=_CLOCK_SLACK_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise JwtExpired from None
        except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError):
            return None
        return claims

    def _principal(self, claims: dict[str, Any]) -> Principal | None:
        """Return the bearer; None if the claims name nobody or no role."""
        name, claimed = claims["sub"], claims.get(self._role_claim)
        texts = claimed if isinstance(claimed, list) else [claimed]
        known = Role.__members__
        roles = [known[text.upper()] for text in texts if isinstance(text, str) and text.upper() in known]
        if not roles or not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
            return None
        return Principal(name, max(roles))


def _read_keys(content: bytes, file: str) -> list[tuple[str | None, str, Any]]:
    """Return public keys: the id, the algorithm it is for, and the key."""
    try:
        if content.lstrip().startswith(b"{"):
            entries = json.loads(content)["keys"]
            loaded = [(entry.get("kid"), jwt.PyJWK(entry).key) for entry in entries if _signs(entry)]
        else:
            loaded = [(None, load_pem_public_key(content))]
        keys = [(key_id, _algorithm(key), key) for key_id, key in loaded]
    except Exception as error:  # the libraries raise many kinds; none may be repeated, for it may quote
        kind = type(error).__name__
        raise CredentialsRefused(
            f"{file} holds no public keys ({kind}); give a PEM public key or a JWKS, of RSA (2048 bits or "
            "more), P-256 or Ed25519"
        ) from None
    if not keys:
        raise CredentialsRefused(f"{file} holds no key that signs; give the identity provider's JWKS")
    return keys


def _signs(entry: dict[str, Any]) -> bool:
    # A provider's set may hold keys for encryption, or symmetric ones, which must never verify here.
    return entry.get("use", "sig") == "sig" and entry.get("kty") in ("RSA", "EC", "OKP")


def _algorithm(key: Any) -> str:
    """Return the one algorithm that a key is for."""
    if isinstance(key, RSAPublicKey) and key.key_size >= _LEAST_RSA_BITS:
        return "RS256"
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name == "secp256r1":
        return "ES256"
    if isinstance(key, Ed25519PublicKey):
        return "EdDSA"
    raise ValueError("another kind of key")
