"""One job, from its plan to the events that describe it."""

import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import torch

import engine
from neurofv.v1 import visualization_service_pb2 as vis
from service import __version__
from service.errors import DeadUnit
from service.jobs.images import without_images
from service.jobs.plan import Plan
from service.settings import Settings
from service.volumes import nifti
from service.worker.evaluation import evaluate, transfer
from service.worker.memory import free_bytes
from service.worker.model import LoadedModel

_SOFTWARE = ("torch", "numpy", "nibabel", "grpcio", "protobuf", "safetensors", "scipy")
_EXTRAS = {
    "gradient": vis.VOLUME_KIND_GRADIENT,
    "jacobian": vis.VOLUME_KIND_JACOBIAN,
    "opacity": vis.VOLUME_KIND_OPACITY,
}


def run(
    plan: Plan,
    model: LoadedModel,
    settings: Settings,
    other: LoadedModel | None,
    should_stop: Callable[[], bool],
) -> Iterator[vis.VisualizeResponse | nifti.VolumeFile]:
    """Optimize, and describe each step, each snapshot, the results and their figures.

    Parameters
    ----------
    plan : Plan
        What to do.
    model : LoadedModel
        The model that the plan names.
    settings : Settings
        The server's.
    other : LoadedModel or None
        The second model that the plan names.
    should_stop : callable
        Asked before every step.

    Yields
    ------
    VisualizeResponse or VolumeFile
        Nothing after a stop; otherwise `completed` last.

    Raises
    ------
    DeadUnit
        The only volume's unit has no gradient, whatever is tried.
    """
    job = _Job(plan, model, other)
    items = [
        engine.Item(model.with_targets(plan, item.objective, plan.box), item.seed) for item in plan.spec.items
    ]
    spec = replace(
        plan.spec,
        objective=items[0].objective,
        batch=tuple(items[1:]),
        anatomy=model.anatomy(plan, settings),
        memory=settings.max_activation_bytes or free_bytes(model.device) * 3 // 4,
    )
    for event in engine.visualize(model.network, spec, should_stop):
        match event:
            case engine.Progress():
                yield _progress(event)
            case engine.Result():
                yield from job.finish(event)
            case engine.Snapshot():
                yield job.file(event.image, vis.VOLUME_KIND_INTERMEDIATE, event)
    if job.completed.batch or job.completed.HasField("evaluation"):
        yield vis.VisualizeResponse(completed=job.finished())


class _Job:
    """What has come of a job so far."""

    def __init__(self, plan: Plan, model: LoadedModel, other: LoadedModel | None) -> None:
        self._plan, self._model, self._other = plan, model, other
        self._around = model.surroundings(plan)
        self._started = datetime.now(UTC)
        self._digests: dict[str, str] = {}
        self._first: dict[int, np.ndarray] = {}
        self.completed = vis.Completed()

    def finish(self, result: engine.Result) -> Iterator[nifti.VolumeFile]:
        """Write a result's volumes and judge it."""
        if result.stopped is engine.Stop.DEAD and len(self._plan.spec.items) == 1:
            raise DeadUnit(str(self._plan.spec.objective.terms[0].unit))
        whole = self._plan.box.paste(result.image.numpy(), self._around)
        yield self.file(result.image, vis.VOLUME_KIND_FINAL, result)
        for name, extra in result.extras.items():
            yield self.file(extra, _EXTRAS[name], result)
        group = result.item // self._plan.request.samples
        first = self._first.setdefault(group, whole)
        alone = first is whole
        judged = evaluate(self._plan, self._model, result, whole, None if alone else first)
        if self._other is not None:
            judged.transfer.CopyFrom(transfer(self._plan, result.item, self._other, whole))
        if result.item == 0:
            self.completed.evaluation.CopyFrom(judged)
        else:
            self.completed.batch.append(judged)

    def file(self, image: torch.Tensor, kind: "vis.VolumeKind", event: engine.Snapshot) -> nifti.VolumeFile:
        """Write a volume of the canvas on the model's grid."""
        plan = self._plan
        # Outside the canvas there was no gradient, no opacity and no change of size.
        around = {vis.VOLUME_KIND_GRADIENT: 0.0, vis.VOLUME_KIND_OPACITY: 0.0, vis.VOLUME_KIND_JACOBIAN: 1.0}
        background = np.full_like(self._around, around[kind]) if kind in around else self._around
        unit = str(plan.spec.items[event.item].objective.terms[0].unit)
        seed = plan.spec.items[event.item].seed if plan.request.samples > 1 else None
        source = nifti.Source(plan.bundle.manifest, unit, kind, event.step, event.item, seed)
        file = nifti.encode(plan.box.paste(image.numpy(), background), source)
        if kind != vis.VOLUME_KIND_INTERMEDIATE:
            self._digests[file.begin.id] = file.begin.sha256
        return file

    def finished(self) -> vis.Completed:
        """Return the last event, with its provenance."""
        plan, model = self._plan, self._model
        software = {name: version(name) for name in _SOFTWARE}
        software |= {"neurofv": __version__, "python": platform.python_version()}
        provenance = vis.Provenance(
            model=plan.bundle.manifest.name,
            version=plan.bundle.manifest.version,
            model_digest=plan.bundle.digest,
            request=without_images(plan.request),
            volume_sha256=self._digests["final"],
            volumes=self._digests,
            software=software,
            device=str(model.device),
            threads=torch.get_num_threads(),
            synthetic=True,
            subject_sha256=plan.request.subject.sha256,
        )
        provenance.started.FromDatetime(self._started)
        provenance.finished.FromDatetime(datetime.now(UTC))
        self.completed.provenance.CopyFrom(provenance)
        return self.completed


def _progress(event: engine.Progress) -> vis.VisualizeResponse:
    progress = vis.Progress(
        step=event.step,
        steps=event.steps,
        objective=event.objective,
        regularizers=event.penalties,
        step_seconds=event.seconds,
        batch=[
            vis.ItemProgress(objective=item.objective, regularizers=item.penalties)
            for item in event.items[1:]
        ],
    )
    return vis.VisualizeResponse(progress=progress)
