"""Results in plain language."""

import math
from collections.abc import Iterator

from neurofv.v1 import method_pb2 as method
from neurofv.v1 import visualization_service_pb2 as vis

_EARLY = {
    vis.STOP_REASON_PLATEAU: "brought no gain any more",
    vis.STOP_REASON_ACTIVATION: "reached the activation asked for",
    vis.STOP_REASON_TIME: "ran out of time",
}


def unit_name(term: method.ObjectiveTerm) -> str:
    """Return a unit's name for people: a class, `layer:channel`, or a layer and what is read of it."""
    match term.WhichOneof("unit"):
        case "class_logit":
            return term.class_logit.class_name
        case "neuron":
            return f"{term.neuron.layer}:{term.neuron.channel}"
        case "whole_layer":
            return f"{term.whole_layer.layer} (whole layer)"
        case "direction":
            return f"{term.direction.layer} (direction)"
        case "subject_activations":
            return f"{term.subject_activations.layer} ({_comparison(term)})"
        case _:
            return f"{term.channel.layer}:{term.channel.channel}"


def objective_name(objective: method.Objective) -> str:
    """Return an objective's name for people: its first unit, and what there is beside it."""
    first, *others = objective.terms
    name = unit_name(first)
    if first.sense == method.SENSE_MINIMIZE:
        name += ", minimized"
    if not others:
        return name
    classes = all(term.HasField("class_logit") for term in objective.terms)
    if classes and all(term.sense == method.SENSE_MINIMIZE for term in others):
        return f"{name} against {_counted(len(others), 'other')}"
    return f"{name} and {_counted(len(others), 'more term')}"


def control_name(request: vis.VisualizeRequest) -> str:
    """Name what was taken from the model, such as `random weights, seed 0`; empty if nothing was."""
    if not request.HasField("control"):
        return ""
    return f"random weights, seed {request.control.random_weights.seed}"


def describe(term: method.ObjectiveTerm, figures: vis.TermEvaluation, control: bool = False) -> str:
    """Say in plain language how strongly a unit fires on the final volume.

    Parameters
    ----------
    term : ObjectiveTerm
        The unit, from the request.
    figures : TermEvaluation
        Its figures, from the evaluation.
    control : bool
        Whether the request names a control.

    Returns
    -------
    str
        One phrase.
    """
    activation = figures.activation
    match term.WhichOneof("unit"):
        case "whole_layer":
            return f"mean squared activation {activation:.2f}"
        case "direction" if term.direction.measure == method.MEASURE_COSINE:
            return f"cosine {activation:.2f} (1 is the direction itself)"
        case "direction":
            return f"activation {activation:.2f} along the direction"
        case "subject_activations" if _comparison(term) == "caricature":
            return f"scores {activation:.2f} against the subject's activations; the subject itself scores 1"
        case "subject_activations":
            return f"differs from the subject's activations by {_percent(-activation)} of their square"
    text = f"activation {activation:.2f}"
    if control:
        return f"{text}; a control is not compared with real images"
    if not figures.HasField("percentile"):
        return f"{text}; the model's bundle does not say how real images compare"
    text = f"{text}, {_place(figures.percentile, term)}"
    if figures.HasField("real_p95"):
        # The rank is among all images, this figure among those of the class.
        images = f"those of class {unit_name(term)}" if term.HasField("class_logit") else "them"
        text += f" (95 % of {images} stay below {figures.real_p95:.2f})"
    return text


def verdicts(evaluation: vis.Evaluation, request: vis.VisualizeRequest, item: int = 0) -> list[str]:
    """Say in plain language what the other figures of an evaluation mean.

    Parameters
    ----------
    evaluation : Evaluation
        Of one volume.
    request : VisualizeRequest
        The resolved request that it answers.
    item : int
        Which volume of the request's batch was judged.

    Returns
    -------
    list of str
        One line for each figure that is there and says something about this volume.
    """
    objective = objective_of(request, item)
    lines = list(_on_the_run(evaluation, request))
    for index, (term, figures) in enumerate(zip(objective.terms, evaluation.terms, strict=False)):
        # Of what a term is set against nobody asks how strong it is.
        if index and term.sense == method.SENSE_MINIMIZE:
            continue
        name = f"{unit_name(term)}: " if len(objective.terms) > 1 else ""
        lines += [name + line for line in _on_a_term(term, figures)]
    lines += _on_the_image(evaluation)
    lines += _on_comparisons(evaluation, request, objective)
    if request.subject.sha256:
        lines.append("synthetic, yet derived from a person's image: keep it as you keep that image")
    return lines


def objective_of(request: vis.VisualizeRequest, item: int) -> method.Objective:
    """Return the objective of one volume of a request's batch."""
    group = item // max(request.samples, 1)
    return request.batch[group - 1] if group else request.objective


def seed_of(request: vis.VisualizeRequest, item: int) -> int:
    """Return the seed of one volume of a request's batch."""
    return int(request.seed) + item % max(request.samples, 1)


def _on_the_run(evaluation: vis.Evaluation, request: vis.VisualizeRequest) -> Iterator[str]:
    """Say what the network had learned, why the run ended, and whether the unit was dead on the way."""
    if control := control_name(request):
        yield f"a control ({control}): nothing that it shows was learned"
    if evaluation.stop_reason == vis.STOP_REASON_DEAD:
        yield "the unit had no gradient, and no remedy helped: the volume is no answer, it is its start"
        return
    if reason := _EARLY.get(evaluation.stop_reason):
        yield f"the run ended early, for it {reason}; the volume is that of step {evaluation.step}"
    if evaluation.redirected_steps:
        steps = f"{evaluation.redirected_steps} of {request.steps} steps"
        yield f"on {steps} the unit was dead, and its gradient was let through shut ReLUs"


def _on_a_term(term: method.ObjectiveTerm, figures: vis.TermEvaluation) -> Iterator[str]:
    """Compare a unit with real images, with its layer, and with itself on moved volumes."""
    silenced = term.sense == method.SENSE_MINIMIZE
    if figures.HasField("ratio_to_best") and not silenced and figures.ratio_to_best > 0:
        best = f"the highest activation on a real held-out image ({figures.real_maximum:.2f})"
        yield f"{figures.ratio_to_best:.2f} times {best}"
    if figures.HasField("selectivity_rank") and figures.layer_units > 1:
        yield _rank(figures.selectivity_rank, figures.layer_units, term)
    # The target of a comparison does not move along.
    if figures.HasField("held_out") and not term.HasField("subject_activations"):
        yield _robustness(figures.held_out, silenced)


def _rank(rank: int, units: int, term: method.ObjectiveTerm) -> str:
    among = f"{units} {'classes' if term.HasField('class_logit') else 'channels of its layer'}"
    if rank == 1:
        return f"the strongest of the {among} on this volume"
    if rank == units:
        return f"the weakest of the {among} on this volume"
    return f"rank {rank} of the {among} on this volume, 1 being the strongest"


def _robustness(held: vis.HeldOut, silenced: bool) -> str:
    moves = "under shifts up to 6 mm, turns up to 15 degrees and 10 % of size"
    # A share needs an activation of the sign that was asked for; what is driven below 0 may cross it.
    if held.activation == 0 or (held.activation < 0) != silenced:
        return f"{moves} its activation is {held.mean:.2f} on average; at rest it is {held.activation:.2f}"
    share = held.mean / held.activation
    if share <= 0:
        return f"{moves} it keeps nothing of its activation ({held.mean:.2f} against {held.activation:.2f})"
    # The 5th percentile is the bad end only of what is to fire.
    worst = "" if silenced else f", in the worst 5 % of cases at most {_percent(held.p5 / held.activation)}"
    return f"keeps {_percent(share)} of its activation {moves}{worst}"


def _on_the_image(evaluation: vis.Evaluation) -> Iterator[str]:
    """Say how far the image is from a plausible one."""
    if distance := evaluation.spectrum_distance:
        factor = f"frequencies are off by a factor of {10**distance:.1f}"
        yield f"spectrum {distance:.2f} decades from that of real brains: typically, {factor}"
    # Less is no finding.
    if evaluation.saturated_share >= 0.001:
        yield f"{_percent(evaluation.saturated_share)} of the brain in the box lies at an intensity bound"
    if evaluation.HasField("smallest_jacobian"):
        low, high = evaluation.smallest_jacobian, evaluation.largest_jacobian
        if low <= 0:
            yield f"the warp folds: its smallest Jacobian determinant is {low:.2f}; do not read it as anatomy"
        else:
            yield f"the warp does not fold: tissue shrinks to {low:.2f} and grows to {high:.2f} of its volume"


def _on_comparisons(
    evaluation: vis.Evaluation, request: vis.VisualizeRequest, objective: method.Objective
) -> Iterator[str]:
    """Say what other samples, another model and real images have to say."""
    if evaluation.HasField("agreement"):
        yield (
            f"agrees with the first sample at r = {evaluation.agreement:.2f}, after the shift that fits best "
            "(1: the same picture, 0: another one)"
        )
    if evaluation.HasField("transfer"):
        yield _transfer(evaluation.transfer, objective.terms[0])
    if path := evaluation.path:
        mean = math.fsum(layer.similarity for layer in path) / len(path)
        least = min(path, key=lambda layer: layer.similarity)
        of = f"real images of class {request.objective.terms[0].class_logit.class_name}"
        text = f"as similar to {of} as {mean:.2f}, on average over {_counted(len(path), 'layer')}, "
        text += f"at worst {least.similarity:.2f} at {least.layer}"
        yield f"activations {text} (1: as two of them are to each other, 0: as two of unlike classes)"


def _transfer(seen: vis.Transfer, term: method.ObjectiveTerm) -> str:
    other = f"{seen.model}/{seen.version}"
    if not term.HasField("class_logit"):
        return f"{other} names it {seen.class_name}"
    driven = term.class_logit.class_name
    if not seen.HasField("probability"):
        return f"{other} names it {seen.class_name}; it knows no class {driven}"
    probability = f"at a probability of {seen.probability:.2f} for {driven}"
    if seen.class_name == driven:
        return f"{other} sees {driven} too, {probability}"
    return f"{other} sees {seen.class_name} instead, {probability}"


def _place(share: float, term: method.ObjectiveTerm) -> str:
    # One position is held against the best one, for on an image the pattern may lie anywhere.
    than = "than at the channel's best position on" if term.HasField("neuron") else "than on"
    if share >= 1:
        return f"higher {than} every real held-out image"
    if share <= 0:
        return f"lower {than} every real held-out image"
    side = "higher"
    if term.sense == method.SENSE_MINIMIZE:
        side, share = "lower", 1 - share
    # Rounded down: 99.9 % is not all.
    return f"{side} {than} {math.floor(share * 1000) / 10:g} % of real held-out images"


def _comparison(term: method.ObjectiveTerm) -> str:
    caricature = term.subject_activations.comparison == method.COMPARISON_CARICATURE
    return "caricature" if caricature else "inversion"


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f} %" if abs(percent) >= 9.95 else f"{percent:.1f} %"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count > 1 else ''}"
