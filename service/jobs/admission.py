"""What is stored of a new job, and whether its caller may have it."""

import hashlib
import time
import uuid
from typing import Any

from neurofv.v1 import visualization_service_pb2 as vis
from service.errors import QuotaExceeded
from service.jobs.images import without_images
from service.jobs.job import first_events
from service.jobs.plan import Plan
from service.jobs.sharing import share_of
from service.settings import Settings
from service.storage.records import Usage


def bare_request(request: vis.VisualizeRequest) -> vis.VisualizeRequest:
    """Return a request without what is no part of what is computed."""
    bare = vis.VisualizeRequest()
    bare.CopyFrom(request)
    bare.ClearField("request_id")
    bare.ClearField("detach")
    return bare


def new_row(plan: Plan, owner: str, pinned: bool) -> tuple[dict[str, Any], list[vis.VisualizeResponse]]:
    """Return the row of a new job, and its first events.

    Parameters
    ----------
    plan : Plan
        What it is to do.
    owner : str
        Who asks.
    pinned : bool
        Whether it is kept beyond its time.
    """
    number, public, share = uuid.uuid4().hex, without_images(plan.request), share_of(plan)
    events = first_events(f"jobs/{number}", public)
    columns = {
        "id": number,
        "owner": owner,
        "state": int(vis.JOB_STATE_QUEUED),
        "model": plan.request.model,
        "version": plan.request.version,
        "digest": plan.bundle.digest,
        "created": time.time(),
        "request": public.SerializeToString(),
        "private": None if public == plan.request else plan.request.SerializeToString(),
        "share_method": hashlib.sha256(share.method).digest() if share.method else b"",
        "share_volumes": share.volumes,
        "share_voxels": share.voxels,
        "voxel_steps": plan.box.voxels * len(plan.spec.items) * plan.spec.steps,
        "last_sequence": len(events),
        "told": 0,
        "step": 0,
        "crashes": 0,
        "pinned": pinned,
        "stored_bytes": 0,
    }
    return columns, events


def check_quota(usage: Usage, voxel_steps: int, size: int, settings: Settings) -> None:
    """Refuse what would give a caller more than one may have.

    Parameters
    ----------
    usage : Usage
        What the caller has.
    voxel_steps : int
        Of the new job.
    size : int
        Bytes of the images that it brings.
    settings : Settings
        The server's limits.

    Raises
    ------
    QuotaExceeded
        Says which limit, and what helps.
    """
    for subject, actual, limit, remedy in (
        ("jobs", usage.jobs + 1, settings.caller_jobs, "wait until some have ended, or cancel some"),
        (
            "voxel_steps",
            usage.voxel_steps + voxel_steps,
            settings.caller_voxel_steps,
            "wait until some jobs have ended, or ask for fewer steps or a smaller canvas",
        ),
        (
            "stored_bytes",
            usage.stored_bytes + size,
            settings.caller_bytes,
            "delete jobs that you do not need",
        ),
    ):
        if actual > limit:
            rule = f"your {subject} would be {actual}, but the limit for a caller is {limit}; {remedy}"
            raise QuotaExceeded(subject, rule, quota=subject, limit=limit, actual=actual)
