"""Which jobs share a batch: those that differ in nothing but their volumes, where it pays."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import engine
from neurofv.v1 import visualization_service_pb2 as vis
from service.jobs.plan import Plan
from service.settings import Settings

# What belongs to a volume; all else of two requests must be the same.
_OF_A_VOLUME = ("objective", "batch", "seed", "samples")
# On a CPU small volumes gain by being computed together; beyond, the arithmetic itself takes the time.
CPU_VOXELS = 2_000_000


@dataclass(frozen=True)
class Share:
    """With whom a job may share a batch, and how much of it the job fills.

    Attributes
    ----------
    method : bytes
        Jobs of the same method go together; empty for a job that runs alone.
    volumes : int
        Volumes that come out.
    voxels : int
        Voxels at once: those of the canvas, times volumes, times copies.
    """

    method: bytes = b""
    volumes: int = 1
    voxels: int = 0


@dataclass(frozen=True)
class Room:
    """How much a batch holds that several jobs share.

    Attributes
    ----------
    volumes : int
        Most volumes.
    voxels : int
        Most voxels.
    """

    volumes: int
    voxels: int


ALONE = Share()
NO_ROOM = Room(0, 0)


def room(settings: Settings, device: str) -> Room:
    """Return how large a shared batch may be.

    Parameters
    ----------
    settings : Settings
        The server's.
    device : str
        Kind of the worker's device, such as `cpu` or `cuda`.
    """
    if not settings.share_batches:
        return NO_ROOM
    voxels = min(settings.max_voxels, CPU_VOXELS) if device == "cpu" else settings.max_voxels
    return Room(settings.max_batch, voxels)


def share_of(plan: Plan) -> Share:
    """Return with whom a plan may share a batch.

    Alone run: jobs that bring images or a second model; that may stop early,
    and would wait for the rest; whose volumes act on each other; and patches,
    whose brains are drawn from the seed of the first volume.

    Parameters
    ----------
    plan : Plan
        What is to be run.
    """
    request, spec, stopping = plan.request, plan.spec, plan.spec.stopping
    if (
        request.HasField("subject")
        or request.comparisons.real_images
        or request.comparisons.transfer_model
        or stopping.seconds
        or stopping.plateau_looks
        or stopping.activation is not None
        or isinstance(spec.parameterization, engine.Patch)
        or any(regularizer.couples for regularizer in spec.regularizers)
    ):
        return ALONE
    rest = vis.VisualizeRequest()
    rest.CopyFrom(request)
    for field in _OF_A_VOLUME:
        rest.ClearField(field)
    read = ",".join(sorted(spec.layers)) + f";{spec.objective.behind_nonlinearities};{plan.bundle.digest};"
    volumes = len(spec.items)
    voxels = volumes * math.prod(spec.grid.shape) * spec.transforms.copies
    return Share(read.encode() + rest.SerializeToString(deterministic=True), volumes, voxels)


def company(first: Share, waiting: Iterable[Share], room: Room) -> list[int]:
    """Return which of the waiting jobs run with the one whose turn it is.

    Parameters
    ----------
    first : Share
        Of the job whose turn it is.
    waiting : iterable of Share
        Of the others, first come first.
    room : Room
        How much the batch holds.

    Returns
    -------
    list of int
        Places among those waiting; a job that does not fit is passed over.
    """
    found: list[int] = []
    volumes, voxels = first.volumes, first.voxels
    for index, other in enumerate(waiting if first.method else ()):
        fits = volumes + other.volumes <= room.volumes and voxels + other.voxels <= room.voxels
        if other.method == first.method and fits:
            found.append(index)
            volumes, voxels = volumes + other.volumes, voxels + other.voxels
    return found
