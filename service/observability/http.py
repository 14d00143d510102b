"""The operator's port: /metrics, /livez and /readyz."""

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """Say nothing: probes come every few seconds."""


class OperatorServer:
    """Serves metrics and probes from a thread of its own.

    Parameters
    ----------
    host, port : str, int
        Where to listen; port 0 lets the system choose.
    registry : CollectorRegistry
        The metrics.
    is_ready : callable
        Whether the service takes requests.

    Raises
    ------
    OSError
        The address cannot be had.
    """

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, is_ready: Callable[[], bool]
    ) -> None:
        self._metrics = make_wsgi_app(registry)
        self._is_ready = is_ready
        try:
            self._server = make_server(host, port, self._answer, server_class=_Server, handler_class=_Quiet)
        except OSError:
            where = f"{host}:{port}"
            raise OSError(
                f"HTTP cannot listen on {where}; set NEUROFV_HTTP_HOST and NEUROFV_HTTP_PORT"
            ) from None
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
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            return self._metrics(environ, start_response)
        ready = self._is_ready()
        status, text = {
            "/livez": ("200 OK", "alive"),
            "/readyz": ("200 OK", "ready") if ready else ("503 Service Unavailable", "not ready"),
        }.get(str(path), ("404 Not Found", "there are /metrics, /livez and /readyz"))
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]
