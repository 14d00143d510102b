"""Where the server listens, and under which certificate."""

import ipaddress
import ssl
import threading
from pathlib import Path

import grpc
import structlog

from service.settings import Settings

_log = structlog.get_logger()


class DoorsRefused(Exception):
    """The server would listen where others could read along, or with settings that contradict each other."""


def is_loopback(host: str) -> bool:
    """Tell whether an address reaches nobody but this machine."""
    plain = host.strip("[]")
    if plain == "localhost":
        return True
    try:
        return ipaddress.ip_address(plain).is_loopback
    except ValueError:
        return False


def check_doors(settings: Settings) -> None:
    """Refuse settings that leave a door open unsaid.

    Parameters
    ----------
    settings : Settings
        Of the server.

    Raises
    ------
    DoorsRefused
        The message names the remedies.
    """
    _check_whole(settings)
    if settings.insecure:
        return
    secure = settings.tls_certificate is not None
    accept = "or accept it, as behind a proxy that brings TLS, with NEUROFV_INSECURE=true (--insecure)"
    certificate = "set NEUROFV_TLS_CERTIFICATE and NEUROFV_TLS_KEY"
    for name, host in (("NEUROFV_HOST", settings.host), ("NEUROFV_HTTP_HOST", settings.http_host)):
        if not is_loopback(host) and not secure:
            raise DoorsRefused(
                f"{name} is {host!r}, where others could read plaintext: {certificate}, listen on 127.0.0.1, "
                f"{accept}"
            )
    if not is_loopback(settings.host) and not authenticates(settings):
        raise DoorsRefused(
            f"NEUROFV_HOST is {settings.host!r}, where everybody who reaches it would be an admin: set "
            "NEUROFV_TOKENS, NEUROFV_JWT_KEYS or NEUROFV_TLS_CLIENT_CA, listen on 127.0.0.1, or accept it "
            "with NEUROFV_INSECURE=true (--insecure)"
        )
    if settings.ui and not is_loopback(settings.http_host):
        _check_page(settings)


def _check_page(settings: Settings) -> None:
    """Refuse the page where others reach it who could not call by gRPC."""
    if not authenticates(settings):
        raise DoorsRefused(
            f"NEUROFV_HTTP_HOST is {settings.http_host!r}, where everybody who reaches it would see all jobs "
            "at /ui: set NEUROFV_TOKENS or NEUROFV_JWT_KEYS, set NEUROFV_UI=false, listen on 127.0.0.1, or "
            "accept it with NEUROFV_INSECURE=true (--insecure)"
        )
    if settings.tls_client_ca and (settings.tokens or settings.jwt_keys):
        raise DoorsRefused(
            f"NEUROFV_HTTP_HOST is {settings.http_host!r}, where /ui would show jobs to whoever has a token "
            "but no certificate of NEUROFV_TLS_CLIENT_CA, for HTTP asks for none: set NEUROFV_UI=false, "
            "listen on 127.0.0.1, or accept it with NEUROFV_INSECURE=true (--insecure)"
        )


def authenticates(settings: Settings) -> bool:
    """Tell whether anything is set up that proves who calls."""
    return any((settings.tokens, settings.jwt_keys, settings.tls_client_ca))


def _check_whole(settings: Settings) -> None:
    """Refuse halves of what belongs together."""
    needs = (
        ("tls_certificate", "tls_key"),
        ("tls_key", "tls_certificate"),
        ("tls_client_ca", "tls_certificate"),
        ("certificate_roles", "tls_client_ca"),
        ("certificate_default_role", "tls_client_ca"),
        ("jwt_keys", "jwt_issuer"),
        ("jwt_keys", "jwt_audience"),
        ("jwt_issuer", "jwt_keys"),
        ("jwt_audience", "jwt_keys"),
    )
    for one, other in needs:
        if getattr(settings, one) and not getattr(settings, other):
            raise DoorsRefused(f"NEUROFV_{one.upper()} is set, so NEUROFV_{other.upper()} must be too")
    if settings.metrics_auth and not (settings.tokens or settings.jwt_keys):
        raise DoorsRefused("NEUROFV_METRICS_AUTH is set, so NEUROFV_TOKENS or NEUROFV_JWT_KEYS must be too")


class Certificates:
    """The server's certificate and key, and who signs clients' ones; read again when the files change.

    Parameters
    ----------
    certificate, key : Path
        PEM files: the chain and its private key.
    client_ca : Path or None
        PEM file of those whose clients are let in; None lets in whoever comes.

    Raises
    ------
    DoorsRefused
        They cannot be read, or do not belong together.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._lock = threading.Lock()
        try:
            self._stamp = self._stamps()
            self._context, self._configuration = self._load()
        except (OSError, ValueError) as error:
            cause = getattr(error, "strerror", None) or type(error).__name__
            raise DoorsRefused(
                f"NEUROFV_TLS_CERTIFICATE, _KEY or _CLIENT_CA cannot be used ({cause}); "
                "give PEM files: a chain, the unencrypted key that belongs to it, and authorities"
            ) from None

    def credentials(self) -> grpc.ServerCredentials:
        """Return what gRPC listens with. With authorities for clients, a certificate is required of them."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            self._fetch,  # type: ignore[arg-type]  # the stub forgets that None means unchanged
            require_client_authentication=self._client_ca is not None,
        )

    def context(self) -> ssl.SSLContext:
        """Return what HTTP listens with; it asks no client for a certificate."""
        self._refresh()
        return self._context

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Answer gRPC, which asks at every handshake."""
        return self._configuration if self._refresh() else None

    def _refresh(self) -> bool:
        """Read the files again if one has changed; a pair that does not match leaves the old one at work."""
        with self._lock:
            try:
                stamp = self._stamps()
                if stamp == self._stamp:
                    return False
                self._context, self._configuration = self._load()
            except (OSError, ValueError) as error:
                _log.error("certificate_not_renewed", kind=type(error).__name__)
                return False
            self._stamp = stamp
            _log.info("certificate_renewed")
            return True

    def _stamps(self) -> list[tuple[int, int, int]]:
        states = [file.stat() for file in (self._certificate, self._key, self._client_ca) if file]
        return [(state.st_ino, state.st_size, state.st_mtime_ns) for state in states]

    def _load(self) -> tuple[ssl.SSLContext, grpc.ServerCertificateConfiguration]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Refuses a key that does not belong to the certificate; gRPC would listen with both, in vain.
        # An encrypted key is refused too: nobody is there to be asked for its password.
        context.load_cert_chain(self._certificate, self._key, password=lambda: "")
        authorities = self._client_ca.read_bytes() if self._client_ca else None
        if authorities is not None:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=authorities.decode("ascii"))
        pair = (self._key.read_bytes(), self._certificate.read_bytes())
        return context, grpc.ssl_server_certificate_configuration([pair], authorities)
