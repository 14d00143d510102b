"""What stands at the end of a network: softmax, sigmoid, labels, one number, a volume of one voxel."""

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from models import Bundle, ImageUnusable, OnnxUnreadable
from models.importing import Facts, export_bundle, import_onnx
from models.normalization import Unchanged, ZScore
from tests.models.importing.conftest import SHAPE, brain, save_image

FACTS = Facts("head", classes=("a", "b", "c"))


class Body(nn.Module):
    """Three numbers a volume, and whatever is made of them."""

    def __init__(self, end: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Conv3d(1, 4, 3, stride=2)
        self.head = nn.Conv3d(4, 3, 1)
        self.end = end

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.adaptive_avg_pool3d(torch.relu(self.first(volume)), 1)
        return self.end(self.head(pooled))


class Squeezed(nn.Module):
    """The first number alone, without an axis of its own."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.flatten(1)[:, 0]


def made(end: nn.Module, reference: Path, tmp_path: Path, **facts: object) -> Bundle:
    return export_bundle(Body(end).eval(), tmp_path, replace(FACTS, **facts), reference)


def test_a_softmax_tells_a_classifier(reference: Path, tmp_path: Path) -> None:
    found = made(nn.Sequential(nn.Flatten(), nn.Softmax(1)), reference, tmp_path, classes=()).manifest
    assert (found.classes, found.probabilities) == (("0", "1", "2"), "softmax")


def test_a_sigmoid_gives_each_class_its_own_probability(reference: Path, tmp_path: Path) -> None:
    end = nn.Sequential(nn.Flatten(), nn.Sigmoid())
    bundle = made(end, reference, tmp_path)
    assert bundle.manifest.probabilities == "sigmoid"
    assert "Sigmoid" not in bundle.layer(bundle.manifest.classifier_layer).type
    assert made(end, reference, tmp_path, classes=(), name="unnamed").manifest.classes == ()


def test_numbers_are_classes_only_if_they_are_named(reference: Path, tmp_path: Path) -> None:
    assert made(nn.Flatten(), reference, tmp_path, classes=()).manifest.classes == ()
    assert made(nn.Flatten(), reference, tmp_path, name="named").manifest.classes == ("a", "b", "c")


@pytest.mark.parametrize("end", [nn.Identity(), nn.LogSoftmax(1)])
def test_classes_may_have_axes_of_one_voxel(end: nn.Module, reference: Path, tmp_path: Path) -> None:
    bundle = made(end, reference, tmp_path)
    assert bundle.manifest.classes == ("a", "b", "c")
    layer = bundle.layer(bundle.manifest.classifier_layer)
    assert (layer.type, layer.output_shape, layer.is_vector) == ("Conv3d", (1, 1, 1), True)


def test_one_number_a_volume_is_measured_on_a_cohort(reference: Path, cohort: Path, tmp_path: Path) -> None:
    facts = replace(FACTS, classes=())
    bundle = export_bundle(Body(Squeezed()).eval(), tmp_path, facts, reference, cohort)
    assert bundle.manifest.classes == ()
    assert bundle.prior().activation_quantiles(bundle.layers()[-1].name).shape[0] == 1


def test_labels_are_cut_off(exported: Path, reference: Path, tmp_path: Path) -> None:
    model = onnx.load(exported)
    scores = model.graph.output[0].name
    model.graph.node.append(helper.make_node("ArgMax", [scores], ["label"], "choose", axis=1, keepdims=0))
    model.graph.node.append(helper.make_node("Cast", ["label"], ["out"], "to_int32", to=TensorProto.INT32))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("out", TensorProto.INT32, ["batch"]))
    file = tmp_path / "labels.onnx"
    onnx.save(model, file)
    labels = import_onnx(file, tmp_path, FACTS, reference)
    plain = import_onnx(exported, tmp_path, replace(FACTS, name="plain"), reference)
    assert labels.manifest.classifier_layer == plain.manifest.classifier_layer
    volumes = torch.rand(2, 1, *SHAPE)
    with torch.no_grad():
        assert torch.equal(labels.network()(volumes), plain.network()(volumes))


def test_one_number_for_a_whole_batch_is_refused(reference: Path, tmp_path: Path) -> None:
    class Total(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return values.sum()

    with pytest.raises(OnnxUnreadable, match="one number for a whole batch"):
        made(Total(), reference, tmp_path, classes=())


@pytest.mark.parametrize("rule", [ZScore(), Unchanged()], ids=lambda rule: rule.kind)
def test_images_brighter_than_the_reference_are_not_clipped(
    rule: ZScore | Unchanged, reference: Path, tmp_path: Path
) -> None:
    bundle = made(nn.Flatten(), reference, tmp_path, normalization=rule)
    bright = brain(5)
    bright[8, 9, 7] *= 50
    space = bundle.manifest.input
    assert space.normalize(bright).max() > space.intensity_range[1]
    np.testing.assert_array_equal(space.normalize(bright), rule.apply(bright))


def test_a_bad_image_of_the_cohort_is_named(exported: Path, reference: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    save_image(images / "good.nii.gz", seed=1)
    empty = nibabel.load(images / "good.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.float32), empty.affine), images / "empty.nii.gz")
    with pytest.raises(ImageUnusable, match=r"empty\.nii\.gz: the image is zero everywhere.*leave it out"):
        import_onnx(exported, tmp_path / "out", FACTS, reference, images)
    assert not (tmp_path / "out").exists()
