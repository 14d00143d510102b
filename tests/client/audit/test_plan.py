"""Plans: what is taken, and how it is said what is not."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from models import ZOO
from neurofv import InvalidRequest
from neurofv.audit.plan import read_plan, schema
from neurofv.audit.tasks import check_layers, find_tasks, find_units
from neurofv.audit.template import template
from neurofv.v1 import model_service_pb2 as pb

LEAST = {"audit": 1, "model": "growth", "units": [{"classes": "all"}]}
MODEL = pb.Model(
    name="growth",
    version=1,
    classes=["unchanged", "grown"],
    classifier_layer="classifier",
    layers=[
        pb.Layer(name="blocks.0.conv", type="Conv3d", channels=16, output_shape=[32, 22, 22]),
        pb.Layer(name="blocks.1.conv", type="Conv3d", channels=32, output_shape=[16, 11, 11]),
        pb.Layer(name="pool", type="AvgPool3d", channels=32, output_shape=[1, 1, 1]),
        pb.Layer(name="classifier", type="Linear", channels=2),
    ],
)


def test_defaults_are_filled_in_and_the_digest_is_of_the_content(tmp_path: Path) -> None:
    plan = read_plan(LEAST)
    assert plan.strategies == {"default": {}}
    assert plan.seeds == [0, 1]
    assert plan.random_weights
    assert not plan.paths
    written = tmp_path / "plan.yaml"
    written.write_text("# a comment\nunits: [{classes: all}]\nmodel: growth\naudit: 1\nseeds: [0, 1]\n")
    assert read_plan(written).sha256 == plan.sha256
    assert read_plan({**LEAST, "seeds": [0, 2]}).sha256 != plan.sha256


def changed(**fields: Any) -> dict[str, Any]:
    return {**LEAST, **fields}


@pytest.mark.parametrize(
    ("content", "field", "value", "remedy"),
    [
        ([], "plan", [], "audit init"),
        ({"audit": 1, "model": "growth"}, "units", None, "give a list"),
        (changed(audit=2), "audit", 2, "1"),
        (changed(model="A B"), "model", "A B", "NAME/VERSION"),
        (changed(units=[]), "units", [], "classes: all"),
        (changed(units=[{"layer": "x"}]), "units[0].channels", None, "top N by variance"),
        (
            changed(units=[{"layer": "x", "channels": "some"}]),
            "units[0].channels",
            "some",
            "top N by variance",
        ),
        (
            changed(units=[{"layer": "x", "channels": "top 3 by variance"}]),
            "units[0].channels",
            None,
            "images",
        ),
        (changed(units=[{"classes": "all", "layer": "x", "channels": [1]}]), "units[0]", None, "two entries"),
        (changed(seeds=[0, -1]), "seeds[1]", -1, "from 0"),
        (changed(seeds=[0, 0]), "seeds", [0, 0], "unlike"),
        (changed(step=3), "step", 3, "there are: audit, model"),
        (changed(strategies={"default": {"step": 3}}), "strategies.default.step", 3, "steps"),
        (changed(strategies={"default": {"seed": 3}}), "strategies.default.seed", 3, "`seeds`"),
        (changed(strategies={"Default": {}}), "strategies", "Default", "small letters"),
        (
            changed(strategies={"a": {"stopping": {"seconds": 3}}}),
            "strategies.a.stopping.seconds",
            3,
            "plateau_looks",
        ),
        (changed(strategies={"a": {"regularizers": {"l7": 1}}}), "strategies.a.regularizers", "l7", "l1"),
        (changed(probes=True), "probes", True, "name `images`"),
        (changed(labels="sex"), "labels", "sex", "name `images`"),
        (changed(images="nowhere"), "images", "nowhere", "no folder"),
        (changed(thresholds={"shortcuts": 0}), "thresholds.shortcuts", 0, "name `images`"),
        (changed(thresholds={"seed_agreement": 2}), "thresholds.seed_agreement", 2, "-1 to 1"),
        (changed(seeds=[0], thresholds={"seed_agreement": 0}), "thresholds.seed_agreement", 0, "two `seeds`"),
        (changed(seeds=[0], thresholds={"above_random": 0}), "thresholds.above_random", 0, "two `seeds`"),
        (changed(strategies={"a": {"minimize": True}}), "strategies.a.minimize", True, "leave it out"),
        (changed(strategies={"a": {"start": "noise"}}), "strategies.a.start", "noise", "reference brain"),
        (changed(batch=8.0), "batch", 8.0, "a whole number"),
        (changed(seeds=[0, 1.0]), "seeds[1]", 1.0, "whole numbers"),
        (changed(thresholds={"seed_agreement": float("nan")}), "thresholds.seed_agreement", None, "finite"),
        (changed(strategies={"default": {}, False: {}}), "strategies", False, "in quotes"),
        (changed(images=date(2026, 1, 1)), "images", date(2026, 1, 1), "quotes around a date"),
    ],
)
def test_an_error_names_field_value_and_remedy(
    tmp_path: Path, content: Any, field: str, value: Any, remedy: str
) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(InvalidRequest) as caught:
        read_plan(file)
    assert caught.value.field == field
    assert remedy in caught.value.remedy
    if value is not None:
        assert caught.value.value == value


def test_what_is_no_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("audit: 1\nunits: [\n")
    with pytest.raises(InvalidRequest, match="no YAML at line"):
        read_plan(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("audit: 1\nmodel: größe\n".encode("latin-1"), "no UTF-8"),
        (b"audit: 1\nlabels: 2026-13-01\n", "put it in quotes"),
        (b"thresholds: {seed_agreement: 0.9}\nthresholds: {}\n", "stands twice, again at line 2"),
        (b"audit: 1\nstrategies: {a: {steps: 8, steps: 9}}\n", "steps.*stands twice, again at line 2"),
    ],
)
def test_what_yaml_or_python_would_trip_over_is_told(tmp_path: Path, text: bytes, words: str) -> None:
    file = tmp_path / "plan.yaml"
    file.write_bytes(text)
    with pytest.raises(InvalidRequest, match=words):
        read_plan(file)


def test_a_strategy_may_begin_at_the_reference_brain_with_its_own_noise() -> None:
    for start in ("reference_brain", {"reference_brain": {"deviation": 0.02}}):
        assert read_plan(changed(strategies={"a": {"start": start}})).strategies["a"]["start"] == start


def test_keys_may_be_merged(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    strategies = "strategies:\n  a: &a {steps: 8}\n  b: {<<: *a, steps: 9}\n"
    file.write_text(f"audit: 1\nmodel: growth\nunits: [{{classes: all}}]\n{strategies}")
    assert read_plan(file).strategies == {"a": {"steps": 8}, "b": {"steps": 9}}


def test_a_content_that_is_no_yaml_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="of a path") as caught:
        read_plan({**LEAST, "images": tmp_path})
    assert caught.value.field == "images"


@pytest.mark.parametrize("name", ["plan", "report"])
def test_the_schemas_are_schemas(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))


def test_the_first_plan_fits_its_model(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(template(MODEL))
    plan = read_plan(file)
    check_layers(plan, MODEL)
    units = find_units(plan, MODEL, {})
    assert [unit.id for unit in units] == [
        "classifier-unchanged",
        "classifier-grown",
        *(f"blocks-1-conv-{channel}" for channel in range(8)),
    ]
    assert "#" in template(MODEL)


@pytest.mark.parametrize("name", ["42", "yes", "a: b", "blocks.1.conv"])
def test_the_first_plan_names_layers_as_text(tmp_path: Path, name: str) -> None:
    layer = pb.Layer(name=name, type="Conv", channels=4, output_shape=[4, 4, 4])
    (tmp_path / "plan.yaml").write_text(template(pb.Model(name="m", version=1, layers=[layer])))
    assert read_plan(tmp_path / "plan.yaml").content["units"][0]["layer"] == name


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[3] / "deploy" / "audit").glob("*.yaml")))
def test_the_plans_of_the_demo_fit_the_zoo(file: Path) -> None:
    plan = read_plan(file)
    name, version = plan.model
    manifest = json.loads((ZOO / name / str(version) / "bundle.json").read_text())
    assert manifest["classes"]


def test_units_of_a_layer_and_strategy_share_jobs() -> None:
    plan = read_plan(
        {
            **LEAST,
            "units": [{"classes": "all"}, {"layer": "blocks.1.conv", "channels": "all"}],
            "strategies": {"default": {}, "contrast": {"contrast": True}},
            "batch": 20,
        }
    )
    tasks = find_tasks(plan, find_units(plan, MODEL, {}))
    sizes = sorted(len(task.units) for task in tasks)
    # Two classes under two strategies; 32 channels, which know no contrast, in batches of at most 20.
    assert sizes == sorted([2] * 2 * 4 + [20, 12] * 4)
    assert len({key for task in tasks for key in task.keys}) == sum(sizes)
    assert {"contrast"} == {task.strategy for task in tasks} - {
        task.strategy for task in tasks if task.units[0].kind == "channel"
    }


def test_a_request_has_its_name_from_what_it_asks() -> None:
    from neurofv.audit.tasks import request_id

    plan = read_plan(LEAST)
    first, second, *_ = find_tasks(plan, find_units(plan, MODEL, {}))
    name = request_id(plan, MODEL, first.request(plan, MODEL), 0)
    assert name == request_id(plan, MODEL, first.request(plan, MODEL), 0)
    assert len(name) == 32
    others = {
        request_id(plan, MODEL, first.request(plan, MODEL), 1),
        request_id(plan, MODEL, second.request(plan, MODEL), 0),
        request_id(read_plan({**LEAST, "batch": 9}), MODEL, first.request(plan, MODEL), 0),
        request_id(plan, pb.Model(name="growth", digest="other"), first.request(plan, MODEL), 0),
    }
    assert len({name, *others}) == 5


def test_the_model_is_asked_for_what_it_has() -> None:
    for units, field, there in (
        ({"classes": ["grow"]}, "units[0].classes", "unchanged, grown"),
        ({"layer": "conv", "channels": "all"}, "units[0].layer", "blocks.0.conv"),
        ({"layer": "blocks.0.conv", "channels": [3, 16]}, "units[0].channels", "0 to 15"),
    ):
        with pytest.raises(InvalidRequest, match=there) as caught:
            check_layers(read_plan({**LEAST, "units": [units]}), MODEL)
        assert caught.value.field == field


def test_the_channels_that_vary_most_are_taken_in_order(tmp_path: Path) -> None:
    units = [{"layer": "blocks.0.conv", "channels": "top 2 by variance"}]
    plan = read_plan({**LEAST, "units": units, "images": str(tmp_path)})
    found = find_units(plan, MODEL, {"blocks.0.conv": [7, 3, 1]})
    assert [unit.name for unit in found] == ["blocks.0.conv:7", "blocks.0.conv:3"]
