from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from neurofv import InvalidRequest, Visualization, read_request
from neurofv.events import Collector
from neurofv.results import describe, title, unit_name
from neurofv.v1 import method_pb2 as method
from neurofv.v1 import visualization_service_pb2 as vis
from tests.client.streams import AFFINE, a_request, a_stream


@pytest.fixture
def result() -> Visualization:
    collector = Collector()
    for response in a_stream():
        collector.take(response)
    return collector.result()


def test_save_writes_volume_and_sidecar(result: Visualization, tmp_path: Path) -> None:
    nifti, sidecar = result.save(tmp_path / "cube.nii.gz")
    assert (nifti.name, sidecar.name) == ("cube.nii.gz", "cube.json")
    np.testing.assert_array_equal(nibabel.load(nifti).affine, AFFINE)
    record = json.loads(sidecar.read_text())
    assert list(record) == ["file", "job", "request", "evaluation", "provenance"]
    assert record["file"] == "cube.nii.gz"
    assert record["provenance"]["volume_sha256"] == result.volume.sha256
    assert record["provenance"]["synthetic"] is True
    assert "request" not in record["provenance"]
    assert result.provenance.HasField("request")
    assert record["evaluation"]["terms"][0]["real_p95"] == 8.0


def test_a_sidecar_gives_the_request_back(result: Visualization, tmp_path: Path) -> None:
    _, sidecar = result.save(tmp_path / "cube.nii.gz")
    assert read_request(sidecar) == a_request()


def test_zeros_are_written_out(result: Visualization) -> None:
    result.request.objective.terms[0].channel.layer = "blocks.0.conv"
    assert result.sidecar()["request"]["objective"]["terms"][0]["channel"]["channel"] == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"request": 3}', '{"request": {"color": "red"}}'])
def test_what_is_no_sidecar_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InvalidRequest, match="beside a volume"):
        read_request(path)


CUBE = method.ObjectiveTerm(class_logit=method.ClassLogit(class_name="cube"))
CHANNEL = method.ObjectiveTerm(channel=method.Channel(layer="blocks.2.conv", channel=5))


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
    ],
)
def test_figures_in_plain_language(term: method.ObjectiveTerm, percentile: float, words: str) -> None:
    said = describe(term, vis.TermEvaluation(activation=12.5, percentile=percentile, real_p95=8))
    assert said.startswith("activation 12.50, ")
    assert words in said


def test_what_the_bundle_does_not_know_is_not_claimed() -> None:
    assert describe(CUBE, vis.TermEvaluation(activation=1)).endswith("does not say how real images compare")
    assert "95 %" not in describe(CUBE, vis.TermEvaluation(activation=1, percentile=0.5))


def test_names_for_people(result: Visualization) -> None:
    neuron = method.ObjectiveTerm(neuron=method.Neuron(layer="pool", channel=0))
    assert (unit_name(CHANNEL), unit_name(neuron)) == ("blocks.2.conv:5", "pool:0")
    assert title(result) == "tiny/1 · cube"
    result.request.objective.terms.add().class_logit.class_name = "none"
    assert title(result) == "tiny/1 · cube against 1 others"


def test_a_neuron_is_held_against_the_best_position() -> None:
    neuron = method.ObjectiveTerm(neuron=method.Neuron(layer="pool", channel=0))
    said = describe(neuron, vis.TermEvaluation(activation=1, percentile=0.5, real_p95=2))
    assert "higher than at the channel's best position on 50 % of real held-out images" in said
