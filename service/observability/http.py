"""The operator's port: /metrics, /livez, /readyz, and the page at /ui."""

import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

_MOST_CONNECTIONS = 64


@dataclass(frozen=True)
class HttpDoor:
    """What stands before the operator's port.

    Attributes
    ----------
    context : callable or None
        Gives the TLS context for a new connection; None for plaintext.
    may_read : callable or None
        Tells from an Authorization header whether its bearer may read the metrics; None lets everybody.
    """

    context: Callable[[], ssl.SSLContext] | None = None
    may_read: Callable[[str], bool] | None = None


# A WSGI application.
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128
    door = HttpDoor()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._places = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        super().__init__(*arguments, **options)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Put TLS around a new connection; the handshake waits for the connection's own thread."""
        connection, address = super().get_request()
        if self.door.context is not None:
            connection = self.door.context().wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection its thread, or close it if there are too many."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room for the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a scanner's handshake that fails is no event, and may hold anything."""


class _Quiet(WSGIRequestHandler):
    # Who connects and then says nothing holds a thread no longer than this.
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """Say nothing: probes come every few seconds."""

    def get_stderr(self) -> io.StringIO:
        """Keep what wsgiref says of a reader who stopped reading out of the log, whose lines are JSON."""
        return io.StringIO()


class OperatorServer:
    """Serves metrics and probes from a thread of its own.

    Parameters
    ----------
    address : (str, int)
        Where to listen; port 0 lets the system choose.
    registry : CollectorRegistry
        The metrics.
    is_ready : callable
        Whether the service takes requests.
    door : HttpDoor
        TLS and who may read.
    ui : Application or None
        Answers for /ui and below; None if there is no such page.

    Raises
    ------
    OSError
        The address cannot be had.
    """

    def __init__(
        self,
        address: tuple[str, int],
        registry: CollectorRegistry,
        is_ready: Callable[[], bool],
        door: HttpDoor,
        ui: Application | None = None,
    ) -> None:
        self._metrics = make_wsgi_app(registry)
        self._is_ready = is_ready
        self._door = door
        self._ui = ui
        host, port = address
        try:
            self._server = make_server(host, port, self._answer, server_class=_Server, handler_class=_Quiet)
        except OSError:
            where = f"{host}:{port}"
            raise OSError(
                f"HTTP cannot listen on {where}; set NEUROFV_HTTP_HOST and NEUROFV_HTTP_PORT"
            ) from None
        self._server.door = door
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path, may_read = environ.get("PATH_INFO"), self._door.may_read
        if path == "/metrics":
            if may_read is None or may_read(environ.get("HTTP_AUTHORIZATION", "")):
                return self._metrics(environ, start_response)
            headers = [("Content-Type", "text/plain; charset=utf-8"), ("WWW-Authenticate", "Bearer")]
            start_response("401 Unauthorized", headers)
            return [b"send a bearer token\n"]
        if self._ui is not None and (path == "/ui" or str(path).startswith("/ui/")):
            return self._ui(environ, start_response)
        ready = self._is_ready()
        status, text = {
            "/livez": ("200 OK", "alive"),
            "/readyz": ("200 OK", "ready") if ready else ("503 Service Unavailable", "not ready"),
        }.get(str(path), ("404 Not Found", self._others()))
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]

    def _others(self) -> str:
        return "there are /metrics, /livez" + (", /readyz and /ui" if self._ui else " and /readyz")
