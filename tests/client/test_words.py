from __future__ import annotations

import pytest
from google.protobuf import text_format

from neurofv.v1 import method_pb2 as method
from neurofv.v1 import visualization_service_pb2 as vis
from neurofv.words import control_name, describe, objective_name, unit_name, verdicts


def term(text: str) -> method.ObjectiveTerm:
    return text_format.Parse(text, method.ObjectiveTerm())


CUBE = term('class_logit { class_name: "cube" }')
CHANNEL = term('channel { layer: "blocks.2.conv" channel: 5 }')
NEURON = term('neuron { layer: "pool" }')
SILENCED = term('channel { layer: "blocks.2.conv" channel: 5 } sense: SENSE_MINIMIZE')
LAYER = term('whole_layer { layer: "pool" }')
DOT = term('direction { layer: "pool" weights: 1 measure: MEASURE_DOT }')
COSINE = term('direction { layer: "pool" weights: 1 measure: MEASURE_COSINE }')
INVERSION = term('subject_activations { layer: "pool" comparison: COMPARISON_INVERSION }')
CARICATURE = term('subject_activations { layer: "pool" comparison: COMPARISON_CARICATURE }')


@pytest.mark.parametrize(
    ("term", "percentile", "words"),
    [
        (
            CHANNEL,
            0.9876,
            "higher than on 98.7 % of real held-out images (95 % of them stay below 8.00)",
        ),
        (CUBE, 0.9999, "higher than on 99.9 %"),
        (CUBE, 1.0, "higher than on every real held-out image (95 % of those of class cube stay below 8.00)"),
        (CUBE, 0.0, "lower than on every real"),
        (NEURON, 0.5, "higher than at the channel's best position on 50 % of real held-out images"),
        (SILENCED, 0.25, "lower than on 75 % of real held-out images"),
    ],
)
def test_activations_in_plain_language(term: method.ObjectiveTerm, percentile: float, words: str) -> None:
    said = describe(term, vis.TermEvaluation(activation=12.5, percentile=percentile, real_p95=8))
    assert said.startswith("activation 12.50, ")
    assert words in said


@pytest.mark.parametrize(
    ("term", "activation", "words"),
    [
        (LAYER, 3.0, "mean squared activation 3.00"),
        (DOT, 3.0, "activation 3.00 along the direction"),
        (COSINE, 0.5, "cosine 0.50 (1 is the direction itself)"),
        (INVERSION, -0.125, "differs from the subject's activations by 12 % of their square"),
        (CARICATURE, 2.5, "scores 2.50 against the subject's activations; the subject itself scores 1"),
    ],
)
def test_what_has_no_real_images_to_compare_with_says_what_it_is(
    term: method.ObjectiveTerm, activation: float, words: str
) -> None:
    assert describe(term, vis.TermEvaluation(activation=activation)) == words


def test_what_the_bundle_does_not_know_is_not_claimed() -> None:
    assert describe(CUBE, vis.TermEvaluation(activation=1)).endswith("does not say how real images compare")
    assert "95 %" not in describe(CUBE, vis.TermEvaluation(activation=1, percentile=0.5))


def test_names_of_units() -> None:
    assert unit_name(CHANNEL) == "blocks.2.conv:5"
    assert unit_name(NEURON) == "pool:0"
    assert [unit_name(each) for each in (LAYER, DOT, INVERSION, CARICATURE)] == [
        *("pool (whole layer)", "pool (direction)", "pool (inversion)", "pool (caricature)")
    ]


def test_names_of_objectives() -> None:
    rival = term('class_logit { class_name: "none" } sense: SENSE_MINIMIZE')
    assert objective_name(method.Objective(terms=[CUBE])) == "cube"
    assert objective_name(method.Objective(terms=[SILENCED])) == "blocks.2.conv:5, minimized"
    assert objective_name(method.Objective(terms=[CUBE, rival])) == "cube against 1 other"
    assert objective_name(method.Objective(terms=[CUBE, rival, rival])) == "cube against 2 others"
    assert (
        objective_name(method.Objective(terms=[CHANNEL, SILENCED, LAYER]))
        == "blocks.2.conv:5 and 2 more terms"
    )


def judged(terms: list[method.ObjectiveTerm], figures: str = "", subject: str = "") -> list[str]:
    """Verdicts on an evaluation, given as text; each term has figures of its own, in it."""
    request = vis.VisualizeRequest(objective=method.Objective(terms=terms), steps=128, samples=1)
    request.subject.sha256 = subject
    return verdicts(text_format.Parse(figures, vis.Evaluation()), request)


def test_of_what_is_not_there_nothing_is_said() -> None:
    assert judged([CUBE], "stop_reason: STOP_REASON_STEPS terms { activation: 3 percentile: 1 }") == []


@pytest.mark.parametrize(
    ("unit", "held", "words"),
    [
        (CUBE, "activation: 10 mean: 8.3 p5: 4", "keeps 83 % of its activation under shifts up to 6 mm"),
        (CUBE, "activation: 10 mean: 8.3 p5: 4", "in the worst 5 % of cases at most 40 %"),
        (CUBE, "activation: 10 mean: -1 p5: -4", "keeps nothing of its activation (-1.00 against 10.00)"),
        # A share of what is below 0 would say the opposite.
        (CUBE, "activation: -2 mean: -4 p5: -6", "its activation is -4.00 on average; at rest it is -2.00"),
        (SILENCED, "activation: -10 mean: -9 p5: -12", "keeps 90 % of its activation"),
        (SILENCED, "activation: 2 mean: 3 p5: 1", "its activation is 3.00 on average; at rest it is 2.00"),
    ],
)
def test_robustness(unit: method.ObjectiveTerm, held: str, words: str) -> None:
    (line,) = judged([unit], f"terms {{ held_out {{ {held} }} }}")
    assert words in line
    assert ("worst" in line) == (unit is CUBE and "at most" in line)


def test_a_target_that_does_not_move_along_says_nothing_on_robustness() -> None:
    assert judged([INVERSION], "terms { held_out { activation: -0.1 mean: -0.5 p5: -0.6 } }") == []


@pytest.mark.parametrize(
    ("unit", "rank", "words"),
    [
        (CHANNEL, 1, "the strongest of the 64 channels of its layer on this volume"),
        (CHANNEL, 3, "rank 3 of the 64 channels of its layer on this volume, 1 being the strongest"),
        (SILENCED, 64, "the weakest of the 64 channels of its layer on this volume"),
        (CUBE, 1, "the strongest of the 64 classes on this volume"),
    ],
)
def test_selectivity(unit: method.ObjectiveTerm, rank: int, words: str) -> None:
    assert judged([unit], f"terms {{ selectivity_rank: {rank} layer_units: 64 }}") == [words]
    assert judged([unit], "terms { selectivity_rank: 1 layer_units: 1 }") == []


def test_the_best_real_image_is_the_measure_of_what_is_to_fire() -> None:
    figures = "terms { real_maximum: 5 ratio_to_best: 2.5 }"
    assert judged([CUBE], figures) == ["2.50 times the highest activation on a real held-out image (5.00)"]
    assert judged([SILENCED], figures) == []
    assert judged([CUBE], "terms { real_maximum: 5 ratio_to_best: -0.5 }") == []


def test_in_a_sum_each_line_names_its_unit_and_rivals_are_left_out() -> None:
    rank = "terms { selectivity_rank: 1 layer_units: 8 } "
    lines = judged([CUBE, CHANNEL, SILENCED], rank * 3)
    assert [line.partition(": ")[0] for line in lines] == ["cube", "blocks.2.conv:5"]


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ("spectrum_distance: 0.30103", "0.30 decades from that of real brains: typically, frequencies"),
        ("spectrum_distance: 0.30103", "off by a factor of 2.0"),
        ("saturated_share: 0.034", "3.4 % of the brain in the box lies at an intensity bound"),
        ("smallest_jacobian: 0.5 largest_jacobian: 2", "shrinks to 0.50 and grows to 2.00"),
        ("smallest_jacobian: -0.5 largest_jacobian: 2", "folds"),
        ("agreement: 0.75", "agrees with the first sample at r = 0.75"),
        ("stop_reason: STOP_REASON_PLATEAU step: 40", "no gain any more; the volume is that of step 40"),
        ("stop_reason: STOP_REASON_ACTIVATION step: 40", "reached the activation asked for"),
        ("stop_reason: STOP_REASON_TIME step: 40", "ran out of time"),
        ("stop_reason: STOP_REASON_DEAD redirected_steps: 9", "it is its start"),
        ("redirected_steps: 9", "on 9 of 128 steps the unit was dead"),
        (
            'transfer { model: "m" version: 2 class_name: "cube" probability: 0.75 same: true }',
            "m/2 sees cube too, at a probability of 0.75 for cube",
        ),
        (
            'transfer { model: "m" version: 2 class_name: "none" probability: 0.25 }',
            "m/2 sees none instead, at a probability of 0.25 for cube",
        ),
        ('transfer { model: "m" version: 2 class_name: "blob" }', "names it blob; it knows no class cube"),
        (
            'path { layer: "a" similarity: 0.5 } path { layer: "b" similarity: 0.25 }',
            "real images of class cube as 0.38, on average over 2 layers, at worst 0.25 at b",
        ),
    ],
)
def test_other_figures(figures: str, words: str) -> None:
    (line,) = judged([CUBE], figures)
    assert words in line


def test_a_volume_that_comes_from_a_person_says_so() -> None:
    (line,) = judged([CUBE], subject="abc")
    assert "derived from a person's image" in line


def test_an_item_of_a_batch_is_judged_by_its_own_objective() -> None:
    request = vis.VisualizeRequest(objective=method.Objective(terms=[CUBE]), samples=2)
    request.batch.add(terms=[CHANNEL])
    evaluation = vis.Evaluation(terms=[vis.TermEvaluation(selectivity_rank=1, layer_units=8)])
    said = [verdicts(evaluation, request, item)[0].split()[5] for item in range(4)]
    assert said == ["classes", "classes", "channels", "channels"]


def test_a_control_says_that_nothing_was_learned() -> None:
    control = text_format.Parse("control { random_weights { seed: 2 } }", vis.VisualizeRequest())
    assert control_name(control) == "random weights, seed 2"
    assert control_name(vis.VisualizeRequest()) == ""
    said = verdicts(vis.Evaluation(), control)
    assert said[0] == "a control (random weights, seed 2): nothing that it shows was learned"
    said = describe(CUBE, vis.TermEvaluation(activation=2), control=True)
    assert said == "activation 2.00; a control is not compared with real images"
