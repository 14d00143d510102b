"""What both clients agree on about a connection."""

import ipaddress
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from neurofv.errors import InvalidRequest
from neurofv.fields import fill
from neurofv.requests import DELIVERY, build_request
from neurofv.retries import SERVICE_CONFIG
from neurofv.v1 import visualization_service_pb2 as vis

DEFAULT_SERVER = "localhost:50051"
SERVER_VARIABLE = "NEUROFV_SERVER"
TOKEN_VARIABLE = "NEUROFV_TOKEN"
CA_VARIABLE = "NEUROFV_CA"
CERTIFICATE_VARIABLE = "NEUROFV_CERTIFICATE"
KEY_VARIABLE = "NEUROFV_KEY"
SYSTEM_CA = "system"

# A server that has vanished is noticed within a minute, also while a job waits in silence. The server
# allows a ping every 30 s. One that has come back is found within 5 s, not gRPC's 2 minutes.
OPTIONS = (
    ("grpc.keepalive_time_ms", 40_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.service_config", SERVICE_CONFIG),
)


def server_address(target: str | None = None) -> str:
    """Return the server's address: the one given, else NEUROFV_SERVER's, else localhost:50051."""
    return target or os.environ.get(SERVER_VARIABLE) or DEFAULT_SERVER


class AuthorizedChannel:
    """A channel whose calls carry a bearer token; like the channel in everything else.

    Parameters
    ----------
    channel : grpc.Channel or grpc.aio.Channel
        The channel.
    token : str
        The token.
    """

    def __init__(self, channel: Any, token: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),)

    def unary_unary(self, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """Make what calls a method with one answer."""
        return partial(self._channel.unary_unary(*arguments, **options), metadata=self._metadata)

    def unary_stream(self, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """Make what calls a method that streams."""
        return partial(self._channel.unary_stream(*arguments, **options), metadata=self._metadata)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)


def tls_credentials(
    ca: str | None = None, certificate: str | None = None, key: str | None = None
) -> grpc.ChannelCredentials | None:
    """Return what a connection under TLS needs.

    Parameters
    ----------
    ca : str, optional
        PEM file of the authorities that sign the server's certificate, or `system` for the system's;
        by default NEUROFV_CA's.
    certificate, key : str, optional
        PEM files that show who calls; by default NEUROFV_CERTIFICATE's and NEUROFV_KEY's.

    Returns
    -------
    grpc.ChannelCredentials or None
        None if nothing is named: the connection is plaintext.

    Raises
    ------
    InvalidRequest
        Only one of certificate and key is named.
    OSError
        A file cannot be read.
    """
    ca = ca or os.environ.get(CA_VARIABLE) or None
    certificate = certificate or os.environ.get(CERTIFICATE_VARIABLE) or None
    key = key or os.environ.get(KEY_VARIABLE) or None
    if bool(certificate) != bool(key):
        raise InvalidRequest(
            "certificate", certificate, "name a certificate and its key, or neither (NEUROFV_KEY, --key)"
        )
    if ca is None and certificate is None:
        return None
    roots = None if ca in (None, SYSTEM_CA) else Path(str(ca)).read_bytes()
    if certificate is None or key is None:
        return grpc.ssl_channel_credentials(roots)
    return grpc.ssl_channel_credentials(roots, Path(key).read_bytes(), Path(certificate).read_bytes())


def open_channel(
    library: Any,
    target: str,
    token: str | None,
    credentials: grpc.ChannelCredentials | None,
    allow_plaintext_token: bool,
) -> Any:
    """Open a channel for either client.

    Parameters
    ----------
    library : module
        `grpc` or `grpc.aio`.
    target : str
        The server's address.
    token : str or None
        By default NEUROFV_TOKEN's.
    credentials : grpc.ChannelCredentials or None
        By default as `tls_credentials` finds them.
    allow_plaintext_token : bool
        Whether the token may travel in plaintext beyond loopback.

    Raises
    ------
    InvalidRequest
        The token cannot be sent, or would travel where others can read it.
    OSError
        A file that the environment names cannot be read.
    """
    token = token or os.environ.get(TOKEN_VARIABLE) or None
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise InvalidRequest("token", "…", "give a token as it was made, without blanks or line ends")
    credentials = credentials or tls_credentials()
    if token and credentials is None and not allow_plaintext_token and not _is_local(target):
        raise InvalidRequest(
            "target",
            target,
            "the token would travel there in plaintext; name the server's authority (NEUROFV_CA, --ca), or "
            "pass allow_plaintext_token=True if something else encrypts",
        )
    if credentials is None:
        channel = library.insecure_channel(target, options=OPTIONS)
    else:
        channel = library.secure_channel(target, credentials, options=OPTIONS)
    return AuthorizedChannel(channel, token) if token else channel


def _is_local(target: str) -> bool:
    """Tell whether an address stays on this machine."""
    scheme, _, rest = target.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return True
    if scheme in ("dns", "ipv4", "ipv6"):
        target = rest.rpartition("/")[2]
    host = target.rpartition(":")[0].strip("[]") if not target.endswith("]") else target.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def as_request(model: str | vis.VisualizeRequest, choices: Mapping[str, Any]) -> vis.VisualizeRequest:
    """Return the request that the arguments of `visualize` mean.

    Parameters
    ----------
    model : str or VisualizeRequest
        A name with choices, or a complete request without any but `request_id` and `detach`.
    choices : mapping
        See `neurofv.requests.Choices`.

    Raises
    ------
    InvalidRequest
        They are not clear.
    """
    if isinstance(model, str):
        return build_request(model, **choices)
    given = {name: value for name, value in choices.items() if value is not None}
    if others := [name for name in given if name not in DELIVERY]:
        raise InvalidRequest(
            others[0], given[others[0]], "set it in the request; choices go with a model's name"
        )
    if not given:
        return model
    request = vis.VisualizeRequest()
    request.CopyFrom(model)
    fill(request, given, "request")
    return request
