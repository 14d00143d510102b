from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from neurofv import InvalidRequest, build_request
from neurofv.v1 import method_pb2 as method


def objective(text: str) -> method.Objective:
    return text_format.Parse(text, method.Objective())


SUM = objective(
    'terms { channel { layer: "a" } weight: 2 } terms { channel { layer: "b" } sense: SENSE_MINIMIZE }'
)


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ({"class_name": "cube"}, 'class_logit { class_name: "cube" }'),
        ({"class_name": "cube", "contrast": True}, 'class_logit { class_name: "cube" contrast: true }'),
        (
            {"class_name": "cube", "minimize": True},
            'class_logit { class_name: "cube" } sense: SENSE_MINIMIZE',
        ),
        ({"class_name": "cube", "minimize": False, "layer": None}, 'class_logit { class_name: "cube" }'),
        ({"layer": "blocks.0.conv", "channel": 0}, 'channel { layer: "blocks.0.conv" }'),
        (
            {"layer": "a", "channel": np.int64(2), "voxel": (1, 0, 3)},
            'neuron { layer: "a" channel: 2 voxel { i: 1 k: 3 } }',
        ),
        (
            {"layer": "a", "channel": 2, "position_mm": np.array([-1.5, 0, 3])},
            'neuron { layer: "a" channel: 2 point_mm { x: -1.5 z: 3 } }',
        ),
        ({"layer": "a", "whole_layer": True}, 'whole_layer { layer: "a" }'),
        ({"layer": "a", "direction": [1, -0.5]}, 'direction { layer: "a" weights: [1, -0.5] }'),
        (
            {"layer": "a", "direction": np.array([0, 2]), "measure": "cosine", "voxel": (1, 2, 3)},
            'direction { layer: "a" weights: [0, 2] measure: MEASURE_COSINE voxel { i: 1 j: 2 k: 3 } }',
        ),
        (
            {"layer": "a", "compare": "caricature", "subject": b"x"},
            'subject_activations { layer: "a" comparison: COMPARISON_CARICATURE }',
        ),
    ],
)
def test_each_way_to_name_a_unit(choices: dict[str, Any], text: str) -> None:
    request = build_request("m", **choices)
    assert request.objective == objective(f"terms {{ {text} }}")
    assert not request.batch


def test_units_can_be_read_behind_nonlinearities() -> None:
    request = build_request("m", layer="a", channel=[1, 2], behind_nonlinearities=True)
    assert request.objective.behind_nonlinearities
    assert request.batch[0].behind_nonlinearities


@pytest.mark.parametrize(
    ("choices", "texts"),
    [
        (
            {"class_name": ["cube", "torus"], "contrast": True},
            [f'class_logit {{ class_name: "{name}" contrast: true }}' for name in ("cube", "torus")],
        ),
        (
            {"layer": "a", "channel": range(3), "minimize": True},
            [f'channel {{ layer: "a" channel: {n} }} sense: SENSE_MINIMIZE' for n in range(3)],
        ),
        (
            {"layer": "a", "channel": np.array([4, 2]), "position_mm": (1, 2, 3)},
            [f'neuron {{ layer: "a" channel: {n} point_mm {{ x: 1 y: 2 z: 3 }} }}' for n in (4, 2)],
        ),
    ],
)
def test_several_units_make_a_batch(choices: dict[str, Any], texts: list[str]) -> None:
    request = build_request("m", **choices)
    assert [request.objective, *request.batch] == [objective(f"terms {{ {text} }}") for text in texts]


def test_ready_made_objectives_are_taken_as_they_are() -> None:
    assert build_request("m", objective=SUM).objective == SUM
    several = build_request("m", objective=[SUM, objective('terms { channel { layer: "a" channel: 1 } }')])
    assert several.objective == SUM
    assert several.batch[0].terms[0].channel.channel == 1


@pytest.mark.parametrize(
    ("choices", "field", "words"),
    [
        ({}, "class_name", "a class, or a layer and a channel"),
        ({"layer": "a"}, "channel", "'a'"),
        ({"class_name": "cube", "layer": "a"}, "layer", "leave it out"),
        ({"class_name": "cube", "voxel": (1, 2, 3)}, "voxel", "leave it out"),
        ({"class_name": []}, "class_name", "at least one"),
        ({"class_name": [3]}, "class_logit.class_name", "give a text"),
        ({"layer": "a", "channel": 1, "voxel": (1, 2, 3), "position_mm": (1, 2, 3)}, "voxel", "position_mm"),
        ({"layer": "a", "channel": 1, "voxel": (1, 2)}, "voxel", "three numbers"),
        ({"layer": "a", "channel": 1, "voxel": (1.5, 2, 3)}, "voxel.i", "integer"),
        ({"layer": "a", "channel": 1, "position_mm": "abc"}, "position_mm", "three numbers"),
        ({"layer": "a", "channel": 1, "contrast": True}, "contrast", "class_name"),
        ({"contrast": True}, "contrast", "class_name"),
        ({"layer": "a", "channel": 1, "measure": "dot"}, "measure", "leave it out"),
        ({"layer": "a", "channel": 1, "whole_layer": True}, "channel", "whole_layer names the unit already"),
        ({"whole_layer": True}, "layer", "whole_layer"),
        ({"direction": [1]}, "layer", "direction"),
        ({"channel": 1}, "layer", "channel"),
        ({"layer": "a", "direction": 1}, "direction", "one number for each channel"),
        ({"layer": "a", "direction": ["x"]}, "direction", "one number for each channel"),
        ({"layer": "a", "direction": [1], "measure": "angle"}, "measure", "dot, cosine"),
        ({"layer": "a", "compare": "copy"}, "compare", "inversion, caricature"),
        ({"objective": SUM, "minimize": True}, "minimize", "set it in the objective"),
        ({"objective": "cube"}, "objective", "method_pb2.Objective"),
        ({"objective": []}, "objective", "at least one"),
    ],
)
def test_what_is_not_clear_is_refused(choices: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        build_request("m", **choices)
    assert caught.value.field == field
    assert words in str(caught.value)
