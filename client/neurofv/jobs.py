"""Jobs that outlive calls: what `neurofv.Client` can do with them."""

import contextlib
import io
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, Unpack

from neurofv.connection import as_request
from neurofv.course import CANCEL_SECONDS, Course
from neurofv.downloads import Fetch, PartialFile, announced, assembled
from neurofv.errors import NeurofvError, translated
from neurofv.events import Collector, Event
from neurofv.listing import Pages
from neurofv.requests import Choices
from neurofv.results import Visualization
from neurofv.retries import Patience
from neurofv.v1 import job_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis
from neurofv.volumes import Volume


class Jobs:
    """The part of the client that knows jobs; `neurofv.aio_jobs` has the same, awaited."""

    target: str
    _deadline: float | None
    _reconnect: float
    _jobs: Any
    _visualization: Any

    def create_job(
        self, model: str | vis.VisualizeRequest, *, pinned: bool = False, **choices: Unpack[Choices]
    ) -> pb.Job:
        """Store and queue a visualization, and do not wait for it.

        Parameters
        ----------
        model : str or VisualizeRequest
            The model's name, or a complete request.
        pinned : bool
            Whether the job is kept beyond its time.
        **choices
            What to visualize and how: see `neurofv.requests.Choices`. With a `request_id` of one's own
            the call can be repeated at any time within a day, and means the same job.

        Returns
        -------
        Job
            As it stands; its `name` is what the other methods take.

        Raises
        ------
        InvalidRequest
            The arguments do not make a request.
        OSError
            An image that they name cannot be read.
        NeurofvError
            The request was refused, or the call failed.
        """
        request = pb.CreateJobRequest(request=as_request(model, choices), pinned=pinned)
        request.request.request_id = request.request.request_id or str(uuid.uuid4())
        job: pb.Job = self._ask(self._jobs.CreateJob, request).job
        return job

    def job(self, name: str) -> pb.Job:
        """Tell where a job stands.

        Parameters
        ----------
        name : str
            Its name, `jobs/...`.

        Raises
        ------
        NeurofvError
            There is no such job, it is somebody else's, or the call failed.
        """
        job: pb.Job = self._ask(self._jobs.GetJob, pb.GetJobRequest(name=name)).job
        return job

    def jobs(
        self,
        *,
        states: str | int | Sequence[str | int] = (),
        model: str = "",
        owner: str = "",
        limit: int | None = None,
    ) -> Iterator[pb.Job]:
        """List jobs, newest first, without requests, volumes and results.

        Parameters
        ----------
        states : str or sequence of str
            Only in these, such as `"running"`; also as numbers of `JobState`.
        model, owner : str
            Only of these. Others' jobs are an admin's to see.
        limit : int, optional
            Most jobs.

        Yields
        ------
        Job
            Fetched page by page.

        Raises
        ------
        InvalidRequest
            There is no such state.
        NeurofvError
            The call failed.
        """
        pages = Pages(states, model, owner, limit)
        while not pages.over:
            yield from pages.take(self._ask(self._jobs.ListJobs, pages.next_call()))

    def cancel_job(self, name: str) -> pb.Job:
        """Ask for a job to be stopped; nothing happens to one that has ended.

        Returns
        -------
        Job
            Which is `CANCELLING` while the optimizer is being stopped.

        Raises
        ------
        NeurofvError
            There is no such job, or the call failed.
        """
        job: pb.Job = self._ask(self._jobs.CancelJob, pb.CancelJobRequest(name=name)).job
        return job

    def delete_job(self, name: str) -> None:
        """Remove a job that has ended, with its volumes; never tried twice.

        Raises
        ------
        NeurofvError
            It has not ended, there is no such job, or the call failed.
        """
        self._ask(self._jobs.DeleteJob, pb.DeleteJobRequest(name=name))

    def pin_job(self, name: str, pinned: bool = True) -> pb.Job:
        """Keep a job beyond its time, or let it expire.

        Raises
        ------
        NeurofvError
            There is no such job, or the call failed.
        """
        job: pb.Job = self._ask(self._jobs.PinJob, pb.PinJobRequest(name=name, pinned=pinned)).job
        return job

    def stream_job(self, name: str, after: int = 0) -> Generator[vis.VisualizeResponse]:
        """Yield a job's events, those to come included; leaving the loop does not touch the job.

        Parameters
        ----------
        name : str
            The job's name.
        after : int
            The last event that is known whole; 0 for none.

        Yields
        ------
        VisualizeResponse
            Numbered from `after` + 1 without gaps. After a break a volume that had begun begins again.

        Raises
        ------
        NeurofvError
            The job failed or was cancelled, or the connection broke for good.
        """
        start = pb.WatchJobRequest(name=name, after_sequence=after)
        return self._follow(Course(start, self._patience()))

    def watch(
        self,
        name: str,
        after: int = 0,
        *,
        on_event: Callable[[Event], object] | None = None,
        keep_snapshots: bool = True,
    ) -> Visualization:
        """Wait for a job's result; leaving does not touch the job.

        Parameters
        ----------
        name : str
            The job's name.
        after : int
            The last event that is known whole. Volumes of the result that came before are read by themselves.
        on_event : callable, optional
            As `Client.visualize` takes it.
        keep_snapshots : bool
            Whether the result holds the snapshots that come.

        Raises
        ------
        NeurofvError
            The job failed or was cancelled, or the connection broke for good.
        """
        collector = Collector(keep_snapshots, name)
        with closing(self.stream_job(name, after)) as responses:
            for response in responses:
                event = collector.take(response)
                if event is not None and on_event is not None:
                    on_event(event)
        if after:
            for volume in collector.missing(self.job(name)):
                collector.add(self.read_volume(name, volume))
        return collector.result()

    def read_volume(self, name: str, volume: str = "final") -> Volume:
        """Read one of a job's volumes; after a break the rest is read.

        Parameters
        ----------
        name : str
            The job's name.
        volume : str
            The volume's id, as the job lists it.

        Raises
        ------
        InvalidRequest
            The job has no such volume, or not yet.
        NeurofvError
            The call failed, or what arrived is damaged.
        """
        begin, sink = announced(self.job(name), volume), io.BytesIO()
        self._fetch(name, begin, sink)
        return assembled(begin, sink.getvalue())

    def download(self, name: str, volume: str = "final", path: str | Path = ".") -> Path:
        """Write one of a job's volumes to a file.

        What has arrived lies beside the target until all is there and has the digest announced; called
        again, the method goes on from its last byte.

        Parameters
        ----------
        name : str
            The job's name.
        volume : str
            The volume's id, as the job lists it.
        path : str or Path
            A name that ends in `.nii.gz`, or a directory, in which the server's name is used.

        Returns
        -------
        Path
            Where it lies.

        Raises
        ------
        InvalidRequest
            The job has no such volume, or the path has another ending.
        OSError
            The file cannot be written.
        NeurofvError
            The call failed, or what arrived is damaged.
        """
        begin = announced(self.job(name), volume)
        file = PartialFile(path, begin)
        with file.open() as sink:
            self._fetch(name, begin, sink)
        return file.finish()

    def _patience(self) -> Patience:
        return Patience(self._reconnect, self._deadline)

    def _ask(self, method: Callable[..., Any], request: object) -> Any:
        with translated(self.target):
            return method(request, timeout=self._deadline)

    def _fetch(self, name: str, begin: vis.VolumeBegin, sink: BinaryIO) -> None:
        fetch = Fetch(name, begin, sink, self._patience())
        while not fetch.over:
            call = self._jobs.ReadVolume(fetch.next_call(), timeout=fetch.patience.timeout)
            try:
                with translated(self.target):
                    for response in call:
                        fetch.take(response)
                fetch.end()
            except NeurofvError as error:
                time.sleep(fetch.broken(error))
            finally:
                call.cancel()

    def _follow(self, course: Course) -> Generator[vis.VisualizeResponse]:
        """Yield the events of a stream, over as many calls as it takes."""
        try:
            while not course.over:
                request = course.next_call()
                watched = isinstance(request, pb.WatchJobRequest)
                method = self._jobs.WatchJob if watched else self._visualization.Visualize
                call = method(request, timeout=course.patience.timeout)
                try:
                    with translated(self.target):
                        for response in call:
                            yield course.take(response)
                    course.end()
                except NeurofvError as error:
                    time.sleep(course.broken(error))
                finally:
                    call.cancel()
        finally:
            if course.abandoned:
                # As far as the server can be reached.
                with contextlib.suppress(NeurofvError), translated(self.target):
                    self._jobs.CancelJob(pb.CancelJobRequest(name=course.job), timeout=CANCEL_SECONDS)
