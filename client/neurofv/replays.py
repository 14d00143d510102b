"""A recorded job once more: its request, and whether the same came out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from neurofv.errors import InvalidRequest
from neurofv.images import Image, nifti_bytes
from neurofv.listing import state_name
from neurofv.v1 import job_service_pb2 as pb
from neurofv.v1 import method_pb2 as method
from neurofv.v1 import visualization_service_pb2 as vis

_BIT_FOR_BIT = ("model_digest", "device", "threads")


@dataclass(frozen=True)
class Compared:
    """A volume of the recorded run, of the new one, or of both.

    Attributes
    ----------
    volume : str
        Its id.
    recorded, now : str
        SHA-256 of its file, hexadecimal; empty if that run has no such volume.
    """

    volume: str
    recorded: str
    now: str

    @property
    def equal(self) -> bool:
        """Whether both runs have it, with the same bits."""
        return self.recorded == self.now != ""


def replay_request(job: pb.Job, images: Sequence[Image] = ()) -> vis.VisualizeRequest:
    """Return the request of a recorded job, to send it again.

    Parameters
    ----------
    job : Job
        As GetJob tells it.
    images : sequence of str, PathLike, bytes or SpatialImage
        The images of persons that the job was given, in any order: the server keeps their digests alone.

    Raises
    ------
    InvalidRequest
        The job has no result, an image is missing, or one is none of the job's.
    OSError
        An image cannot be read.
    """
    if not job.HasField("completed"):
        remedy = f"it is {state_name(job)}; name a job that has succeeded"
        raise InvalidRequest("job", job.name, remedy)
    request = vis.VisualizeRequest()
    request.CopyFrom(job.request)
    places = _places(request)
    wanted = {place.sha256 for place in places}
    given = {}
    for image in images:
        data = nifti_bytes(image, "subject")
        digest = hashlib.sha256(data).hexdigest()
        if digest not in wanted:
            listed = ", ".join(sorted(wanted)) or "no image at all"
            remedy = f"its SHA-256 is {digest}, but the job was given {listed}"
            raise InvalidRequest("subject", _label(image), remedy)
        given[digest] = data
    if missing := sorted(wanted - given.keys()):
        remedy = f"the server keeps no images; give the files with SHA-256 {', '.join(missing)}"
        raise InvalidRequest("subject", None, remedy)
    for place in places:
        place.nifti = given[place.sha256]
    return request


def compare(recorded: vis.Provenance, now: vis.Provenance) -> list[Compared]:
    """Hold the volumes of two runs against each other, by id."""
    names = sorted(recorded.volumes.keys() | now.volumes.keys())
    return [Compared(name, recorded.volumes.get(name, ""), now.volumes.get(name, "")) for name in names]


def differences(recorded: vis.Completed, now: vis.Completed) -> list[str]:
    """Say what was not the same for two runs, so that their bits may differ.

    Parameters
    ----------
    recorded, now : Completed
        Their results.

    Returns
    -------
    list of str
        Such as `threads: recorded 4, now 2`; empty if all was the same.
    """
    before, after = recorded.provenance, now.provenance
    found = [
        f"{name.replace('_', ' ')}: recorded {getattr(before, name)}, now {getattr(after, name)}"
        for name in _BIT_FOR_BIT
        if getattr(before, name) != getattr(after, name)
    ]
    for package in sorted(before.software.keys() | after.software.keys()):
        old, new = (each.software.get(package, "absent") for each in (before, after))
        if old != new:
            found.append(f"{package}: recorded {old}, now {new}")
    if any(each.device.startswith("cuda") for each in (before, after)):
        found.append("a GPU adds in an order that is not fixed: the same picture, not always the same bits")
    if any(each.evaluation.stop_reason == vis.STOP_REASON_TIME for each in (recorded, now)):
        found.append("a limit of time ended a run, and no two take the same steps in the same time")
    return found


def _places(request: vis.VisualizeRequest) -> list[method.Subject]:
    """Return the images of a request."""
    own = [request.subject] if request.HasField("subject") else []
    return [*own, *(real.image for real in request.comparisons.real_images)]


def _label(image: Image) -> str:
    return str(image) if not isinstance(image, bytes) else "bytes"
