"""Figures on a finished volume, beside those of real images."""

from collections.abc import Mapping

import numpy as np
import torch

import engine
from engine import evaluation as figures
from engine.paths import path_similarity
from neurofv.v1 import visualization_service_pb2 as vis
from service.jobs.images import LEAST_SAME
from service.jobs.plan import Plan
from service.real_images import quantiles
from service.worker.model import LoadedModel


def evaluate(
    plan: Plan, model: LoadedModel, result: engine.Result, whole: np.ndarray, first: np.ndarray | None
) -> vis.Evaluation:
    """Judge a volume as it is sent.

    Parameters
    ----------
    plan : Plan
        What was asked for.
    model : LoadedModel
        The model it was made for.
    result : engine.Result
        The volume on the canvas.
    whole : ndarray, (X, Y, Z)
        The same on the whole grid.
    first : ndarray or None, (X, Y, Z)
        The first sample of the same objective, if this is another one.

    Returns
    -------
    Evaluation
        Whole grid, no transform, where it does not say otherwise.
    """
    # A neuron's index belongs to the activation map of the canvas; on the whole grid it is planned anew.
    objective = model.with_targets(plan, plan.whole_grid_objectives()[result.item])
    volume = torch.from_numpy(whole)
    said = figures.answers(model.network, objective, volume.to(model.device))
    readings = objective.read(said)
    found = vis.Evaluation(
        objective=float(objective.combine(readings)[0]),
        step=result.step,
        stop_reason=f"STOP_REASON_{result.stopped.name}",
        redirected_steps=result.redirected_steps,
        recomputed=result.recomputed,
    )
    _judge_image(found, plan, model, result, volume)
    held_out = _held_out(plan, model, result)
    for term, reading, held in zip(objective.terms, readings[:, 0].tolist(), held_out, strict=True):
        found.terms.append(_judge_term(plan, model, term, reading, said, held))
    if first is not None:
        home = torch.from_numpy(model.home(plan))
        found.agreement = figures.agreement(volume - home, torch.from_numpy(first) - home)[0]
    if driven := plan.driven_class(result.item):
        _compare_paths(found, plan, model, volume, driven)
    return found


def transfer(plan: Plan, item: int, other: LoadedModel, whole: np.ndarray) -> vis.Transfer:
    """Ask a second model what it sees in a volume.

    Parameters
    ----------
    plan : Plan
        What was asked for.
    item : int
        Which volume of the batch it is.
    other : LoadedModel
        The second model.
    whole : ndarray, (X, Y, Z)
        The volume on the whole grid, model units.

    Returns
    -------
    Transfer
        The class it names, and the probability of the class that was driven.
    """
    manifest = other.bundle.manifest
    logits = other.logits(whole)
    probabilities = logits.softmax(0).tolist()
    named = manifest.classes[int(logits.argmax())]
    found = vis.Transfer(model=manifest.name, version=manifest.version, class_name=named)
    if driven := plan.driven_class(item):
        found.same = named == driven
        if driven in manifest.classes:
            found.probability = probabilities[manifest.classes.index(driven)]
    return found


def _judge_image(
    found: vis.Evaluation, plan: Plan, model: LoadedModel, result: engine.Result, volume: torch.Tensor
) -> None:
    """Fill in what concerns the image alone."""
    space, prior = plan.bundle.manifest.input, plan.bundle.prior()
    grid = engine.Grid(space.shape, space.voxel_size_mm)
    found.spectrum_distance = figures.spectrum_distance(volume, prior.magnitude(), grid)
    mask = torch.from_numpy(plan.box.cut(prior.mask().numpy()).copy())
    among = mask if mask.any() else None
    found.saturated_share = figures.saturated_share(result.image, space.intensity_range, among)
    found.total_variation = figures.total_variation(result.image, plan.spec.grid)
    jacobian = result.extras.get("jacobian")
    if jacobian is not None:
        found.smallest_jacobian, found.largest_jacobian = float(jacobian.min()), float(jacobian.max())


def _held_out(plan: Plan, model: LoadedModel, result: engine.Result) -> list[vis.HeldOut]:
    """Read each term on the canvas, as it is and under held-out transforms."""
    objective = model.with_targets(plan, plan.spec.items[result.item].objective, plan.box)
    image = result.image.to(model.device)
    plain = figures.readings(model.network, objective, image[None, None])[:, 0]
    moved = figures.held_out(model.network, objective, image, plan.spec.grid, plan.spec.intensity_range)
    return [
        vis.HeldOut(activation=float(alone), mean=float(row.mean()), p5=float(row.quantile(0.05)))
        for alone, row in zip(plain, moved, strict=True)
    ]


def _judge_term(
    plan: Plan,
    model: LoadedModel,
    term: engine.Term,
    activation: float,
    said: Mapping[str, torch.Tensor],
    held_out: vis.HeldOut,
) -> vis.TermEvaluation:
    """Place an activation among those of real held-out images, as far as the bundle knows them."""
    unit = term.unit
    found = vis.TermEvaluation(unit=str(unit), activation=activation, held_out=held_out)
    if isinstance(unit, engine.Channel):
        _rank(found, model, unit, said[unit.layer])
    # The prior is of the model as it is: of a control nothing is known.
    known = quantiles(plan.bundle.prior(), unit) if model.trained is None else None
    if known is None:
        return found
    values, levels = known
    # Of equal quantiles the lowest level counts: the share of images that lie below.
    distinct, first = np.unique(values, return_index=True)
    found.percentile = float(np.interp(activation, distinct, levels[first], right=1.0))
    found.real_p95 = float(np.interp(0.95, levels, values))
    found.real_maximum = float(values[-1])
    if found.real_maximum > 0:
        found.ratio_to_best = activation / found.real_maximum
    if isinstance(unit, engine.ClassLogit):
        # A logit is held against the images of its own class: the others hardly reach it.
        manifest = plan.bundle.manifest
        known_classes = manifest.evaluation.logit_quantiles if manifest.evaluation else {}
        own = known_classes.get(manifest.classes[unit.channel])
        found.real_p95 = own["0.95"] if own else found.real_p95
    return found


def _rank(found: vis.TermEvaluation, model: LoadedModel, unit: engine.Channel, said: torch.Tensor) -> None:
    """Rank a unit among those of its layer, each counted in spreads where they are known."""
    readings = figures.channel_readings(unit, said)
    found.layer_units = len(readings)
    ends = model.ends(unit)
    low, high = (None, None) if ends is None else torch.from_numpy(ends).to(readings)
    found.selectivity_rank = figures.selectivity(readings, low, high, unit.channel)


def _compare_paths(
    found: vis.Evaluation, plan: Plan, model: LoadedModel, volume: torch.Tensor, driven: str
) -> None:
    """Compare the activations with those of real images of the class that was driven, layer by layer."""
    same, other = (
        [torch.from_numpy(image).to(model.device) for image in group] for group in plan.images.groups(driven)
    )
    if len(same) < LEAST_SAME or not other:
        return
    layers = [layer.name for layer in plan.bundle.layers()]
    similar = path_similarity(model.network, layers, volume.to(model.device), same, other)
    for layer in layers:
        if layer in similar:
            found.path.add(layer=layer, similarity=similar[layer])
