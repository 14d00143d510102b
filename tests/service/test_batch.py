"""Objectives times samples: the order of a batch's volumes, and that none influences another."""

import numpy as np
import pytest

from models import ZOO, read_bundle
from neurofv.v1 import visualization_service_pb2 as vis
from tests.server import RunningServer
from tests.service import requests
from tests.service.requests import Stream

SMALL = "canvas { size_mm { i: 48 j: 48 k: 48 } } snapshot_every: 0 steps: 4"
LAYER = "blocks.1.conv"
DIVERSE = "regularization { regularizers { diversity { weight: 20 } } }"
FINALS = ["final", "item1.final", "item2.final", "item3.final"]


def _channel(number: int, field: str = "objective") -> str:
    return f'{field} {{ terms {{ channel {{ layer: "{LAYER}" channel: {number} }} }} }}'


def _run(server: RunningServer, *parts: str) -> Stream:
    return Stream(list(server.visualization.Visualize(requests.request(*parts), timeout=240)))


def _volume(stream: Stream, name: str = "final") -> np.ndarray:
    return stream.image(name).get_fdata(dtype=np.float32)


@pytest.fixture(scope="module")
def batch(server: RunningServer) -> Stream:
    return _run(server, _channel(3), _channel(7, "batch"), SMALL, "samples: 2 seed: 5")


def test_samples_of_the_first_objective_come_before_those_of_the_next(
    server: RunningServer, batch: Stream
) -> None:
    assert [name for name in batch.begins if name.endswith("final")] == FINALS
    units = [judged.terms[0].unit for judged in (batch.completed.evaluation, *batch.completed.batch)]
    assert units == [f"{LAYER}:3"] * 2 + [f"{LAYER}:7"] * 2
    for name, (number, seed) in zip(FINALS, ((3, 5), (3, 6), (7, 5), (7, 6)), strict=True):
        alone = _run(server, _channel(number), SMALL, f"seed: {seed}")
        np.testing.assert_allclose(_volume(batch, name), _volume(alone), atol=1e-5)
        assert f"_unit-{number}_desc-seed{seed}final_" in batch.begins[name].file_name


def test_each_objectives_second_sample_is_held_against_its_first(batch: Stream) -> None:
    judged = [batch.completed.evaluation, *batch.completed.batch]
    assert [one.HasField("agreement") for one in judged] == [False, True, False, True]
    reference = read_bundle(ZOO / "lesion-shapes" / "1").reference().get_fdata(dtype=np.float32)
    changes = [(_volume(batch, name) - reference.clip(0, 1.1)).ravel() for name in FINALS]
    for first in (0, 2):
        unmoved = np.corrcoef(changes[first], changes[first + 1])[0, 1]
        # The best of all shifts is no worse than none.
        assert unmoved - 1e-4 <= judged[first + 1].agreement <= 1


@pytest.fixture(scope="module")
def diverse(server: RunningServer) -> Stream:
    return _run(server, _channel(3), _channel(7, "batch"), SMALL, DIVERSE, "samples: 2 seed: 5")


@pytest.mark.parametrize("name", ["batch", "diverse"])
def test_the_same_batch_is_the_same_bits(
    server: RunningServer, name: str, request: pytest.FixtureRequest
) -> None:
    one: Stream = request.getfixturevalue(name)
    other = Stream(list(server.visualization.Visualize(one.accepted, timeout=240)))
    assert set(FINALS) <= set(one.volumes)
    assert one.volumes == other.volumes
    assert one.completed.provenance.volumes == other.completed.provenance.volumes


def test_diversity_drives_no_one_but_samples_of_one_objective(server: RunningServer) -> None:
    together = _run(server, _channel(3), _channel(7, "batch"), SMALL, DIVERSE)
    steps = [event.progress for event in together.events if event.HasField("progress")]
    assert len(steps) == 4
    for step in steps:
        assert step.regularizers["diversity"] == step.batch[0].regularizers["diversity"] == 0
    for name, number in (("final", 3), ("item1.final", 7)):
        alone = _run(server, _channel(number), SMALL, DIVERSE)
        np.testing.assert_allclose(_volume(together, name), _volume(alone), atol=1e-5)


def test_samples_pay_for_their_likeness(diverse: Stream) -> None:
    *_, step = (event.progress for event in diverse.events if event.HasField("progress"))
    paid = [step.regularizers["diversity"], *(each.regularizers["diversity"] for each in step.batch)]
    # Each of a pair is as like the other as that is like it: a cosine times the weight.
    assert paid[0] == pytest.approx(paid[1])
    assert paid[2] == pytest.approx(paid[3])
    assert 0 < min(paid) < max(paid) <= 20


def test_each_volume_of_a_batch_stops_when_it_is_finished(server: RunningServer) -> None:
    asked = (
        _channel(3),
        _channel(7, "batch"),
        SMALL.replace("steps: 4", "steps: 20"),
        "regularization {}",
    )
    judged = _run(server, *asked, "stopping { look_every: 1 }").completed
    last = [one.terms[0].held_out.activation for one in (judged.evaluation, *judged.batch)]
    lower, upper = sorted(last)
    rules = f"stopping {{ look_every: 1 activation: {(lower + upper) / 2} }}"
    stream = _run(server, *asked, rules)
    ended = [stream.completed.evaluation, stream.completed.batch[0]]
    early, late = (ended[last.index(value)] for value in (upper, lower))
    assert early.stop_reason == vis.STOP_REASON_ACTIVATION
    assert late.stop_reason == vis.STOP_REASON_STEPS
    assert early.step < stream.kinds().count("progress") == 20
