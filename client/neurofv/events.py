"""The stream of a visualization, checked and folded into a result.

Both clients read the wire and feed what they read in here; nothing here waits
for anything.
"""

from dataclasses import replace

from neurofv.errors import StreamBroken, job_cancelled
from neurofv.results import Visualization
from neurofv.v1 import job_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis
from neurofv.volumes import Assembler, Volume

Event = vis.Accepted | vis.StateChanged | vis.Progress | Volume | vis.VolumeSkipped | vis.Completed


class Order:
    """Checks that a stream has no gap, the right beginning and an end.

    Parameters
    ----------
    after : int
        The event behind which it begins.
    """

    def __init__(self, after: int = 0) -> None:
        self._after = self._sequence = after
        self._volume = ""
        self.completed = False

    @property
    def whole(self) -> int:
        """The last event that has come whole: from there a stream can be taken up again."""
        return self._sequence - 1 if self._volume else self._sequence

    def restart(self) -> None:
        """Expect the events behind the last whole one: a volume that had begun comes once more."""
        self._sequence, self._volume = self.whole, ""

    def check(self, response: vis.VisualizeResponse) -> vis.VisualizeResponse:
        """Return the response if it is the next one.

        Raises
        ------
        StreamBroken
            Something is missing before it, or nothing may come any more.
        """
        # The messages that carry one volume are one event.
        expected = self._sequence + (0 if self._volume else 1)
        if response.sequence != expected:
            raise StreamBroken(
                f"event {response.sequence} follows event {self._sequence}; what lies between was lost"
            )
        kind = response.WhichOneof("event")
        if (kind in ("volume_chunk", "volume_end")) != bool(self._volume):
            raise StreamBroken(f"event {response.sequence} is {kind!r}, out of turn")
        if self.completed:
            raise StreamBroken(f"event {response.sequence} comes after the completed one")
        if (self._sequence == 0) != response.HasField("accepted"):
            raise StreamBroken(f"event {response.sequence} is {kind!r}, out of turn")
        self._sequence = response.sequence
        if kind in ("volume_begin", "volume_end"):
            self._volume = response.volume_begin.id
        self.completed = response.HasField("completed")
        return response

    def finish(self) -> None:
        """Make sure that the stream was complete.

        Raises
        ------
        StreamBroken
            The last event was not `completed`, unless nothing was left to come behind the first one.
        """
        if not self.completed and (not self._after or self._sequence > self._after):
            raise StreamBroken(f"the stream ended after event {self._sequence} without a result")


class Collector:
    """Turns responses into events with whole volumes, and into the result.

    Parameters
    ----------
    keep_snapshots : bool
        Whether the result holds the snapshots too.
    job : str
        The job's name, if it is known already.
    """

    def __init__(self, keep_snapshots: bool = True, job: str = "") -> None:
        self._keep_snapshots = keep_snapshots
        self._assembler = Assembler()
        self._job = job
        # By id: after a break a volume may come once more.
        self._snapshots: dict[str, Volume] = {}
        self._kept: dict[str, Volume] = {}
        self._completed: vis.Completed | None = None

    def take(self, response: vis.VisualizeResponse) -> Event | None:
        """Take one response.

        Parameters
        ----------
        response : VisualizeResponse
            In order; see `Order`.

        Returns
        -------
        Event or None
            What happened; None while a volume is still arriving.

        Raises
        ------
        VolumeCorrupt
            A volume is not what was announced.
        """
        match response.WhichOneof("event"):
            case "volume_begin":
                # Once more, if the stream broke within it.
                self._assembler.drop(response.volume_begin.id)
                self._assembler.begin(response.volume_begin)
            case "volume_chunk":
                self._assembler.chunk(response.volume_chunk)
            case "volume_skipped":
                # It had begun before the stream broke, and made room meanwhile.
                self._assembler.drop(response.volume_skipped.id)
                return response.volume_skipped
            case "volume_end":
                return self.add(self._assembler.end(response.volume_end))
            case "accepted":
                self._job = response.accepted.job
                return response.accepted
            case "state_changed":
                return response.state_changed
            case "progress":
                return response.progress
            case "completed":
                self._completed = response.completed
                return response.completed
        # A newer server may send events that this client does not know.
        return None

    def add(self, volume: Volume) -> Volume:
        """Take a whole volume, and return it."""
        if volume.kind != "intermediate":
            self._kept[volume.id] = volume
        elif self._keep_snapshots:
            self._snapshots[volume.id] = volume
        return volume

    def missing(self, job: pb.Job) -> list[str]:
        """Return the ids of the volumes that came before the stream was watched.

        Parameters
        ----------
        job : Job
            As it stands, now that the stream has ended.

        Raises
        ------
        NeurofvError
            The job has no result.
        """
        self._assembler.close()
        if job.state == vis.JOB_STATE_CANCELLED:
            raise job_cancelled(job.name)
        if self._completed is None and job.HasField("completed"):
            self._completed = job.completed
        if self._completed is None:
            return []
        return sorted(self._completed.provenance.volumes.keys() - self._kept.keys())

    def result(self) -> Visualization:
        """Return what the stream amounts to: the first volume, which holds the others.

        Raises
        ------
        StreamBroken
            A final volume is missing, or the volumes are not those that the provenance names.
        VolumeCorrupt
            The last volume did not end.
        """
        self._assembler.close()
        if self._completed is None:
            raise StreamBroken("the stream holds no result")
        completed = self._completed
        evaluations = [completed.evaluation, *completed.batch]
        if stray := next((volume for volume in self._kept.values() if volume.item >= len(evaluations)), None):
            raise StreamBroken(f"volume {stray.id!r} came without figures on it")
        self._check_digests(completed.provenance)
        first, *others = [
            self._item(item, evaluation, completed.provenance) for item, evaluation in enumerate(evaluations)
        ]
        if first.volume.sha256 != completed.provenance.volume_sha256:
            raise StreamBroken("the provenance describes another volume than the one that came")
        return replace(first, batch=tuple(others))

    def _item(self, item: int, evaluation: vis.Evaluation, provenance: vis.Provenance) -> Visualization:
        """Return one volume of the batch with all that belongs to it."""
        parts = {volume.kind: volume for volume in self._kept.values() if volume.item == item}
        final = parts.pop("final", None)
        if final is None:
            raise StreamBroken(f"the stream holds no final volume of item {item}, but figures on it")
        if item:
            shared, provenance = provenance, vis.Provenance()
            provenance.CopyFrom(shared)
            provenance.volume_sha256 = final.sha256
        return Visualization(
            job=self._job,
            volume=final,
            evaluation=evaluation,
            provenance=provenance,
            snapshots=tuple(volume for volume in self._snapshots.values() if volume.item == item),
            extras={kind: volume for kind, volume in parts.items() if kind},
        )

    def _check_digests(self, provenance: vis.Provenance) -> None:
        """Hold the volumes that came against the list of those that were made."""
        came = {name: volume.sha256 for name, volume in self._kept.items()}
        for name in sorted(came.keys() | provenance.volumes.keys()):
            if name not in came:
                raise StreamBroken(f"the provenance names volume {name!r}, which did not come")
            if came[name] != provenance.volumes.get(name):
                raise StreamBroken(f"the provenance describes another volume {name!r} than the one that came")
