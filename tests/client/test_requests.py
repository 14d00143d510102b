from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from neurofv import InvalidRequest, build_request
from neurofv.fields import kinds
from neurofv.requests import split_model, volume_count
from neurofv.v1 import method_pb2 as method
from neurofv.v1 import visualization_service_pb2 as vis


def expect(text: str) -> vis.VisualizeRequest:
    return text_format.Parse('model: "m" ' + text, vis.VisualizeRequest())


CUBE = 'objective { terms { class_logit { class_name: "cube" } } } '


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
        (
            {"regularizers": {"diversity": 2}},
            "regularization { regularizers { diversity { weight: 2 } } }",
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
        ({"samples": 3}, "samples: 3"),
        ({"precision": "bfloat16"}, "precision: PRECISION_BFLOAT16"),
        (
            {"stopping": {"plateau_looks": 5, "activation": 12}},
            "stopping { plateau_looks: 5 activation: 12 }",
        ),
        ({"transforms": {"copies": 2, "flip": 0.5}}, "transforms { copies: 2 flip: 0.5 }"),
        (
            {"regularizers": {"feature_distance": {"layer": "blocks.2.conv", "weight": 1}}},
            'regularization { regularizers { feature_distance { layer: "blocks.2.conv" weight: 1 } } }',
        ),
        (
            {"parameterization": {"patch": {"size_mm": 24, "real": True}}},
            "parameterization { patch { size_mm: 24 real: true } }",
        ),
        ({"subject": b"abc", "start": "subject"}, 'subject { nifti: "abc" } start { subject {} }'),
        ({"transfer": "other/3"}, 'comparisons { transfer_model: "other" transfer_version: 3 }'),
        ({"transfer": "other"}, 'comparisons { transfer_model: "other" }'),
        (
            {"real_images": {"cube": [b"a", b"b"], "none": b"c"}},
            'comparisons { real_images { class_name: "cube" image { nifti: "a" } }'
            ' real_images { class_name: "cube" image { nifti: "b" } }'
            ' real_images { class_name: "none" image { nifti: "c" } } }',
        ),
    ],
)
def test_method(choices: dict[str, Any], text: str) -> None:
    built = build_request("m", class_name="cube", **choices)
    assert built == expect(CUBE + text)
    # Equality does not tell an empty message from an absent one.
    assert [field.name for field, _ in built.ListFields()] == [
        field.name for field, _ in expect(CUBE + text).ListFields()
    ]


@pytest.mark.parametrize(
    ("choices", "field", "words"),
    [
        ({"class_name": "cube", "steps": 1.5}, "request.steps", "integer"),
        ({"class_name": "cube", "seed": 2**70}, "request.seed", "range"),
        ({"class_name": "cube", "canvas_mm": "big"}, "canvas_mm", "one for all axes"),
        (
            {"class_name": "cube", "regularizers": {"tv": 1}},
            "regularizers",
            "l1, l2, total_variation, gaussian_blur, gradient_blur",
        ),
        ({"class_name": "cube", "regularizers": {"l1": {"wieght": 1}}}, "regularizers.l1.wieght", "weight"),
        ({"class_name": "cube", "regularizers": {"l1": "x"}}, "regularizers.l1.weight", "real number"),
        ({"class_name": "cube", "regularizers": {"diversity": "a"}}, "regularizers.diversity", "by name"),
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
        ({"class_name": "cube", "stopping": {"looks": 3}}, "request.stopping.looks", "plateau_looks"),
        ({"class_name": "cube", "transforms": {"copies": 1.5}}, "request.transforms.copies", "integer"),
        ({"class_name": "cube", "schedule": "wavy"}, "schedule", "constant, cosine"),
        ({"class_name": "cube", "precision": "double"}, "precision", "float32, bfloat16, float16"),
        ({"class_name": "cube", "transfer": "other/0"}, "transfer", "NAME/VERSION"),
        ({"class_name": "cube", "subject": 3}, "subject", "path of a NIfTI"),
        ({"class_name": "cube", "real_images": [b"a"]}, "real_images", "by class name"),
        ({"class_name": "cube", "real_images": {"cube": 3}}, "real_images", "path of a NIfTI"),
        (
            {"class_name": "cube", "regularizers": {"feature_distance": {"layer": 3}}},
            "regularizers.feature_distance.layer",
            "give a text",
        ),
        (
            {"class_name": "cube", "regularizers": {"intensity_clip": 1}},
            "regularizers.intensity_clip",
            "by name: low, high",
        ),
    ],
)
def test_errors_name_field_value_and_remedy(choices: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        build_request("m", **choices)
    assert caught.value.field == field
    assert words in str(caught.value)
    assert repr(caught.value.value) in str(caught.value)


def test_every_kind_of_the_contract_can_be_chosen() -> None:
    for name in kinds(method.Regularizer()):
        (built,) = build_request("m", class_name="c", regularizers={name: {}}).regularization.regularizers
        assert built.WhichOneof("kind") == name
    for name in kinds(method.Start()):
        assert build_request("m", class_name="c", start=name).start.WhichOneof("kind") == name
    for name in kinds(method.Optimizer()):
        built = build_request("m", class_name="c", optimizer=name)
        assert built.optimizer.WhichOneof("kind") == name
    for name in kinds(method.Parameterization()):
        built = build_request("m", class_name="c", parameterization=name)
        assert built.parameterization.WhichOneof("kind") == name


@given(st.floats())
def test_numbers_travel_unchanged_so_that_the_server_can_judge_them(weight: float) -> None:
    (built,) = build_request("m", class_name="c", regularizers={"l2": weight}).regularization.regularizers
    assert built.l2.weight == weight or (math.isnan(weight) and math.isnan(built.l2.weight))


def test_the_volumes_of_a_request_are_counted() -> None:
    assert volume_count(build_request("m", class_name="cube")) == 1
    assert volume_count(build_request("m", class_name=["a", "b", "c"], samples=4)) == 12


def test_a_model_may_be_named_with_its_version() -> None:
    assert split_model("lesion-shapes", "model") == ("lesion-shapes", 0)
    assert split_model("lesion-shapes/12", "model") == ("lesion-shapes", 12)
    for wrong in ("", "/1", "a/", "a/b", "a/0", "a/-1"):
        with pytest.raises(InvalidRequest, match="NAME/VERSION"):
            split_model(wrong, "model")
