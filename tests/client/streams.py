"""Streams as a server sends them, made of nothing but messages."""

from __future__ import annotations

import gzip
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import nibabel
import numpy as np

from neurofv.v1 import method_pb2 as method
from neurofv.v1 import visualization_service_pb2 as vis

KINDS = {
    "final": vis.VOLUME_KIND_FINAL,
    "gradient": vis.VOLUME_KIND_GRADIENT,
    "jacobian": vis.VOLUME_KIND_JACOBIAN,
    "opacity": vis.VOLUME_KIND_OPACITY,
}
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
    kind = KINDS.get(label, vis.VOLUME_KIND_INTERMEDIATE)
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


def a_request(*others: str) -> vis.VisualizeRequest:
    """As the server resolves one: a class, others in the batch, a canvas in the grid, noise."""
    request = vis.VisualizeRequest(model="tiny", version=1, seed=0, steps=3, snapshot_every=0, samples=1)
    for objective, name in [(request.objective, "cube"), *((request.batch.add(), name) for name in others)]:
        objective.terms.add(sense=method.SENSE_MAXIMIZE).class_logit.class_name = name
    request.start.noise.deviation = 0.01
    for axis, size in zip("ijk", (24, 28, 20), strict=True):
        setattr(request.canvas.size_mm, axis, size)
    center = AFFINE @ [7.5, 14.5, 6.5, 1]
    request.canvas.center_mm.x, request.canvas.center_mm.y, request.canvas.center_mm.z = center[:3]
    return request


def a_completion(request: vis.VisualizeRequest, files: dict[str, bytes], items: int) -> vis.Completed:
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    provenance = vis.Provenance(
        model="tiny",
        version=1,
        request=request,
        volume_sha256=digests["final"],
        volumes=digests,
        synthetic=True,
    )
    figures = []
    for item in range(items):
        term = vis.TermEvaluation(
            unit="classifier:1", activation=12.5 + item, percentile=0.9876, real_p95=8.0
        )
        figures.append(vis.Evaluation(objective=12.5 + item, terms=[term]))
    return vis.Completed(evaluation=figures[0], provenance=provenance, batch=figures[1:])


def a_stream(
    *volumes: np.ndarray,
    snapshots: int = 1,
    others: Sequence[str] = (),
    extras: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> list[vis.VisualizeResponse]:
    """A whole stream, numbered: a volume for the class cube and each other class, each with the extras."""
    request = a_request(*others)
    if not volumes:
        volumes = tuple(some_volume(item) for item in range(1 + len(others)))
    events = [
        vis.VisualizeResponse(accepted=vis.Accepted(job="jobs/1", request=request)),
        vis.VisualizeResponse(state_changed=vis.StateChanged(state=vis.JOB_STATE_RUNNING)),
    ]
    made: dict[str, bytes] = {}
    for step in range(1, snapshots + 1):
        batch = [vis.ItemProgress(objective=step + item) for item in range(1, len(volumes))]
        progress = vis.Progress(step=step, steps=3, objective=step, batch=batch)
        events.append(vis.VisualizeResponse(progress=progress))
        for item, volume in enumerate(volumes):
            events += _of_item(item, f"step{step:05d}", file_of(volume), {}, step)
    for item, volume in enumerate(volumes):
        for label, content in {"final": volume, **extras}.items():
            events += _of_item(item, label, file_of(content), made, 3)
    events.append(vis.VisualizeResponse(completed=a_completion(request, made, len(volumes))))
    return numbered(events)


def numbered(events: Sequence[vis.VisualizeResponse], after: int = 0) -> list[vis.VisualizeResponse]:
    """Number events as the server does: the messages that carry one volume share a number."""
    copies = [vis.VisualizeResponse.FromString(event.SerializeToString()) for event in events]
    for event in copies:
        after += event.WhichOneof("event") not in ("volume_chunk", "volume_end")
        event.sequence = after
    return copies


def _of_item(
    item: int, label: str, data: bytes, made: dict[str, bytes], step: int
) -> list[vis.VisualizeResponse]:
    name = f"item{item}.{label}" if item else label
    file_name = f"space-MNI152NLin6Asym_model-tiny_unit-{item}_desc-{label}_fv.nii.gz"
    made[name] = data
    return carried(
        announcement(data, label, id=name, item=item, step=step, file_name=file_name), data, [10, 100]
    )
