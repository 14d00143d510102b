"""A network from elsewhere becomes a bundle that works like any other."""

import warnings
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import models
from models import BundleInvalid, ImageUnusable, OnnxUnreadable, read_bundle
from models.__main__ import app
from models.architectures import build
from models.importing import Facts, export_bundle, import_onnx
from models.layers import layer_table
from models.normalization import Quantile, ZScore
from tests.models.importing.conftest import AFFINE, SHAPE, Small, brain

FACTS = Facts("small", classes=("a", "b", "c"), space="MNI152NLin6Asym")


def test_a_bundle_computes_what_onnx_runtime_computes(
    exported: Path, reference: Path, tmp_path: Path
) -> None:
    bundle = import_onnx(exported, tmp_path, FACTS, reference)
    again = read_bundle(tmp_path / "small" / "1")
    assert again.digest == bundle.digest
    volumes = torch.rand(3, 1, *SHAPE)
    session = onnxruntime.InferenceSession((bundle.path / "model.onnx").read_bytes())
    (theirs,) = session.run(None, {"volume": volumes.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(again.network()(volumes).numpy(), theirs, atol=1e-5)
    found = bundle.manifest.imported
    assert found is not None
    assert found.agreement < 1e-5
    assert (found.opset, found.source) == (17, "ONNX model small.onnx")
    assert found.producer.startswith("pytorch")
    assert bundle.manifest.input.orientation == "LAS"
    assert "No classifier" not in bundle.card()


def test_layers_are_onnx_values_and_see_what_the_modules_see(
    exported: Path, network: nn.Module, reference: Path, tmp_path: Path
) -> None:
    bundle = import_onnx(exported, tmp_path, FACTS, reference)
    values = {output for node in onnx.load(exported).graph.node for output in node.output}
    layers = {layer.name: layer for layer in bundle.layers()}
    assert set(layers) <= values
    native = {layer.name: layer for layer in layer_table(network, SHAPE, (2.0, 2.0, 2.0))}
    for name in ("first", "second", "head"):
        (ours,) = (layer for layer in layers.values() if f"/{name}/" in layer.name)
        theirs = native[name]
        assert (ours.channels, ours.output_shape) == (theirs.channels, theirs.output_shape)
        assert (ours.receptive_field, ours.stride) == (theirs.receptive_field, theirs.stride)


def test_the_logits_are_those_before_the_softmax(exported: Path, reference: Path, tmp_path: Path) -> None:
    bundle = import_onnx(exported, tmp_path, FACTS, reference)
    assert bundle.layer(bundle.manifest.classifier_layer).type == "Linear"
    unnamed = import_onnx(exported, tmp_path, replace(FACTS, name="unnamed", classes=()), reference)
    assert unnamed.manifest.classes == ("0", "1", "2")


def test_without_a_cohort_nothing_is_claimed_of_real_images(
    exported: Path, reference: Path, tmp_path: Path
) -> None:
    bundle = import_onnx(exported, tmp_path, FACTS, reference)
    assert bundle.prior().layers == ()
    assert "not placed among real images" in " ".join(bundle.card().split())
    np.testing.assert_array_equal(bundle.prior().mask().numpy(), brain(0) > 0)


def test_a_cohort_places_units_among_real_images(
    exported: Path, reference: Path, cohort: Path, tmp_path: Path
) -> None:
    bundle = import_onnx(exported, tmp_path, FACTS, reference, cohort)
    assert bundle.manifest.imported is not None
    assert bundle.manifest.imported.cohort == "6 images"
    prior, network = bundle.prior(), bundle.network()
    layer = bundle.manifest.classifier_layer
    assert layer in prior.layers
    assert len(prior.layers) == 3  # two convolutions and the linear layer
    rule = bundle.manifest.input.normalization
    values = []
    for seed in range(5):  # the sixth lies on another grid
        volume = np.clip(rule.apply(brain(seed)), *bundle.manifest.input.intensity_range)
        with torch.no_grad():
            network.get_submodule(layer).register_forward_hook(lambda _m, _i, out: values.append(out[0]))
            network(torch.from_numpy(volume)[None, None])
            network.get_submodule(layer)._forward_hooks.clear()
    known = prior.activation_quantiles(layer)
    levels = prior.quantile_levels
    ours = torch.stack(values)
    assert bool((known[:, levels.index(0.0)] <= ours.amin(0) + 1e-5).all())
    assert bool((known[:, levels.index(1.0)] >= ours.amax(0) - 1e-5).all())
    assert float(prior.deviation().std()) > 0


def test_equal_imports_give_equal_bytes(
    exported: Path, reference: Path, cohort: Path, tmp_path: Path
) -> None:
    one, two = (import_onnx(exported, tmp_path / folder, FACTS, reference, cohort) for folder in "ab")
    assert one.digest == two.digest


def test_a_fixed_batch_is_freed(network: nn.Module, reference: Path, tmp_path: Path) -> None:
    file = tmp_path / "fixed.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, 1, *SHAPE),), file, dynamo=False, opset_version=13)
    bundle = import_onnx(file, tmp_path, FACTS, reference)
    volumes = torch.rand(4, 1, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(bundle.network()(volumes), network(volumes))


def test_a_batch_that_is_computed_together_is_refused(reference: Path, tmp_path: Path) -> None:
    class Together(Small):
        def forward(self, volume: torch.Tensor) -> torch.Tensor:
            return super().forward(volume - volume.mean())

    file = tmp_path / "together.onnx"
    axes = {"volume": {0: "batch"}, "out": {0: "batch"}}
    names = {"input_names": ["volume"], "output_names": ["out"], "dynamic_axes": axes}
    torch.onnx.export(
        Together().eval(), (torch.zeros(1, 1, *SHAPE),), file, dynamo=False, opset_version=17, **names
    )
    with pytest.raises(OnnxUnreadable, match="change each other"):
        import_onnx(file, tmp_path / "out", FACTS, reference)
    assert not (tmp_path / "out").exists()


def test_both_exporters_of_torch_give_the_same_network(
    network: nn.Module, exported: Path, reference: Path, tmp_path: Path
) -> None:
    file = tmp_path / "dynamo.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, 1, *SHAPE),),
            file,
            dynamo=True,
            verbose=False,
            external_data=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=8)},),
        )
    assert file.with_name("dynamo.onnx.data").is_file()  # the weights are read from beside the model
    volumes = torch.rand(2, 1, *SHAPE)
    bundles = [
        import_onnx(file, tmp_path, FACTS, reference),
        import_onnx(exported, tmp_path, replace(FACTS, name="b"), reference),
    ]
    with torch.no_grad():
        one, two = (bundle.network()(volumes) for bundle in bundles)
    torch.testing.assert_close(one, two)
    assert {path.name for path in bundles[0].path.iterdir()} == {
        path.name for path in bundles[1].path.iterdir()
    }


def test_a_module_is_exported_and_left_as_found(reference: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = Small(softmax=False).train()
    module.norm.eval()
    bundle = export_bundle(module, tmp_path, FACTS, reference)
    assert module.training
    assert not module.norm.training
    assert module.first.training
    assert bundle.manifest.imported is not None
    assert bundle.manifest.imported.source.endswith("Small")
    volumes = torch.rand(2, 1, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(bundle.network()(volumes), module.eval()(volumes), atol=1e-5, rtol=1e-5)


def test_a_registered_architecture_stays_what_it_is(reference: Path, cohort: Path, tmp_path: Path) -> None:
    hyperparameters = {"classes": 3, "widths": [2, 3, 4]}
    torch.manual_seed(1)
    module = build("lesion-net", **hyperparameters)
    bundle = models.export_bundle(module, tmp_path, FACTS, reference, cohort, hyperparameters=hyperparameters)
    assert module.training
    assert bundle.manifest.architecture.name == "lesion-net"
    assert bundle.manifest.classifier_layer == "classifier"
    assert "blocks.0.conv" in bundle.prior().layers
    assert "ONNX values" not in bundle.card()
    volumes = torch.rand(2, 1, *SHAPE)
    with torch.no_grad():
        assert torch.equal(bundle.network()(volumes), module.eval()(volumes))


def test_a_segmenting_network_has_no_classes(reference: Path, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv3d(3, 2, 1), nn.Softmax(1)).eval()
    bundle = export_bundle(module, tmp_path, replace(FACTS, classes=()), reference)
    assert (bundle.manifest.classes, bundle.manifest.classifier_layer) == ((), "")
    assert "No classifier" in bundle.card()
    with pytest.raises(OnnxUnreadable, match="no 3 classes"):
        export_bundle(module, tmp_path, replace(FACTS, name="named"), reference)


def test_images_that_do_not_fit_are_refused(exported: Path, reference: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.nii"
    nibabel.save(nibabel.Nifti1Image(brain(0)[:-2], AFFINE), small)
    out = tmp_path / "out"
    with pytest.raises(ImageUnusable, match=r"small.nii: has shape \(14, 18, 14\), but the network reads"):
        import_onnx(exported, out, FACTS, small)
    empty = tmp_path / "nothing"
    empty.mkdir()
    with pytest.raises(ImageUnusable, match="holds no image"):
        import_onnx(exported, out, FACTS, reference, empty)
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(reference.read_bytes()[:100])
    with pytest.raises(ImageUnusable, match=r"broken.nii.gz: cannot be read"):
        import_onnx(exported, out, FACTS, broken)
    with pytest.raises(OnnxUnreadable, match="must agree"):
        import_onnx(exported, out, replace(FACTS, input_shape=(16, 16, 16)), reference)
    with pytest.raises(OnnxUnreadable, match="gives 3 numbers, but --classes names 2"):
        import_onnx(exported, out, replace(FACTS, classes=("a", "b")), reference)
    with pytest.raises(OnnxUnreadable, match=r"differ by .* at most -1 is"):
        import_onnx(exported, out, replace(FACTS, tolerance=-1.0), reference)
    assert not out.exists()


def test_a_bundle_is_replaced_only_if_wanted(exported: Path, reference: Path, tmp_path: Path) -> None:
    import_onnx(exported, tmp_path, FACTS, reference)
    with pytest.raises(BundleInvalid, match="exists already"):
        import_onnx(exported, tmp_path, FACTS, reference)
    changed = replace(FACTS, normalization=ZScore())
    assert (
        import_onnx(exported, tmp_path, changed, reference, overwrite=True).manifest.input.normalization.kind
        == "zscore"
    )


def test_the_command_makes_a_bundle_and_names_what_is_wrong(
    exported: Path, reference: Path, tmp_path: Path
) -> None:
    common = ["import", str(exported), "--reference", str(reference), "--out", str(tmp_path)]
    options = ["--input-shape", "16,18,14", "--classes", "a, b,c", "--normalization", "quantile:0.9"]
    found = CliRunner().invoke(app, [*common, *options, "--intensity-range", "0,2", "--name", "mine"])
    assert found.exit_code == 0, found.output
    assert "differ from ONNX Runtime's by at most" in found.output
    bundle = read_bundle(tmp_path / "mine" / "1")
    assert bundle.manifest.input.normalization == Quantile(quantile=0.9)
    assert bundle.manifest.input.intensity_range == (0, 2)
    assert bundle.manifest.classes == ("a", "b", "c")
    for options, words in [
        (["--normalization", "median"], "no normalization"),
        (["--input-shape", "16,18"], "no shape"),
        (["--intensity-range", "2"], "no range"),
        (["--name", "Not A Name"], "name"),
        (["--name", "mine"], "exists already"),
    ]:
        found = CliRunner().invoke(app, [*common, *options])
        assert found.exit_code == 2
        assert words in found.output
