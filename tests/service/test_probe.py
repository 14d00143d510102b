"""Probe: what the network itself says of an image, unit by unit."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import threading
from typing import Any

import grpc
import nibabel
import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine
from torch import nn

import neurofv
from models import ZOO, Bundle, read_bundle
from models.control import shuffle_weights
from models.statistics import watched
from neurofv.audit_log import read_lines
from neurofv.v1 import method_pb2 as method
from neurofv.v1 import visualization_service_pb2 as vis
from service.jobs.probe import MOST_UNITS
from tests.server import RunningServer
from tests.service.requests import failure, violations

NAMES = ("growth", "sex-affine", "lesion-shapes")
BUNDLES = {name: read_bundle(ZOO / name / "1") for name in NAMES}
OUT_OF_RANGE, NOT_FOUND = grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.NOT_FOUND


def _image(bundle: Bundle) -> bytes:
    """Return the bundle's mean brain with a texture, as a person's scan is stored."""
    space = bundle.manifest.input
    mean = bundle.reference().get_fdata(dtype=np.float32)
    texture = np.random.default_rng(3).normal(1, 0.05, mean.shape).astype(np.float32)
    image = nibabel.Nifti1Image(700 * mean.clip(0) * texture, np.asarray(space.affine))
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)


IMAGES = {name: _image(bundle) for name, bundle in BUNDLES.items()}


def _heard(
    network: nn.Module, bundle: Bundle, image: bytes, layers: set[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return what the bundle's own network says, by hooks of its own."""
    data = nibabel.Nifti1Image.from_bytes(gzip.decompress(image)).get_fdata(dtype=np.float32)
    volume = torch.from_numpy(bundle.manifest.input.normalize(data))[None, None]
    with torch.inference_mode(), watched(network, layers) as seen:
        logits = network(volume)
    return logits[0].double().numpy(), {layer: said[0].double().numpy() for layer, said in seen.items()}


@pytest.fixture
def client(server: RunningServer) -> Any:
    with neurofv.Client(server.target) as opened:
        yield opened


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [None, 11])
def test_units_are_those_of_the_bundles_network(client: neurofv.Client, name: str, seed: int | None) -> None:
    bundle, image = BUNDLES[name], IMAGES[name]
    table = {layer.name: layer for layer in bundle.layers()}
    asked = ["classifier", "blocks.1.conv", "blocks.2.pool" if name == "sex-affine" else "pool"]
    units = [(layer, channel) for channel in (1, 0) for layer in asked]
    control = None if seed is None else {"random_weights": {"seed": seed}}
    found = client.probe(name, image, units, control=control)
    network = bundle.network() if seed is None else shuffle_weights(bundle.network(), seed)
    logits, said = _heard(network, bundle, image, set(asked))
    # Alike but for threads, which add in another order.
    np.testing.assert_allclose(found.logits, logits, rtol=1e-4, atol=1e-4)
    assert [(unit.layer, unit.channel) for unit in found.units] == units
    for unit in found.units:
        values, layer = said[unit.layer][unit.channel], table[unit.layer]
        assert unit.mean == pytest.approx(values.mean(), rel=1e-4, abs=1e-4)
        assert unit.maximum == pytest.approx(values.max(), rel=1e-4, abs=1e-4)
        if values.size == 1:
            assert not unit.HasField("voxel")
            assert not unit.HasField("point_mm")
            assert unit.mean == unit.maximum
            continue
        place = layer.center(np.unravel_index(values.argmax(), values.shape))
        voxel = (unit.voxel.i, unit.voxel.j, unit.voxel.k)
        np.testing.assert_allclose(voxel, place, atol=0.5)
        mm = apply_affine(np.asarray(bundle.manifest.input.affine), place)
        np.testing.assert_allclose((unit.point_mm.x, unit.point_mm.y, unit.point_mm.z), mm, atol=1e-3)
    assert (found.model, found.version, found.model_digest) == (name, 1, bundle.digest)
    assert found.image_sha256 == hashlib.sha256(image).hexdigest()
    assert found.HasField("control") == (seed is not None)
    assert found == client.probe(name, image, units, control=control)


def test_asyncio_gets_the_same(client: neurofv.Client, server: RunningServer) -> None:
    units = [("blocks.0.conv", 5), ("classifier", 1)]

    async def ask() -> vis.ProbeResponse:
        async with neurofv.AsyncClient(server.target) as other:
            return await other.probe("growth", IMAGES["growth"], units, version=1)

    assert asyncio.run(ask()) == client.probe("growth", IMAGES["growth"], units)


def test_a_nonlinearity_is_read_before_it_or_behind(client: neurofv.Client) -> None:
    units = [("blocks.1.act", channel) for channel in range(32)]
    before = client.probe("growth", IMAGES["growth"], [("blocks.1.norm", channel) for _, channel in units])
    entering = client.probe("growth", IMAGES["growth"], units)
    behind = client.probe("growth", IMAGES["growth"], units, behind_nonlinearities=True)
    assert [unit.mean for unit in entering.units] == [unit.mean for unit in before.units]
    assert min(unit.mean for unit in entering.units) < 0 <= min(unit.mean for unit in behind.units)


def test_an_image_of_another_orientation_is_the_same_image(client: neurofv.Client) -> None:
    straight = nibabel.Nifti1Image.from_bytes(gzip.decompress(IMAGES["growth"]))
    turned = straight.as_reoriented(np.array([[1, -1], [2, 1], [0, 1]]))
    assert turned.shape != straight.shape
    units = [("blocks.2.conv", channel) for channel in range(8)]
    one, two = (client.probe("growth", image, units) for image in (straight, turned))
    assert one.image_sha256 != two.image_sha256
    assert (one.units, one.logits) == (two.units, two.logits)


def test_a_probe_is_answered_between_two_steps_of_a_job(client: neurofv.Client) -> None:
    choices: dict[str, Any] = {"class_name": "grown", "steps": 200, "seed": 2, "snapshot_every": 0}
    alone = client.visualize("growth", **choices)
    begun, results = threading.Event(), []

    def note(event: neurofv.Event) -> None:
        if isinstance(event, vis.Progress):
            begun.set()

    job = threading.Thread(
        target=lambda: results.append(client.visualize("growth", on_event=note, **choices))
    )
    job.start()
    assert begun.wait(60)
    found = [client.probe("growth", IMAGES["growth"], control=each) for each in (None, "random_weights")]
    assert not results
    assert list(found[0].logits) != list(found[1].logits)
    job.join(120)
    assert results[0].volume.bytes == alone.volume.bytes


def test_the_audit_log_says_who_and_of_what_but_not_what(
    client: neurofv.Client, server: RunningServer
) -> None:
    client.probe("growth", IMAGES["growth"], [("classifier", 0)], control="random_weights")
    records = [json.loads(line) for line in read_lines(server.data / "audit.jsonl")]
    act = [record for record in records if record["action"] == "model.probe"][-1]
    assert act["resource"] == "models/growth/1"
    assert act["facts"] == {
        "digest": BUNDLES["growth"].digest,
        "image_sha256": hashlib.sha256(IMAGES["growth"]).hexdigest(),
        "units": "1",
        "control": "random_weights",
    }


BRAIN = IMAGES["growth"]
CASES = {
    "no model": (vis.ProbeRequest(), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "model"),
    "no such model": (vis.ProbeRequest(model="nobody"), NOT_FOUND, "MODEL_NOT_FOUND", None),
    "no image": (
        vis.ProbeRequest(model="growth"),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "image.nifti",
    ),
    "no image at all": (
        vis.ProbeRequest(model="growth", image=method.Subject(nifti=b"hello")),
        grpc.StatusCode.INVALID_ARGUMENT,
        "SUBJECT_UNUSABLE",
        "image.nifti",
    ),
    "another image than the digest's": (
        vis.ProbeRequest(model="growth", image=method.Subject(nifti=BRAIN, sha256="0" * 64)),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "image.sha256",
    ),
    "no such layer": (
        vis.ProbeRequest(model="growth", units=[method.Channel(layer="conv9")]),
        NOT_FOUND,
        "LAYER_NOT_FOUND",
        None,
    ),
    "no such channel": (
        vis.ProbeRequest(
            model="growth",
            units=[method.Channel(layer="classifier"), method.Channel(layer="classifier", channel=2)],
        ),
        OUT_OF_RANGE,
        "UNIT_OUT_OF_RANGE",
        "units[1].channel",
    ),
    "too many units": (
        vis.ProbeRequest(model="growth", units=[method.Channel(layer="classifier")] * (MOST_UNITS + 1)),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "units",
    ),
    "a control of no kind": (
        vis.ProbeRequest(model="growth", control=method.Control()),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "control",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_probed_is_refused_and_says_why(server: RunningServer, name: str) -> None:
    asked, code, reason, field = CASES[name]
    with pytest.raises(grpc.RpcError) as caught:
        server.visualization.Probe(asked, timeout=60)
    assert failure(caught.value)[:2] == (code, reason)
    assert violations(caught.value) == ([field] if field else [])


def test_as_many_units_as_may_be_asked_fit_into_an_answer(client: neurofv.Client) -> None:
    units = [("blocks.0.conv", index % 16) for index in range(MOST_UNITS)]
    found = client.probe("growth", IMAGES["growth"], units)
    assert len(found.units) == MOST_UNITS
    assert found.ByteSize() < 2 << 20


@pytest.mark.parametrize(
    ("choices", "field"),
    [
        ({"units": ["classifier"]}, "units"),
        ({"units": [("classifier", "first")]}, "units.channel"),
        ({"control": "sleep"}, "control"),
        ({"image": 3}, "image"),
    ],
)
def test_the_client_refuses_what_makes_no_request(
    client: neurofv.Client, choices: dict[str, Any], field: str
) -> None:
    given = {"image": BRAIN, **choices}
    with pytest.raises(neurofv.InvalidRequest) as caught:
        client.probe("growth", **given)
    assert caught.value.field == field
