from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from neurofv import InvalidRequest, build_request
from neurofv.requests import kinds
from neurofv.v1 import method_pb2 as method
from neurofv.v1 import visualization_service_pb2 as vis

CLASSES = ("none", "sphere", "cube")


def expect(text: str) -> vis.VisualizeRequest:
    return text_format.Parse('model: "m" ' + text, vis.VisualizeRequest())


CUBE = 'objective { terms { class_logit { class_name: "cube" } } } '


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ({"class_name": "cube"}, CUBE),
        (
            {"layer": "blocks.0.conv", "channel": 0},
            'objective { terms { channel { layer: "blocks.0.conv" } } }',
        ),
        (
            {"layer": "a", "channel": np.int64(2), "voxel": (1, 0, 3)},
            'objective { terms { neuron { layer: "a" channel: 2 voxel { i: 1 k: 3 } } } }',
        ),
        (
            {"layer": "a", "channel": 2, "position_mm": np.array([-1.5, 0, 3])},
            'objective { terms { neuron { layer: "a" channel: 2 point_mm { x: -1.5 z: 3 } } } }',
        ),
    ],
)
def test_units(choices: dict[str, Any], text: str) -> None:
    assert build_request("m", **choices) == expect(text)


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        (
            {"version": 2, "seed": 0, "steps": 5, "snapshot_every": 0},
            "version: 2 seed: 0 steps: 5 snapshot_every: 0",
        ),
        ({"seed": None, "canvas_mm": None, "regularizers": None}, ""),
        ({"canvas_mm": 80}, "canvas { size_mm { i: 80 j: 80 k: 80 } }"),
        ({"canvas_mm": (80, 0, 40.5)}, "canvas { size_mm { i: 80 k: 40.5 } }"),
        ({"center_mm": [0, 0, 0]}, "canvas { center_mm {} }"),
        ({"transforms": {"jitter_mm": 0, "scale": 0.1}}, "transforms { jitter_mm: 0 scale: 0.1 }"),
        ({"transforms": {}}, "transforms {}"),
        ({"regularizers": []}, "regularization {}"),
        ({"regularizers": {}}, "regularization {}"),
        (
            {"regularizers": {"total_variation": {"weight": 0.5}, "gaussian_blur": 4}},
            "regularization { regularizers { total_variation { weight: 0.5 } }"
            " regularizers { gaussian_blur { fwhm_mm: 4 } } }",
        ),
        ({"regularizers": {"l2": {}}}, "regularization { regularizers { l2 {} } }"),
        ({"parameterization": "voxels"}, "parameterization { voxels {} }"),
        ({"parameterization": {"fourier": {"decay": 1}}}, "parameterization { fourier { decay: 1 } }"),
        ({"start": "reference_brain"}, "start { reference_brain {} }"),
        ({"start": {"noise": 0.1}}, "start { noise { deviation: 0.1 } }"),
        ({"optimizer": {"adam": 0.1}}, "optimizer { adam { learning_rate: 0.1 } }"),
        ({"optimizer": "nadam"}, "optimizer { nadam {} }"),
        ({"optimizer": {"sgd": {"momentum": 0.5}}}, "optimizer { sgd { momentum: 0.5 } }"),
        ({"schedule": "cosine"}, "optimizer { schedule: SCHEDULE_COSINE }"),
    ],
)
def test_method(choices: dict[str, Any], text: str) -> None:
    built = build_request("m", class_name="cube", **choices)
    assert built == expect(CUBE + text)
    # Equality does not tell an empty message from an absent one.
    assert [field.name for field, _ in built.ListFields()] == [
        field.name for field, _ in expect(CUBE + text).ListFields()
    ]


def test_contrast_sets_the_class_against_the_mean_of_the_others() -> None:
    terms = build_request("m", CLASSES, class_name="cube", contrast=True).objective.terms
    assert [term.class_logit.class_name for term in terms] == ["cube", "none", "sphere"]
    assert [term.sense for term in terms] == [
        method.SENSE_UNSPECIFIED,
        method.SENSE_MINIMIZE,
        method.SENSE_MINIMIZE,
    ]
    assert not terms[0].HasField("weight")
    assert [term.weight for term in terms[1:]] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("choices", "field", "words"),
    [
        ({}, "class_name", "a class, or a layer and a channel"),
        ({"layer": "a"}, "channel", "'a'"),
        ({"class_name": "cube", "layer": "a"}, "layer", "leave it out"),
        ({"class_name": "cube", "voxel": (1, 2, 3)}, "voxel", "leave it out"),
        ({"layer": "a", "channel": 1, "voxel": (1, 2, 3), "position_mm": (1, 2, 3)}, "voxel", "position_mm"),
        ({"layer": "a", "channel": 1, "voxel": (1, 2)}, "voxel", "three numbers"),
        ({"layer": "a", "channel": 1, "voxel": (1.5, 2, 3)}, "voxel.i", "integer"),
        ({"layer": "a", "channel": 1, "position_mm": "abc"}, "position_mm", "three numbers"),
        ({"layer": "a", "channel": 1, "contrast": True}, "contrast", "class_name"),
        ({"class_name": "blob", "contrast": True}, "class_name", "none, sphere, cube"),
        ({"class_name": "cube", "steps": 1.5}, "request.steps", "integer"),
        ({"class_name": "cube", "seed": 2**70}, "request.seed", "range"),
        ({"class_name": "cube", "canvas_mm": "big"}, "canvas_mm", "one for all axes"),
        (
            {"class_name": "cube", "regularizers": {"tv": 1}},
            "regularizers",
            "l1, l2, total_variation, gaussian_blur",
        ),
        ({"class_name": "cube", "regularizers": {"l1": {"wieght": 1}}}, "regularizers.l1.wieght", "weight"),
        ({"class_name": "cube", "regularizers": {"l1": "x"}}, "regularizers.l1.weight", "real number"),
        ({"class_name": "cube", "regularizers": ["l1"]}, "regularizers", "by name"),
        ({"class_name": "cube", "regularizers": "l1"}, "regularizers", "by name"),
        ({"class_name": "cube", "transforms": 3}, "request.transforms", "jitter_mm, rotation_degrees, scale"),
        ({"class_name": "cube", "start": "brain"}, "start", "noise, reference_brain"),
        (
            {"class_name": "cube", "parameterization": {"voxels": {}, "fourier": {}}},
            "parameterization",
            "one of",
        ),
        ({"class_name": "cube", "stesp": 3}, "stesp", "steps"),
    ],
)
def test_errors_name_field_value_and_remedy(choices: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        build_request("m", CLASSES, **choices)
    assert caught.value.field == field
    assert words in str(caught.value)
    assert repr(caught.value.value) in str(caught.value)


def test_every_kind_of_the_contract_can_be_chosen() -> None:
    for name in kinds(method.Regularizer()):
        (built,) = build_request("m", class_name="c", regularizers={name: {}}).regularization.regularizers
        assert built.WhichOneof("kind") == name
    for name in kinds(method.Start()):
        assert build_request("m", class_name="c", start=name).start.WhichOneof("kind") == name
    for name in kinds(method.Parameterization()):
        built = build_request("m", class_name="c", parameterization=name)
        assert built.parameterization.WhichOneof("kind") == name


@given(st.floats())
def test_numbers_travel_unchanged_so_that_the_server_can_judge_them(weight: float) -> None:
    (built,) = build_request("m", class_name="c", regularizers={"l2": weight}).regularization.regularizers
    assert built.l2.weight == weight or (math.isnan(weight) and math.isnan(built.l2.weight))
