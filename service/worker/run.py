"""One job, from its plan to the events that describe it."""

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import torch
from torch import nn

import engine
from models import Bundle, Manifest, Prior
from neurofv.v1 import visualization_service_pb2 as vis
from service import __version__
from service.jobs.plan import Plan
from service.real_images import quantiles
from service.volumes import nifti

_SOFTWARE = ("torch", "numpy", "nibabel", "grpcio", "protobuf", "safetensors")


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to be optimized against.

    Attributes
    ----------
    bundle : Bundle
        What it is.
    network : nn.Module
        On the device.
    background : ndarray
        The reference brain on the model's grid, model units.
    """

    bundle: Bundle
    network: nn.Module
    background: np.ndarray

    @classmethod
    def load(cls, bundle: Bundle, device: torch.device) -> "LoadedModel":
        """Load a bundle's network and reference."""
        low, high = bundle.manifest.input.intensity_range
        background = np.clip(bundle.reference().get_fdata(dtype=np.float32), low, high)
        return cls(bundle, bundle.network().to(device), background)


def run(
    plan: Plan, model: LoadedModel, should_stop: Callable[[], bool]
) -> Iterator[vis.VisualizeResponse | nifti.VolumeFile]:
    """Optimize, and describe each step, each snapshot, the result and its figures.

    Parameters
    ----------
    plan : Plan
        What to do.
    model : LoadedModel
        The model that the plan names.
    should_stop : callable
        Asked before every step.

    Yields
    ------
    VisualizeResponse or VolumeFile
        Nothing after a stop; otherwise `completed` last.
    """
    started = datetime.now(UTC)
    spec = replace(
        plan.spec,
        reference=torch.from_numpy(plan.box.cut(model.background).copy()),
        window=torch.from_numpy(plan.box.window(plan.bundle.manifest.input)),
    )
    for event in engine.visualize(model.network, spec, should_stop):
        match event:
            case engine.Progress():
                yield _progress(event)
            case engine.Result():
                whole = plan.box.paste(event.image.numpy(), model.background)
                file = _file(plan, whole, vis.VOLUME_KIND_FINAL, event.step)
                yield file
                completed = vis.Completed(
                    evaluation=_evaluation(plan, model, whole),
                    provenance=_provenance(plan, model, file.begin.sha256, started),
                )
                yield vis.VisualizeResponse(completed=completed)
            case engine.Snapshot():
                whole = plan.box.paste(event.image.numpy(), model.background)
                yield _file(plan, whole, vis.VOLUME_KIND_INTERMEDIATE, event.step)


def _progress(event: engine.Progress) -> vis.VisualizeResponse:
    progress = vis.Progress(
        step=event.step,
        steps=event.steps,
        objective=event.objective,
        regularizers=event.penalties,
        step_seconds=event.seconds,
    )
    return vis.VisualizeResponse(progress=progress)


def _file(plan: Plan, whole: np.ndarray, kind: "vis.VolumeKind", step: int) -> nifti.VolumeFile:
    return nifti.encode(whole, plan.bundle.manifest, str(plan.spec.objective.terms[0].unit), kind, step)


def _evaluation(plan: Plan, model: LoadedModel, whole: np.ndarray) -> vis.Evaluation:
    """Read the objective on the volume as it is sent: whole grid, no transform.

    A neuron's index belongs to the activation map of the canvas; on the whole
    grid it is planned anew.
    """
    objective = plan.whole_grid_objective()
    value, activations = engine.evaluate(model.network, objective, torch.from_numpy(whole))
    evaluation = vis.Evaluation(objective=value)
    prior = plan.bundle.prior()
    for term, activation in zip(objective.terms, activations, strict=True):
        evaluation.terms.append(_against_real_images(plan.bundle.manifest, prior, term.unit, activation))
    return evaluation


def _against_real_images(
    manifest: Manifest, prior: Prior, unit: engine.Unit, activation: float
) -> vis.TermEvaluation:
    """Place an activation among those of real held-out images, as far as the bundle knows them."""
    found = vis.TermEvaluation(unit=str(unit), activation=activation)
    known = quantiles(prior, unit)
    if known is None:
        return found
    values, levels = known
    # Of equal quantiles the lowest level counts: the share of images that lie below.
    distinct, first = np.unique(values, return_index=True)
    found.percentile = float(np.interp(activation, distinct, levels[first], right=1.0))
    found.real_p95 = float(np.interp(0.95, levels, values))
    if isinstance(unit, engine.ClassLogit):
        # A logit is held against the images of its own class: the others hardly reach it.
        own = manifest.evaluation.logit_quantiles.get(manifest.classes[unit.channel])
        found.real_p95 = own["0.95"] if own else found.real_p95
    return found


def _provenance(plan: Plan, model: LoadedModel, digest: str, started: datetime) -> vis.Provenance:
    software = {name: version(name) for name in _SOFTWARE}
    software |= {"neurofv": __version__, "python": platform.python_version()}
    provenance = vis.Provenance(
        model=plan.bundle.manifest.name,
        version=plan.bundle.manifest.version,
        model_digest=plan.bundle.digest,
        request=plan.request,
        volume_sha256=digest,
        software=software,
        device=str(next(model.network.parameters()).device),
        threads=torch.get_num_threads(),
        synthetic=True,
    )
    provenance.started.FromDatetime(started)
    provenance.finished.FromDatetime(datetime.now(UTC))
    return provenance
