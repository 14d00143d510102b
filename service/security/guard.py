"""The guard in front of every call: who calls, and may they."""

from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import structlog

from service.errors import RoleRequired, ServiceError, TokenExpired, Unauthenticated
from service.security.credentials import CredentialsRefused, TokenFile, WatchedFile
from service.security.identity import Principal, Role
from service.security.jwts import JwtExpired, JwtVerifier
from service.security.roles import least_role
from service.security.transport import authenticates
from service.settings import Settings

_BEARER = "bearer "
# Names that stand for somebody else: nobody may bring them along.
_RESERVED = ("local", "server", "anonymous")
_LONGEST_NAME = 128
_log = structlog.get_logger()


class Guard:
    """Proves who calls, and what they may do.

    Parameters
    ----------
    settings : Settings
        Of the server.

    Raises
    ------
    CredentialsRefused
        A file of tokens or keys cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.is_open = not authenticates(settings)
        self._by_certificate = settings.tls_client_ca is not None
        self._tokens = TokenFile(settings.tokens) if settings.tokens else None
        self._jwts = None
        if settings.jwt_keys:
            self._jwts = JwtVerifier(
                WatchedFile(settings.jwt_keys),
                settings.jwt_issuer or "",
                settings.jwt_audience or "",
                settings.jwt_role_claim,
            )

    def is_free(self, method: str) -> bool:
        """Tell whether a method needs no credential."""
        return self.is_open or least_role(method, self._settings.reflection) is None

    def by_token(self, metadata: Iterable[tuple[str, str | bytes]]) -> Principal | None:
        """Return who a call's bearer token is of.

        Parameters
        ----------
        metadata : iterable of (str, str)
            Of the call.

        Returns
        -------
        Principal or None
            None if there is no token, but a certificate may tell.

        Raises
        ------
        Unauthenticated
            The token proves nothing, or there is neither token nor certificate.
        """
        headers = [value for key, value in metadata if key == "authorization"]
        if not headers and self._by_certificate:
            return None
        if len(headers) != 1 or not isinstance(headers[0], str):
            raise _unknown()
        return self.by_header(headers[0])

    def by_header(self, header: str) -> Principal:
        """Return who the value of an Authorization header is of.

        Raises
        ------
        Unauthenticated
            It proves nothing.
        """
        if not header.lower().startswith(_BEARER):
            raise _unknown()
        principal = self._bearer(header[len(_BEARER) :].strip())
        if principal is None or principal.name in _RESERVED:
            raise _unknown()
        return principal

    def by_certificate(self, context: Mapping[str, Iterable[bytes]]) -> Principal:
        """Return who a verified certificate is of: its alternative name, else its common name.

        Parameters
        ----------
        context : mapping
            The call's `auth_context()`. TLS itself has refused foreign certificates.

        Raises
        ------
        Unauthenticated
            It names nobody.
        RoleRequired
            It names somebody who has no role here.
        """
        fields = ("x509_subject_alternative_name", "x509_common_name")
        found = [name.decode("utf-8", "replace") for field in fields for name in context.get(field, ())]
        names = [name for name in found if 0 < len(name) <= _LONGEST_NAME and name not in _RESERVED]
        if not names:
            raise _unknown()
        roles = self._settings.certificate_roles
        name = next((name for name in names if name in roles), names[0])
        role = roles.get(name) or self._settings.certificate_default_role
        if role is None:
            raise RoleRequired(f"{name!r} has no role here; ask the operator for one", principal=name)
        return Principal(name, Role[role.upper()])

    def check_role(self, principal: Principal, method: str) -> None:
        """Refuse a caller who may not call a method.

        Raises
        ------
        RoleRequired
            The role is too low.
        """
        least = least_role(method, self._settings.reflection)
        if least is not None and principal.role < least:
            have, need = principal.role.name.lower(), least.name.lower()
            raise RoleRequired(
                f"your role is {have}, but this needs {need}; ask the operator for it",
                role=have,
                required=need,
            )

    def _bearer(self, token: str) -> Principal | None:
        """Look a token up in the file, then among JWTs; either may be set up alone."""
        found: tuple[Principal, bool] | None = None
        try:
            if self._tokens is not None:
                self._tokens.refresh()
                found = self._tokens.find(token)
            if found is None and self._jwts is not None:
                self._jwts.refresh()
                principal = self._jwts.find(token)
                found = None if principal is None else (principal, False)
        except CredentialsRefused:
            # The message names a file, which is the operator's to know: the next start tells it.
            _log.error("credentials_unusable")
            return None
        except JwtExpired:
            raise _expired() from None
        if found is not None and found[1]:
            raise _expired()
        return found[0] if found else None


def _unknown() -> ServiceError:
    # One answer for no token, a wrong one and a malformed one.
    return Unauthenticated("the call has no valid credential; send `authorization: Bearer <token>`")


def _expired() -> ServiceError:
    return TokenExpired("the credential's time is over; ask the operator for a new one")


def peer_host(context: Any) -> str:
    """Return a call's peer without its port, which changes with every connection."""
    kind, _, address = context.peer().partition(":")
    return f"{kind}:{address.rpartition(':')[0] or address}"[:_LONGEST_NAME]


def as_refusal(call: grpc.StatusCode, reason: str) -> bool:
    """Tell whether a failure is a refusal that the audit log shall hold."""
    denied = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
    return call in denied or reason == "JOB_NOT_FOUND"
