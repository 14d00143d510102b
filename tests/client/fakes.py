"""A server that answers by a script and counts what it is asked, and a wire that can be cut."""

from __future__ import annotations

import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_status import rpc_status

from neurofv.v1 import job_service_pb2 as jobs
from neurofv.v1 import model_service_pb2 as models
from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import ServiceError
from service.status import to_status

REQUESTS = {
    "ListModels": models.ListModelsRequest,
    "GetModel": models.GetModelRequest,
    "Visualize": vis.VisualizeRequest,
    "Estimate": vis.EstimateRequest,
    "Probe": vis.ProbeRequest,
    **{
        name: getattr(jobs, f"{name}Request")
        for name in (
            *("CreateJob", "GetJob", "ListJobs", "WatchJob"),
            *("CancelJob", "DeleteJob", "PinJob", "ReadVolume"),
        )
    },
}
STREAMS = ("Visualize", "WatchJob", "ReadVolume")
# What a method does at a call: answers or, for a stream, several; an error ends the call.
Act = Callable[[Any], Any] | Message | list[Any] | grpc.StatusCode | ServiceError


class FakeServer(grpc.GenericRpcHandler):
    """Each method does its acts in order, the last again and again.

    Attributes
    ----------
    requests : dict
        What came, by method.
    """

    def __init__(self, **acts: list[Act]) -> None:
        self._acts = acts
        self._lock = threading.Lock()
        self.requests: dict[str, list[Any]] = defaultdict(list)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        name = details.method.rpartition("/")[2]
        if name in STREAMS:
            return grpc.unary_stream_rpc_method_handler(
                lambda request, context: self._stream(name, request, context),
                request_deserializer=REQUESTS[name].FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: next(self._stream(name, request, context)),
            request_deserializer=REQUESTS[name].FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _stream(self, name: str, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        acts = self._acts[name]
        with self._lock:  # two calls at once do not get the same act
            self.requests[name].append(request)
            act = acts[min(len(self.requests[name]), len(acts)) - 1]
        act = act(request) if callable(act) else act
        for part in act if isinstance(act, list) else [act]:
            if isinstance(part, ServiceError):
                part = to_status(part)
            if isinstance(part, status_pb2.Status):
                context.abort_with_status(rpc_status.to_status(part))
            if isinstance(part, grpc.StatusCode):
                context.abort(part, "as the test wants it")
            if isinstance(part, threading.Event):
                while context.is_active() and not part.wait(0.02):
                    pass
                continue
            yield part


@contextmanager
def fake_server(**acts: list[Act]) -> Iterator[tuple[FakeServer, str]]:
    """Run a fake; gives it and its address."""
    fake = FakeServer(**acts)
    server = grpc.server(ThreadPoolExecutor(8), handlers=[fake])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield fake, f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


class Wire:
    """A TCP proxy in front of a server.

    Parameters
    ----------
    target : str
        The server's `host:port`.
    cut_after : int, optional
        Cut the first connection when so many bytes have come from the server.

    Attributes
    ----------
    received : int
        Bytes that have come from the server.
    """

    def __init__(self, target: str, cut_after: int | None = None) -> None:
        host, _, port = target.rpartition(":")
        self._server = (host, int(port))
        self._cut_after = cut_after
        self._open: list[socket.socket] = []
        self.received = self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection, without a word."""
        self.cuts += 1
        # Who connects again meanwhile is not cut.
        ends, self._open = self._open, []
        for end in ends:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def cut_at_the_next_answer(self) -> None:
        """Break every connection as soon as the server says another word, which gets lost."""
        self._cut_after = self.received

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._open += [client, server]
                threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(16384):
                if counted:
                    self.received += len(data)
                    if self._cut_after is not None and self.received > self._cut_after:
                        self._cut_after = None
                        self.cut()
                        return
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
