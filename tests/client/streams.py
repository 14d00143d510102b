"""Streams as a server sends them, made of nothing but messages."""

from __future__ import annotations

import gzip
import hashlib
import itertools
from collections.abc import Sequence

import nibabel
import numpy as np

from neurofv.v1 import visualization_service_pb2 as vis

SHAPE = (20, 24, 18)
AFFINE = np.array([[-2.0, 0, 0, 20], [0, 2, 0, -24], [0, 0, 2, -18], [0, 0, 0, 1]])


def file_of(volume: np.ndarray, affine: np.ndarray = AFFINE) -> bytes:
    image = nibabel.Nifti1Image(volume.astype(np.float32), affine)
    image.set_sform(affine, "mni")
    image.header["cal_min"], image.header["cal_max"] = 0, 1.1
    return gzip.compress(image.to_bytes(), mtime=0)


def some_volume(seed: int = 0) -> np.ndarray:
    """Middle grey with a bright block away from the middle."""
    volume = np.full(SHAPE, 0.55) + np.random.default_rng(seed).normal(0, 0.01, SHAPE)
    volume[4:8, 14:18, 5:9] = 1.1
    return volume


def announcement(data: bytes, label: str = "final", **changes: object) -> vis.VolumeBegin:
    kind = vis.VOLUME_KIND_FINAL if label == "final" else vis.VOLUME_KIND_INTERMEDIATE
    facts = {
        "id": label,
        "kind": kind,
        "format": vis.VOLUME_FORMAT_NIFTI1_GZ,
        "step": 3,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "shape": SHAPE,
        "affine": AFFINE.ravel().tolist(),
        "file_name": f"space-MNI152NLin6Asym_model-tiny_desc-{label}_fv.nii.gz",
    }
    return vis.VolumeBegin(**(facts | changes))


def carried(begin: vis.VolumeBegin, data: bytes, cuts: Sequence[int] = ()) -> list[vis.VisualizeResponse]:
    """The events of one volume, cut at the given bytes."""
    edges = [0, *sorted(cuts), len(data)]
    chunks = [
        vis.VolumeChunk(id=begin.id, offset=first, data=data[first:last])
        for first, last in itertools.pairwise(edges)
    ]
    return [
        vis.VisualizeResponse(volume_begin=begin),
        *(vis.VisualizeResponse(volume_chunk=chunk) for chunk in chunks),
        vis.VisualizeResponse(volume_end=vis.VolumeEnd(id=begin.id)),
    ]


def a_request() -> vis.VisualizeRequest:
    """As the server resolves one: a class, a canvas in the grid, noise."""
    request = vis.VisualizeRequest(model="tiny", version=1, seed=0, steps=3, snapshot_every=0)
    request.objective.terms.add().class_logit.class_name = "cube"
    request.start.noise.deviation = 0.01
    for axis, size in zip("ijk", (24, 28, 20), strict=True):
        setattr(request.canvas.size_mm, axis, size)
    center = AFFINE @ [7.5, 14.5, 6.5, 1]
    request.canvas.center_mm.x, request.canvas.center_mm.y, request.canvas.center_mm.z = center[:3]
    return request


def a_completion(data: bytes) -> vis.Completed:
    term = vis.TermEvaluation(unit="classifier:1", activation=12.5, percentile=0.9876, real_p95=8.0)
    return vis.Completed(
        evaluation=vis.Evaluation(objective=12.5, terms=[term]),
        provenance=vis.Provenance(
            model="tiny",
            version=1,
            request=a_request(),
            volume_sha256=hashlib.sha256(data).hexdigest(),
            synthetic=True,
        ),
    )


def a_stream(volume: np.ndarray | None = None, snapshots: int = 1) -> list[vis.VisualizeResponse]:
    """A whole stream, numbered."""
    data = file_of(some_volume() if volume is None else volume)
    events = [
        vis.VisualizeResponse(accepted=vis.Accepted(job="jobs/1", request=a_request())),
        vis.VisualizeResponse(state_changed=vis.StateChanged(state=vis.JOB_STATE_RUNNING)),
    ]
    for step in range(1, snapshots + 1):
        events.append(vis.VisualizeResponse(progress=vis.Progress(step=step, steps=3, objective=step)))
        events += carried(announcement(data, f"step{step:05d}", step=step), data, [100])
    events += carried(announcement(data), data, [10, 20])
    events.append(vis.VisualizeResponse(completed=a_completion(data)))
    for number, event in enumerate(events, 1):
        event.sequence = number
    return events
