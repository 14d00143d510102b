"""Jobs that share a batch, from their plans to the events that describe them."""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version

import numpy as np
import torch

import engine
from neurofv.v1 import visualization_service_pb2 as vis
from service import __version__
from service.errors import DeadUnit
from service.failpoints import failpoint
from service.jobs.images import without_images
from service.jobs.plan import Plan
from service.settings import Settings
from service.volumes import nifti
from service.worker.checkpoint import Checkpoint
from service.worker.evaluation import evaluate, transfer
from service.worker.memory import free_bytes
from service.worker.model import LoadedModel

_SOFTWARE = ("torch", "numpy", "nibabel", "grpcio", "protobuf", "safetensors", "scipy")
_EXTRAS = {
    "gradient": vis.VOLUME_KIND_GRADIENT,
    "jacobian": vis.VOLUME_KIND_JACOBIAN,
    "opacity": vis.VOLUME_KIND_OPACITY,
}


# A snapshot is written while the next step is computed: what makes it stands for it.
Event = vis.VisualizeResponse | nifti.VolumeFile | Callable[[], nifti.VolumeFile]


@dataclass(frozen=True)
class Stopped:
    """A job was stopped, as asked."""


@dataclass(frozen=True)
class Paused:
    """A job was stopped, as asked, to go on later."""


def _never() -> bool:
    return False


def run(
    plans: Sequence[Plan],
    model: LoadedModel,
    settings: Settings,
    other: LoadedModel | None,
    should_stop: Sequence[Callable[[], bool]],
    *,
    pausing: Callable[[], bool] = _never,
    wants_checkpoint: Callable[[], bool] = _never,
    resume: Checkpoint | None = None,
) -> Iterator[tuple[int, Event | Checkpoint | Paused | Stopped | Exception]]:
    """Optimize jobs as one batch, and describe to each its steps, snapshots, results and their figures.

    Parameters
    ----------
    plans : sequence of Plan
        What to do: plans that differ in their volumes alone.
    model : LoadedModel
        The model that the plans name.
    settings : Settings
        The server's.
    other : LoadedModel or None
        The second model that a plan names, which then is the only one.
    should_stop : sequence of callable
        One for each plan, asked before and after every step.
    pausing : callable
        Whether all are to be put off: with a checkpoint at the next step, without one behind the last.
    wants_checkpoint : callable
        Asked after every step but the last: whether each job is to have a checkpoint now.
    resume : Checkpoint, optional
        Where the only plan goes on.

    Yields
    ------
    int, and VisualizeResponse, VolumeFile or what makes one, Checkpoint, Paused, Stopped or Exception
        A plan's number, and what there is to say of it. Last comes `completed`, `Stopped`, `Paused`, or what
        failed in its own results alone, such as `DeadUnit`.

    Raises
    ------
    Exception
        What fails in the optimization, of whichever plan.
    """
    jobs = _jobs(plans, model, other, resume)
    open_jobs = dict(enumerate(jobs))
    for event in engine.visualize(
        model.network,
        _shared(plans[0], jobs, model, settings),
        lambda: all(should_stop[number]() for number in open_jobs),
        lambda: pausing() or wants_checkpoint(),
        resume.state if resume else None,
    ):
        if isinstance(event, engine.Result) and pausing():
            break
        for number, job in list(open_jobs.items()):
            if should_stop[number]():
                del open_jobs[number]
                yield number, Stopped()
                continue
            for told in job.hear(event):
                yield number, told
            if job.over:
                del open_jobs[number]
        if isinstance(event, engine.State) and pausing():
            break
    for number in open_jobs:
        yield number, Stopped() if should_stop[number]() else Paused()


def _jobs(
    plans: Sequence[Plan], model: LoadedModel, other: LoadedModel | None, resume: Checkpoint | None
) -> list["_Job"]:
    """Return the jobs of a batch, one behind the other."""
    assert resume is None or len(plans) == 1, "a job that goes on shares its batch with no other"
    jobs: list[_Job] = []
    for plan in plans:
        jobs.append(_Job(plan, model, other, sum((len(job.items) for job in jobs), 0)))
    if resume is not None:
        jobs[0].started = resume.started
    return jobs


def _shared(plan: Plan, jobs: Sequence["_Job"], model: LoadedModel, settings: Settings) -> engine.Spec:
    """Return what the engine is to do for all jobs."""
    first, *batch = [item for job in jobs for item in job.items]
    return replace(
        plan.spec,
        objective=first.objective,
        seed=first.seed,
        batch=tuple(batch),
        anatomy=model.anatomy(plan, settings),
        memory=settings.max_activation_bytes or free_bytes(model.device) * 3 // 4,
    )


class _Job:
    """One of the jobs of a batch, and what has come of it so far.

    Parameters
    ----------
    plan : Plan
        What was asked for.
    model, other : LoadedModel
        The model, and the second one if the plan names one.
    first : int
        Number of its first volume in the batch.

    Attributes
    ----------
    items : list of engine.Item
        Its volumes.
    started : datetime
        When it was begun.
    over : bool
        Whether no more comes of it.
    """

    def __init__(self, plan: Plan, model: LoadedModel, other: LoadedModel | None, first: int) -> None:
        self._plan, self._model, self._other = plan, model, other
        self.items = [
            engine.Item(model.with_targets(plan, item.objective, plan.box), item.seed)
            for item in plan.spec.items
        ]
        self._mine = slice(first, first + len(self.items))
        self._finished = False
        self._around = model.surroundings(plan)
        self.started = datetime.now(UTC)
        self._digests: dict[str, str] = {}
        self._first: dict[int, np.ndarray] = {}
        self._completed = vis.Completed()
        self.over = False

    def hear(self, event: engine.Event) -> Iterator[Event | Checkpoint | Exception]:
        """Describe an event of the batch as far as it concerns this job, as if it were alone."""
        try:
            if isinstance(event, engine.Progress):
                yield from self._step(replace(event, items=event.items[self._mine]))
            elif isinstance(event, engine.State):
                yield Checkpoint(replace(event, items=event.items[self._mine]), self.started)
            elif self._mine.start <= event.item < self._mine.stop:
                own = replace(event, item=event.item - self._mine.start)
                if isinstance(own, engine.Result):
                    yield from self._finish(own)
                else:
                    yield partial(self._file, own.image, vis.VOLUME_KIND_INTERMEDIATE, own)
        except Exception as error:
            # It is this job's own: the others are none the worse.
            self.over = True
            yield error

    def _step(self, event: engine.Progress) -> Iterator[Event]:
        if not self._finished:
            yield _progress(event)
        self._finished = all(item.stopped for item in event.items)
        if event.items[0].stopped is engine.Stop.DEAD and len(self.items) == 1:
            raise DeadUnit(str(self._plan.spec.objective.terms[0].unit))

    def _finish(self, result: engine.Result) -> Iterator[Event]:
        """Write a result's volumes and judge it; after the last, complete the job."""
        whole = self._plan.box.paste(result.image.numpy(), self._around)
        yield self._file(result.image, vis.VOLUME_KIND_FINAL, result)
        for name, extra in result.extras.items():
            yield self._file(extra, _EXTRAS[name], result)
        group = result.item // self._plan.request.samples
        first = self._first.setdefault(group, whole)
        failpoint("worker.before_result")
        alone = first is whole
        judged = evaluate(self._plan, self._model, result, whole, None if alone else first)
        if self._other is not None:
            judged.transfer.CopyFrom(transfer(self._plan, result.item, self._other, whole))
        if result.item == 0:
            self._completed.evaluation.CopyFrom(judged)
        else:
            self._completed.batch.append(judged)
        if result.item == len(self.items) - 1:
            self.over = True
            self._completed.provenance.CopyFrom(self._provenance())
            yield vis.VisualizeResponse(completed=self._completed)

    def _file(self, image: torch.Tensor, kind: "vis.VolumeKind", event: engine.Snapshot) -> nifti.VolumeFile:
        """Write a volume of the canvas on the model's grid."""
        plan = self._plan
        # Outside the canvas there was no gradient, no opacity and no change of size.
        around = {vis.VOLUME_KIND_GRADIENT: 0.0, vis.VOLUME_KIND_OPACITY: 0.0, vis.VOLUME_KIND_JACOBIAN: 1.0}
        background = np.full_like(self._around, around[kind]) if kind in around else self._around
        unit = str(plan.spec.items[event.item].objective.terms[0].unit)
        seed = plan.spec.items[event.item].seed if plan.request.samples > 1 else None
        source = nifti.Source(plan.bundle.manifest, unit, kind, event.step, event.item, seed, plan.control)
        file = nifti.encode(plan.box.paste(image.numpy(), background), source)
        if kind != vis.VOLUME_KIND_INTERMEDIATE:
            self._digests[file.begin.id] = file.begin.sha256
        return file

    def _provenance(self) -> vis.Provenance:
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
        provenance.started.FromDatetime(self.started)
        provenance.finished.FromDatetime(datetime.now(UTC))
        return provenance


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
