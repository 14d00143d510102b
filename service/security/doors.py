"""Everything that stands between the network and the services."""

import grpc

from service.errors import ServiceError
from service.observability.http import HttpDoor
from service.observability.metrics import Metrics
from service.security.audit import AuditLog
from service.security.guard import Guard
from service.security.refusals import Refusals
from service.security.transport import Certificates, check_doors, is_loopback
from service.settings import Settings

# Twice a long JWT with what clients and proxies add to it.
_METADATA_BYTES = 16_384


class Doors:
    """The listeners' certificate, the guard and the audit log.

    Parameters
    ----------
    settings : Settings
        Of the server.
    metrics : Metrics
        Where figures go.

    Raises
    ------
    DoorsRefused, CredentialsRefused, AuditBroken
        The settings leave a door open unsaid, or name files that cannot be used.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        check_doors(settings)
        self._settings = settings
        self._certificates = None
        if settings.tls_certificate and settings.tls_key:
            self._certificates = Certificates(
                settings.tls_certificate, settings.tls_key, settings.tls_client_ca
            )
        self.guard = Guard(settings)
        folder = settings.data.expanduser()
        self.audit = AuditLog(settings.audit_log or folder / "audit.jsonl", metrics.audit_records.inc)
        self.refusals = Refusals(self.audit)

    @property
    def options(self) -> tuple[tuple[str, int], ...]:
        """The limits of gRPC."""
        return (
            ("grpc.max_receive_message_length", self._settings.max_request_bytes),
            # Both: between the first and the second, gRPC would refuse by chance.
            ("grpc.max_metadata_size", _METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
            ("grpc.max_concurrent_streams", self._settings.max_streams),
        )

    @property
    def http(self) -> HttpDoor:
        """What stands before the operator's port: beyond loopback, the same certificate."""
        secure = self._certificates is not None and not is_loopback(self._settings.http_host)
        return HttpDoor(
            self._certificates.context if self._certificates and secure else None,
            self._may_read if self._settings.metrics_auth else None,
        )

    @property
    def http_is_local(self) -> bool:
        """Whether HTTP asks nobody who they are, because only this machine reaches it."""
        return self.guard.is_open and is_loopback(self._settings.http_host)

    def listen(self, server: grpc.aio.Server) -> int:
        """Let gRPC listen; return the port.

        Raises
        ------
        RuntimeError
            The address cannot be had.
        """
        where = f"{self._settings.host}:{self._settings.port}"
        if self._certificates is None:
            return server.add_insecure_port(where)
        return server.add_secure_port(where, self._certificates.credentials())

    async def close(self) -> None:
        """Record what is left, and close the audit log."""
        await self.refusals.flush()
        self.audit.close()

    def _may_read(self, header: str) -> bool:
        try:
            self.guard.by_header(header)
        except ServiceError:
            return False
        return True
