"""Imported networks are served as those that were trained here are."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch import nn

import neurofv
from models import Bundle
from models.control import shuffle_weights
from models.importing import Facts, export_bundle
from models.statistics import watched
from service.oip import open_inference_pb2 as oip
from service.oip import open_inference_pb2_grpc
from tests.models.importing.conftest import AFFINE, SHAPE, Small, brain, save_image
from tests.server import RunningServer

FACTS = Facts("classifier", classes=("a", "b", "c"))


class Several(Small):
    """Classes that do not exclude each other."""

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        return super().forward(volume).sigmoid()

    def __init__(self) -> None:
        super().__init__(softmax=False)


class Patches(nn.Module):
    """Tokens within, and a head whose logits keep three spatial axes of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv3d(1, 4, 4, stride=4)
        self.mixed = nn.Linear(4, 4)
        self.head = nn.Conv3d(4, 3, 1)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        maps = self.patches(volume)
        tokens = self.mixed(maps.flatten(2).transpose(1, 2)).transpose(1, 2)
        return self.head(tokens.reshape(maps.shape).mean((2, 3, 4), keepdim=True))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """A classifier that ends in a softmax, measured on a cohort; and a segmenting network without one."""
    root = tmp_path_factory.mktemp("imported")
    cohort = root / "images"
    cohort.mkdir()
    reference = save_image(root / "mean.nii.gz")
    for index in range(5):
        save_image(cohort / f"{index}.nii.gz", seed=index)
    torch.manual_seed(2)
    segmenting = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.ConvTranspose3d(4, 2, 2, stride=2), nn.MaxPool3d(2)
    )
    repository = root / "repository"
    return {
        "classifier": export_bundle(Small(), repository, FACTS, reference, cohort),
        "patches": export_bundle(Patches(), repository, replace(FACTS, name="patches"), reference),
        "several": export_bundle(Several(), repository, replace(FACTS, name="several"), reference),
        "segmenting": export_bundle(
            segmenting, repository, replace(FACTS, name="segmenting", classes=()), reference
        ),
    }


@pytest.fixture(scope="module")
def server(bundles: dict[str, Bundle]) -> Iterator[RunningServer]:
    running = RunningServer(bundles["classifier"].path.parents[1])
    yield running
    running.stop()


def test_a_class_of_an_imported_classifier_is_driven(server: RunningServer) -> None:
    with neurofv.Client(server.target) as client:
        assert list(client.model("classifier").classes) == ["a", "b", "c"]
        found = client.visualize("classifier", class_name="b", steps=6, seed=1)
        home = client.visualize("classifier", class_name="b", steps=1, seed=1)
    term = found.evaluation.terms[0]
    assert term.activation > home.evaluation.terms[0].activation
    assert term.HasField("percentile")
    assert found.volume.nifti().shape == SHAPE


def test_a_layer_is_named_by_its_onnx_value(server: RunningServer, bundles: dict[str, Bundle]) -> None:
    for name in ("classifier", "segmenting"):
        bundle = bundles[name]
        layer = next(layer for layer in bundle.layers() if layer.type == "Conv3d")
        assert "/" in layer.name
        with neurofv.Client(server.target) as client:
            found = client.visualize(name, layer=layer.name, channel=1, steps=4, seed=1)
            assert found.volume.nifti().shape == SHAPE
            placed = found.evaluation.terms[0].HasField("percentile")
            assert placed is (name == "classifier")  # only there real images were seen


@pytest.mark.parametrize("name", ["classifier", "segmenting", "patches"])
@pytest.mark.parametrize("seed", [None, 6])
def test_units_are_probed_as_they_are_and_with_random_weights(
    server: RunningServer, bundles: dict[str, Bundle], name: str, seed: int | None, tmp_path: Path
) -> None:
    bundle, image, scan = bundles[name], tmp_path / "person.nii.gz", brain(7)
    scan[8, 9, 7] *= 20  # brighter than anything that was seen at import
    nibabel.save(nibabel.Nifti1Image(scan, AFFINE), image)
    kinds = ("Conv3d", "Linear", "Reshape")
    table = {layer.name: layer for layer in bundle.layers() if layer.type in kinds}
    layers = list(table)
    control = None if seed is None else {"random_weights": {"seed": seed}}
    units = [(layer, channel) for layer in layers for channel in (0, table[layer].channels - 1)]
    with neurofv.Client(server.target) as client:
        found = client.probe(name, image, units, control=control)
    network = bundle.network() if seed is None else shuffle_weights(bundle.network(), seed)
    normalized = bundle.manifest.input.normalize(nibabel.load(image).get_fdata(dtype=np.float32))
    logits = bundle.manifest.classifier_layer
    with torch.inference_mode(), watched(network, {*layers, logits}) as seen:
        network(torch.from_numpy(normalized)[None, None])
    for unit in found.units:
        values = seen[unit.layer][0, unit.channel]
        assert unit.mean == pytest.approx(float(values.mean()), rel=1e-4, abs=1e-5)
        assert unit.maximum == pytest.approx(float(values.max()), rel=1e-4, abs=1e-5)
        # A token has no place, and what is one number has none either.
        assert (
            unit.HasField("voxel") == unit.HasField("point_mm") == (values.ndim == 3 and values.numel() > 1)
        )
    assert len(found.logits) == len(bundle.manifest.classes)
    if logits:
        np.testing.assert_allclose(found.logits, seen[logits][0].flatten(), rtol=1e-4, atol=1e-5)


def test_controls_of_imported_networks_are_driven(server: RunningServer, bundles: dict[str, Bundle]) -> None:
    with neurofv.Client(server.target) as client:
        for name, bundle in bundles.items():
            layer = next(layer.name for layer in bundle.layers() if layer.type == "Conv3d")
            one, again, trained = (
                client.visualize(name, layer=layer, channel=1, steps=4, seed=1, control=control)
                for control in ("random_weights", "random_weights", None)
            )
            assert one.volume.bytes == again.volume.bytes != trained.volume.bytes
            assert not one.evaluation.terms[0].HasField("percentile")
        with pytest.raises(neurofv.NeurofvError, match="has no classes; name a channel"):
            client.probe("segmenting", bundles["segmenting"].path / "reference.nii.gz")


def test_a_network_without_classes_says_so(server: RunningServer) -> None:
    with neurofv.Client(server.target) as client:
        assert not client.model("segmenting").classes
        with pytest.raises(neurofv.NeurofvError, match="there are: none") as caught:
            client.visualize("segmenting", class_name="a", steps=2)
        assert caught.value.reason == "CLASS_NOT_FOUND"
        with pytest.raises(neurofv.NeurofvError, match="no classes to answer with"):
            client.visualize("classifier", class_name="a", steps=2, transfer="segmenting")


@pytest.mark.parametrize("name", ["classifier", "several", "segmenting"])
def test_inference_answers_what_the_network_does(
    server: RunningServer, bundles: dict[str, Bundle], name: str
) -> None:
    bundle, image = bundles[name], brain(3)
    image[8, 9, 7] *= 20  # brighter than anything that was seen at import
    stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(server.channel)
    described = stub.ModelMetadata(oip.ModelMetadataRequest(name=name))
    asked = oip.ModelInferRequest(model_name=name, raw_input_contents=[image.tobytes()])
    asked.inputs.add(name="volume", datatype="FP32", shape=SHAPE)
    answer = stub.ModelInfer(asked)
    with torch.no_grad():
        volume = torch.from_numpy(bundle.manifest.input.normalization.apply(image))[None, None]
        expected = bundle.network()(volume).numpy()
    names = [output.name for output in answer.outputs]
    assert names == [output.name for output in described.outputs]
    assert names == (["output"] if name == "segmenting" else ["logits", "probabilities"])
    last = np.frombuffer(answer.raw_output_contents[-1], "<f4").reshape(tuple(answer.outputs[-1].shape))
    assert list(described.outputs[-1].shape) == [-1, *last.shape[1:]]
    np.testing.assert_allclose(last, expected, atol=1e-6)  # softmax and sigmoid are the networks' own
    if name != "segmenting":
        logits = np.frombuffer(answer.raw_output_contents[0], "<f4")
        assert not np.allclose(logits, expected)


def test_a_picture_can_begin_at_a_persons_image(server: RunningServer, tmp_path: Path) -> None:
    subject = save_image(tmp_path / "person.nii.gz", seed=4)
    with neurofv.Client(server.target) as client:
        found = client.visualize("classifier", class_name="a", steps=2, start="subject", subject=subject)
    assert nibabel.Nifti1Image.from_bytes(found.volume.nifti().to_bytes()).shape == SHAPE
