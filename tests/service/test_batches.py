"""Several volumes from one request, and units that nothing moves."""

import hashlib

import grpc
import numpy as np
import pytest
import torch

from models import ZOO, read_bundle
from neurofv.v1 import visualization_service_pb2 as vis
from tests.server import RunningServer
from tests.service.requests import CUBE, Stream, failure, request

SMALL = "canvas { size_mm { i: 48 j: 48 k: 48 } } snapshot_every: 2 steps: 4"
LAYER = "blocks.1.conv"


def _channel(number: int, field: str = "objective", layer: str = LAYER) -> str:
    return f'{field} {{ terms {{ channel {{ layer: "{layer}" channel: {number} }} }} }}'


def _stream(server: RunningServer, *parts: str, model: str = "lesion-shapes") -> Stream:
    return Stream(list(server.visualization.Visualize(request(*parts, model=model), timeout=240)))


@pytest.fixture(scope="module")
def batch(server: RunningServer) -> Stream:
    return _stream(server, _channel(3), _channel(7, "batch"), _channel(3, "batch"), SMALL)


def test_every_volume_of_a_batch_comes_with_its_own(batch: Stream) -> None:
    finals = [name for name, begin in batch.begins.items() if begin.kind == vis.VOLUME_KIND_FINAL]
    assert finals == ["final", "item1.final", "item2.final"]
    assert [batch.begins[name].item for name in finals] == [0, 1, 2]
    assert {"step00002", "item1.step00002", "item2.gradient"} <= set(batch.begins)
    assert len(batch.completed.batch) == 2
    assert batch.completed.batch[0].terms[0].unit == f"{LAYER}:7"
    progress = next(event.progress for event in batch.events if event.HasField("progress"))
    assert len(progress.batch) == 2
    digests = {
        name: hashlib.sha256(data).hexdigest()
        for name, data in batch.volumes.items()
        if batch.begins[name].kind != vis.VOLUME_KIND_INTERMEDIATE
    }
    assert dict(batch.completed.provenance.volumes) == digests


def test_a_volume_of_a_batch_has_the_bits_that_it_has_alone(server: RunningServer, batch: Stream) -> None:
    alone = _stream(server, _channel(7), SMALL)
    np.testing.assert_array_equal(batch.image("item1.final").get_fdata(), alone.image().get_fdata())
    np.testing.assert_array_equal(
        batch.image("item1.gradient").get_fdata(), alone.image("gradient").get_fdata()
    )
    # The same unit twice in a batch is twice the same volume: draws are by seed alone.
    np.testing.assert_array_equal(batch.image("item2.final").get_fdata(), batch.image().get_fdata())
    mine, theirs = batch.completed.batch[0], alone.completed.evaluation
    assert (mine.objective, mine.terms, mine.step) == (theirs.objective, theirs.terms, theirs.step)


def test_samples_are_consecutive_seeds_and_agree(server: RunningServer) -> None:
    stream = _stream(server, CUBE, SMALL, "samples: 2 seed: 5")
    (second,) = stream.completed.batch
    assert not stream.completed.evaluation.HasField("agreement")
    assert -1 <= second.agreement <= 1
    other = _stream(server, CUBE, SMALL, "seed: 6")
    np.testing.assert_array_equal(stream.image("item1.final").get_fdata(), other.image().get_fdata())
    assert "seed6" in stream.begins["item1.final"].file_name


def test_diversity_drives_samples_apart(server: RunningServer) -> None:
    steps = SMALL.replace("steps: 4", "steps: 25").replace("snapshot_every: 2", "snapshot_every: 0")
    likeness = []
    for weight in (0, 50):
        chosen = f"regularization {{ regularizers {{ diversity {{ weight: {weight} }} }} }}"
        stream = _stream(server, CUBE, steps, "samples: 2", chosen)
        likeness.append(_likeness([stream.image(name).get_fdata() for name in ("final", "item1.final")]))
    assert likeness[1] < likeness[0]


def _likeness(volumes: list[np.ndarray]) -> float:
    """The cosine of the Gram matrices at the layer that diversity takes by default."""
    network, kept = read_bundle(ZOO / "lesion-shapes" / "1").network(), []
    network.get_submodule("blocks.3.act").register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    box = tuple(slice(*edges) for edges in ((33, 57), (42, 66), (28, 52)))
    with torch.no_grad():
        for volume in volumes:
            network(torch.from_numpy(volume[box].astype(np.float32))[None, None])
    grams = [torch.einsum("cijk,dijk->cd", answer[0], answer[0]).flatten() for answer in kept]
    return float(torch.nn.functional.cosine_similarity(*grams, dim=0))


def test_a_dead_unit_is_an_error_that_names_it(server: RunningServer) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        _stream(server, _channel(4), SMALL.replace("steps: 4", "steps: 30"), model="lifeless")
    code, reason, metadata = failure(caught.value)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "UNIT_DEAD")
    assert metadata["unit"] == f"{LAYER}:4"


def test_a_dead_unit_does_not_hold_up_its_batch(server: RunningServer) -> None:
    steps = SMALL.replace("steps: 4", "steps: 12")
    stream = _stream(server, _channel(4), _channel(5, "batch"), steps, model="lifeless")
    assert stream.completed.evaluation.stop_reason == vis.STOP_REASON_DEAD
    assert stream.completed.batch[0].stop_reason == vis.STOP_REASON_STEPS
    alone = _stream(server, _channel(5), steps, model="lifeless")
    np.testing.assert_array_equal(stream.image("item1.final").get_fdata(), alone.image().get_fdata())
