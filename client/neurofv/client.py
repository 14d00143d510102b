"""The client for ordinary programs; `neurofv.aio` has the one for asyncio."""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from neurofv.connection import as_request, open_channel, server_address
from neurofv.course import Course
from neurofv.errors import translated, unreachable
from neurofv.events import Collector, Event
from neurofv.images import Image
from neurofv.jobs import Jobs
from neurofv.probes import probe_request
from neurofv.requests import Choices
from neurofv.results import Visualization
from neurofv.retries import DEFAULT_RECONNECT_SECONDS
from neurofv.v1 import (
    audit_service_pb2,
    audit_service_pb2_grpc,
    job_service_pb2_grpc,
    model_service_pb2_grpc,
    visualization_service_pb2_grpc,
)
from neurofv.v1 import model_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis


class Client(Jobs):
    """A connection to a neurofv server; use it in a `with` statement.

    Parameters
    ----------
    target : str, optional
        The server's address; by default the environment variable NEUROFV_SERVER, else localhost:50051.
    deadline_seconds : float, optional
        Longest time that a call may take; then it fails and the server stops its work.
    reconnect_seconds : float
        For how long a stream that the server or the network has broken is taken up again; 0 for not at all.
    token : str, optional
        Bearer token that shows who calls; by default the environment variable NEUROFV_TOKEN.
    credentials : grpc.ChannelCredentials, optional
        For a server behind TLS; by default from NEUROFV_CA, NEUROFV_CERTIFICATE and NEUROFV_KEY, as
        `neurofv.connection.tls_credentials` reads them.
    allow_plaintext_token : bool
        Whether the token may travel in plaintext beyond loopback, as where a mesh encrypts.

    Raises
    ------
    InvalidRequest
        The token would travel in plaintext, or cannot be sent.
    OSError
        A file that the environment names cannot be read.

    Examples
    --------
    >>> with neurofv.Client("localhost:50051") as client:
    ...     result = client.visualize("lesion-shapes", class_name="cube")
    ...     result.save("cube.nii.gz")
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        deadline_seconds: float | None = None,
        reconnect_seconds: float = DEFAULT_RECONNECT_SECONDS,
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        allow_plaintext_token: bool = False,
    ) -> None:
        self.target = server_address(target)
        self._deadline, self._reconnect = deadline_seconds, reconnect_seconds
        self._channel = open_channel(grpc, self.target, token, credentials, allow_plaintext_token)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._audit = audit_service_pb2_grpc.AuditServiceStub(self._channel)
        self._jobs = job_service_pb2_grpc.JobServiceStub(self._channel)
        self._visualization = visualization_service_pb2_grpc.VisualizationServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._channel.close()

    def wait_until_ready(self, seconds: float) -> None:
        """Wait until the server can be reached.

        Parameters
        ----------
        seconds : float
            How long to try.

        Raises
        ------
        NeurofvError
            It could not be reached.
        """
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=seconds)
        except grpc.FutureTimeoutError:
            raise unreachable(self.target, f"tried for {seconds:g} s") from None
        finally:
            ready.cancel()

    def models(self) -> list[pb.ModelSummary]:
        """List the repository, also what is not ready.

        Raises
        ------
        NeurofvError
            The call failed.
        """
        with translated(self.target):
            answer = self._models.ListModels(pb.ListModelsRequest(), timeout=self._deadline)
        return list(answer.models)

    def model(self, name: str, version: int = 0) -> pb.Model:
        """Describe a model: its input, classes, layers and card.

        Parameters
        ----------
        name : str
            Its name.
        version : int
            Its version; 0 means the newest that is ready.

        Raises
        ------
        NeurofvError
            There is no such model, it is not ready, or the call failed.
        """
        request = pb.GetModelRequest(name=name, version=version)
        with translated(self.target):
            return self._models.GetModel(request, timeout=self._deadline).model

    def audit_log(self, after_sequence: int = 0) -> Generator[str]:
        """Read the server's audit log; for admins.

        Parameters
        ----------
        after_sequence : int
            The last record that is known; 0 reads all of it.

        Yields
        ------
        str
            A record, as `neurofv.audit_log.verify` takes it.

        Raises
        ------
        NeurofvError
            The caller is no admin, or the call failed.
        """
        request = audit_service_pb2.ReadAuditRequest(after_sequence=after_sequence)
        call = self._audit.ReadAudit(request, timeout=self._deadline)
        try:
            with translated(self.target):
                for response in call:
                    yield response.line
        finally:
            call.cancel()

    def stream(self, request: vis.VisualizeRequest) -> Generator[vis.VisualizeResponse]:
        """Visualize, and yield what the server sends, as it comes.

        Leaving the loop early cancels the job, unless the request says detach: the server stops within one
        step. If the server goes away or the connection breaks, the stream is taken up again behind the last
        whole event; a volume that had begun then begins once more.

        Parameters
        ----------
        request : VisualizeRequest
            See `neurofv.build_request`.

        Yields
        ------
        VisualizeResponse
            Numbered from 1 without gaps, `completed` last.

        Raises
        ------
        NeurofvError
            The request was refused, the run failed, the job was cancelled or the connection broke for good.
        StreamBroken
            Events are missing.
        """
        return self._follow(Course(request, self._patience()))

    def estimate(self, model: str | vis.VisualizeRequest, **choices: Unpack[Choices]) -> vis.EstimateResponse:
        """Tell what `visualize` would cost; nothing is queued.

        Parameters
        ----------
        model : str or VisualizeRequest
            The model's name, or a complete request.
        **choices
            What to visualize and how: see `neurofv.requests.Choices`.

        Returns
        -------
        EstimateResponse
            Voxels, seconds of a step and of all, bytes of memory, and the jobs that wait.

        Raises
        ------
        InvalidRequest
            The arguments do not make a request.
        OSError
            An image that they name cannot be read.
        NeurofvError
            The request was refused as `visualize` would be, or the call failed.
        """
        request = vis.EstimateRequest(request=as_request(model, choices))
        with translated(self.target):
            return self._visualization.Estimate(request, timeout=self._deadline)

    def probe(
        self,
        model: str,
        image: Image,
        units: Iterable[tuple[str, int]] = (),
        *,
        version: int = 0,
        behind_nonlinearities: bool = False,
        control: str | Mapping[str, Any] | None = None,
    ) -> vis.ProbeResponse:
        """Show an image to a model, and tell how strongly units fire on it, and where.

        Parameters
        ----------
        model : str
            Its name.
        image : str, PathLike, bytes or SpatialImage
            The path of a NIfTI or .mgz file in the model's space, its content, or an image of nibabel. The
            server never stores it.
        units : iterable of (str, int)
            Layers and channels; none for the logits alone.
        version : int
            Of the model; 0 means the newest that is ready.
        behind_nonlinearities : bool
            Units of a non-linearity, such as a ReLU, are read behind it, not before it.
        control : str or mapping, optional
            The model without what it has learned, as for `visualize`: `"random_weights"`.

        Returns
        -------
        ProbeResponse
            `units`, in the order asked: mean, maximum, and where that is (voxel and mm); `logits`, in the
            order of the model's classes.

        Raises
        ------
        InvalidRequest
            A unit is no pair of a layer and a channel, or a value is of the wrong type.
        OSError
            The image's file cannot be read.
        NeurofvError
            The request was refused, or the call failed.
        """
        request = probe_request(model, image, units, version, behind_nonlinearities, control)
        with translated(self.target):
            return self._visualization.Probe(request, timeout=self._deadline)

    def visualize(
        self,
        model: str | vis.VisualizeRequest,
        *,
        on_event: Callable[[Event], object] | None = None,
        keep_snapshots: bool = True,
        **choices: Unpack[Choices],
    ) -> Visualization:
        """Visualize and wait for the result.

        Parameters
        ----------
        model : str or VisualizeRequest
            The model's name, or a complete request.
        on_event : callable, optional
            Called with each `Accepted`, `StateChanged`, `Progress`, complete `Volume`, `VolumeSkipped` and
            `Completed`. An exception that it raises cancels the call and passes through.
        keep_snapshots : bool
            Whether the result holds the snapshots; `on_event` gets them in any case.
        **choices
            What to visualize and how: see `neurofv.requests.Choices`.

        Returns
        -------
        Visualization
            The final volume, its figures and its origin; of several, the first, which holds the others.

        Raises
        ------
        InvalidRequest
            The arguments do not make a request.
        OSError
            An image that they name cannot be read.
        NeurofvError
            The request was refused, the run failed, the connection broke or what arrived is damaged.
        """
        collector = Collector(keep_snapshots)
        with closing(self.stream(as_request(model, choices))) as responses:
            for response in responses:
                event = collector.take(response)
                if event is not None and on_event is not None:
                    on_event(event)
        return collector.result()

    def audit(
        self,
        plan: str | Path | Mapping[str, Any],
        out: str | Path,
        on_progress: Callable[[Any], object] = lambda progress: None,
    ) -> dict[str, Any]:
        """Audit a model by a plan, or go on with an audit that was interrupted; needs the extra `audit`.

        Parameters
        ----------
        plan : str, Path or mapping
            A YAML file, or its content; see docs/how-to/audit-a-model.md.
        out : str or Path
            The folder to fill, or to complete, to the same bits.
        on_progress : callable, optional
            Given a `neurofv.audit.progress.Progress` whenever something has happened.

        Returns
        -------
        dict
            The report; `passed` says whether every threshold holds.

        Raises
        ------
        InvalidRequest
            The plan does not fit its form or the model, or the folder holds another audit.
        NeurofvError
            The server failed, or was away for longer than `reconnect_seconds`.
        """
        from neurofv.audit.runner import run_audit

        return run_audit(self, plan, out, on_progress)
