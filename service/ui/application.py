"""The page's HTTP side: files for everybody, data for whoever may read it by gRPC too."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from importlib.resources import files
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2

from service.errors import Draining, StorageBusy
from service.observability.metrics import Metrics
from service.security.doors import Doors
from service.security.guard import as_refusal
from service.security.identity import LOCAL, Principal, set_caller
from service.security.refusals import Refusal
from service.security.transport import is_loopback
from service.status import code_of, reason_of, resource_of, to_status
from service.ui.api import Answer, Api, File, Route, plain
from service.ui.places import MOST_AT_ONCE, MOST_EACH, Places
from service.ui.viewer import Viewer

# Longer than any wait for news, and than a disk that is slow.
_SECONDS = 40.0
_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_HEADERS = [
    (
        "Content-Security-Policy",
        # data: NiiVue's letters and its light, which lie in its script. It evaluates no text as code.
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
]
# Neither volumes nor names of jobs stay behind in a browser.
_FORGET = ("Cache-Control", "no-store")
# The viewer may, for it says nothing of anybody; a browser asks whether it is still the same.
_ASK_AGAIN = ("Cache-Control", "no-cache")
_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: "400 Bad Request",
    grpc.StatusCode.OUT_OF_RANGE: "400 Bad Request",
    grpc.StatusCode.UNAUTHENTICATED: "401 Unauthorized",
    grpc.StatusCode.PERMISSION_DENIED: "403 Forbidden",
    grpc.StatusCode.NOT_FOUND: "404 Not Found",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "429 Too Many Requests",
    grpc.StatusCode.UNAVAILABLE: "503 Service Unavailable",
}
_BUSY = {
    "429": "you have too many pages open at once; this one asks again",
    "503": "too many pages are open at once; this one asks again",
}
_Answer = TypeVar("_Answer")
StartResponse = Callable[..., Any]


class Ui:
    """A WSGI application, called in the threads of the operator's port.

    What it asks of the server runs in the server's event loop, as calls of
    gRPC do; the threads wait.

    Parameters
    ----------
    doors : Doors
        Who knows callers, and records whom it refuses.
    api : Api
        Where answers come from.
    metrics : Metrics
        Where figures go.
    viewer : Viewer or None
        What draws volumes; without it the page offers them as files.
    """

    def __init__(self, doors: Doors, api: Api, metrics: Metrics, viewer: Viewer | None = None) -> None:
        self._doors, self._api, self._metrics, self._viewer = doors, api, metrics, viewer
        self._loop = asyncio.get_running_loop()
        # Where nobody says who they are, nobody can be told apart.
        self._places = Places(MOST_AT_ONCE if doors.guard.is_open else MOST_EACH)
        folder = files("service.ui") / "page"
        self._files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        path = str(environ.get("PATH_INFO", "")).removeprefix("/ui")
        host = str(environ.get("HTTP_HOST", ""))
        if self._doors.http_is_local and host and not is_loopback(_without_port(host)):
            # Another site's name that was pointed at this machine: its scripts would read along.
            return _text(start_response, "421 Misdirected Request", "ask for 127.0.0.1 or localhost")
        if environ.get("REQUEST_METHOD") != "GET":
            return _text(start_response, "405 Method Not Allowed", "only GET", ("Allow", "GET"))
        if path == "":
            return _text(start_response, "308 Permanent Redirect", "see ui/", ("Location", "ui/"))
        if path == "/api/door":
            # Asked first, so that who has no token yet is not counted as one who was refused.
            found = {"open": self._doors.guard.is_open, "viewer": self._viewer is not None}
            return _json(start_response, found)
        if path.startswith("/api/"):
            return self._data(path.removeprefix("/api/"), environ, start_response)
        if path == "/niivue.js" and self._viewer is not None:
            return _script(start_response, self._viewer, environ)
        name = path.removeprefix("/") or "index.html"
        if name not in self._files:
            return _text(start_response, "404 Not Found", "there is no such page")
        return _send(start_response, "200 OK", _KINDS[name.rpartition(".")[2]], self._files[name])

    def _data(self, path: str, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer in the caller's name, or refuse."""
        route, names = self._api.find(path) or (None, {})
        counted = self._counting(route, start_response)
        principal: Principal | None = None
        try:
            principal = self._who(str(environ.get("HTTP_AUTHORIZATION", "")))
            if route is None:
                return _text(counted, "404 Not Found", "there is no such data")
            self._doors.guard.check_role(principal, route.method)
            if busy := self._places.take(principal.name):
                return _text(counted, busy, _BUSY[busy[:3]], ("Retry-After", "2"))
            release = partial(self._places.give_back, principal.name)
            query = dict(parse_qsl(str(environ.get("QUERY_STRING", ""))))
            answer = self._asked(principal, route.answer(names, query), release)
        except Exception as error:
            status = to_status(error)
            self._note(status, principal, route, str(environ.get("REMOTE_ADDR", "")))
            return _refuse(counted, status)
        if isinstance(answer, File):
            counted("200 OK", [*_headers("application/gzip", answer.size), _FORGET])
            return _Pieces(self, answer, release)
        return _json(counted, answer)

    def _asked(self, principal: Principal, asked: Awaitable[Answer], release: Callable[[], None]) -> Answer:
        """Return an answer; the place is given back, but for a file, which is yet to be sent."""
        answer: Answer = {}
        try:
            answer = self.wait(_as(principal, asked))
        finally:
            if not isinstance(answer, File):
                release()
        return answer

    def _counting(self, route: Route | None, start_response: StartResponse) -> StartResponse:
        """Return what begins an answer, and counts it."""
        method = route.method.removeprefix("/") if route else "unknown"

        def begin(status: str, headers: list[tuple[str, str]]) -> Any:
            self._metrics.ui_requests.labels(method, status[:3]).inc()
            return start_response(status, headers)

        return begin

    def _who(self, header: str) -> Principal:
        guard = self._doors.guard
        return LOCAL if guard.is_open else guard.by_header(header)

    def wait(self, asked: Coroutine[Any, Any, _Answer]) -> _Answer:
        """Run something in the server's loop, and wait for it in this thread.

        Raises
        ------
        Draining, StorageBusy
            The server ends, or takes too long.
        """
        if self._loop.is_closed():
            asked.close()
            raise Draining
        future = asyncio.run_coroutine_threadsafe(asked, self._loop)
        try:
            return future.result(_SECONDS)
        except CancelledError:
            raise Draining from None
        except TimeoutError:
            future.cancel()
            raise StorageBusy("the server did not answer in time; ask again") from None

    def _note(self, status: status_pb2.Status, who: Principal | None, route: Route | None, peer: str) -> None:
        """Count and record what was refused for who asked, as with calls of gRPC."""
        code, reason = code_of(status), reason_of(status)
        if not as_refusal(code, reason):
            return
        if reason != "JOB_NOT_FOUND":
            self._metrics.auth_failures.labels(reason).inc()
        method = f"ui:{route.method.removeprefix('/')}" if route else "ui:unknown"
        name = who.name if who else "anonymous"
        peer = f"ipv6:[{peer}]" if ":" in peer else f"ipv4:{peer}"
        self.wait(self._doors.refusals.note(Refusal(name, peer, method, reason, resource_of(status))))


class _Pieces(Iterator[bytes]):
    """A file's bytes for WSGI; gives its place back when the answer is over, however it ends."""

    def __init__(self, ui: Ui, file: File, release: Callable[[], None]) -> None:
        self._ui, self._file, self._release = ui, file, release

    def __next__(self) -> bytes:
        try:
            piece = self._ui.wait(_next(self._file))
        except Exception as error:
            # The headers are gone: what is missing of the announced length tells the reader.
            to_status(error)
            piece = None
        if piece is None:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Let go of the file."""
        try:
            self._ui.wait(self._file.pieces.aclose())
        except (Draining, StorageBusy):
            return
        finally:
            self._release()


async def _as(principal: Principal, answer: Awaitable[_Answer]) -> _Answer:
    """Await an answer in a caller's name; each task has a context of its own."""
    set_caller(principal)
    return await answer


async def _next(file: File) -> bytes | None:
    return await anext(file.pieces, None)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def _headers(kind: str, size: int) -> list[tuple[str, str]]:
    return [("Content-Type", kind), ("Content-Length", str(size)), *_HEADERS]


def _send(
    start_response: StartResponse, status: str, kind: str, body: bytes, *more: tuple[str, str]
) -> list[bytes]:
    start_response(status, [*_headers(kind, len(body)), _FORGET, *more])
    return [body]


def _script(start_response: StartResponse, viewer: Viewer, environ: dict[str, Any]) -> list[bytes]:
    """Answer with the viewer's script, unless the browser has it."""
    accepted = str(environ.get("HTTP_ACCEPT_ENCODING", "")).replace(" ", "").split(",")
    packed = "gzip" in accepted
    body = viewer.packed if packed else viewer.plain
    more = [_ASK_AGAIN, ("ETag", viewer.tag), ("Vary", "Accept-Encoding")]
    if viewer.tag in str(environ.get("HTTP_IF_NONE_MATCH", "")):
        start_response("304 Not Modified", [*_HEADERS, *more])
        return []
    if packed:
        more.append(("Content-Encoding", "gzip"))
    start_response("200 OK", [*_headers(_KINDS["js"], len(body)), *more])
    return [body]


def _text(start_response: StartResponse, status: str, words: str, *more: tuple[str, str]) -> list[bytes]:
    return _send(start_response, status, "text/plain; charset=utf-8", f"{words}\n".encode(), *more)


def _json(start_response: StartResponse, found: Message | dict[str, Any]) -> list[bytes]:
    body = json.dumps(found, default=plain).encode()
    return _send(start_response, "200 OK", "application/json", body)


def _refuse(start_response: StartResponse, status: status_pb2.Status) -> list[bytes]:
    """Answer with a failure: gRPC's code, the reason and the message."""
    code = code_of(status)
    found = {"code": code.name, "reason": reason_of(status), "message": status.message}
    more = [("WWW-Authenticate", "Bearer")] if code is grpc.StatusCode.UNAUTHENTICATED else []
    answer = _STATUSES.get(code, "500 Internal Server Error")
    return _send(start_response, answer, "application/json", json.dumps({"error": found}).encode(), *more)
