import gzip
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from models import (
    Bundle,
    BundleCorrupt,
    BundleInvalid,
    ExportFailed,
    LayerNotFound,
    ModelError,
    Prior,
    read_bundle,
    write_bundle,
)
from models.architectures import REGISTRY, build
from models.manifest import Manifest
from models.reference import decode
from models.verifying import MAX_MANIFEST_BYTES

FILES = [
    "MODEL_CARD.md",
    "bundle.json",
    "model.onnx",
    "prior.safetensors",
    "reference.nii.gz",
    "weights.safetensors",
]
PARTS = [file for file in FILES if file != "bundle.json"]


Writer = Callable[..., Bundle]


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def change(facts: dict[str, Any], field: str, value: Any) -> None:
    """Set a dotted field of nested values."""
    *parents, last = field.split(".")
    for parent in parents:
        facts = facts[parent]
    facts[last] = value


def seal(folder: Path, changes: Mapping[str, Any] | None = None) -> None:
    """Make a bundle's digests right again after its files were changed, and change fields of its manifest."""
    facts = json.loads((folder / "bundle.json").read_bytes())
    facts["files"] = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.name != "bundle.json"
    }
    for field, value in (changes or {}).items():
        change(facts, field, value)
    (folder / "bundle.json").write_text(json.dumps(facts))


def test_round_trip(master: Bundle, manifest: Manifest, network: nn.Module, prior: Prior) -> None:
    bundle = read_bundle(master.path)
    assert listing(bundle.path) == FILES
    assert bundle.digest == hashlib.sha256((bundle.path / "bundle.json").read_bytes()).hexdigest()
    assert bundle.manifest.model_copy(update={"files": {}}) == manifest
    assert sorted(bundle.manifest.files) == PARTS
    assert bundle.card() == "# tiny\n"

    loaded = bundle.network()
    assert not loaded.training
    assert loaded is not bundle.network()
    volume = torch.rand(2, 1, *manifest.input.shape)
    assert torch.equal(loaded(volume), network(volume))
    assert {name: tensor.tolist() for name, tensor in bundle.prior().items()} == {
        name: tensor.tolist() for name, tensor in prior.items()
    }
    assert [layer.name for layer in bundle.layers()][-2:] == ["pool", "classifier"]
    assert bundle.layers() is bundle.layers()


def test_reference_lies_in_mni_space_in_model_units(master: Bundle, brain: np.ndarray) -> None:
    image = master.reference()
    affine = np.array(master.manifest.input.affine)
    assert np.array_equal(image.affine, affine)
    assert image.get_data_dtype() == np.float32
    values = image.get_fdata()
    assert np.abs(values - brain).max() <= brain.max() / 510 + 1e-6
    assert (values[brain == 0] == 0).all()
    stored = nibabel.Nifti1Image.from_filename(master.path / "reference.nii.gz")
    for header in (image.header, stored.header):
        assert int(header["qform_code"]) == int(header["sform_code"]) == 4
        assert header.get_xyzt_units()[0] == "mm"
    assert stored.get_data_dtype() == np.uint8
    assert np.array_equal(stored.get_qform(), affine)


def test_loading_leaves_the_random_state_alone(master: Bundle) -> None:
    before = torch.get_rng_state()
    master.network()
    read_bundle(master.path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_bundle_travels_to_another_process(master: Bundle) -> None:
    there = pickle.loads(pickle.dumps(master))
    assert there == master
    assert there.layers() == master.layers()


def test_writing_twice_gives_the_same_bytes(master: Bundle, write: Writer, tmp_path: Path) -> None:
    again = write(tmp_path)
    assert again.digest == master.digest
    assert all((again.path / file).read_bytes() == (master.path / file).read_bytes() for file in FILES)


def test_writing_leaves_no_trace_of_the_machine(master: Bundle) -> None:
    here = str(Path(__file__).resolve().parents[2]).encode()
    for file in FILES:
        data = (master.path / file).read_bytes()
        data = gzip.decompress(data) if file.endswith(".gz") else data
        assert here not in data
        assert b"site-packages" not in data


def test_without_onnx(write: Writer, tmp_path: Path) -> None:
    assert "model.onnx" not in listing(write(tmp_path, onnx=False).path)


@pytest.mark.parametrize("file", PARTS)
@pytest.mark.parametrize("position", ["first", "middle", "last"])
def test_one_flipped_bit_is_found_and_the_file_named(root: Path, file: str, position: str) -> None:
    path = root / "tiny" / "1" / file
    data = bytearray(path.read_bytes())
    data[{"first": 0, "middle": len(data) // 2, "last": -1}[position]] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleCorrupt) as caught:
        read_bundle(path.parent)
    assert caught.value.file == file
    assert file in str(caught.value)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(root: Path, file: str) -> None:
    (root / "tiny" / "1" / file).unlink()
    with pytest.raises(BundleCorrupt) as caught:
        read_bundle(root / "tiny" / "1")
    assert caught.value.file == file


@pytest.mark.parametrize("file", FILES)
def test_an_emptied_file_is_refused(root: Path, file: str) -> None:
    (root / "tiny" / "1" / file).write_bytes(b"")
    with pytest.raises(ModelError, match=file):
        read_bundle(root / "tiny" / "1")


@pytest.mark.parametrize("file", FILES)
def test_a_link_is_refused_even_if_its_content_is_right(root: Path, tmp_path: Path, file: str) -> None:
    path = root / "tiny" / "1" / file
    path.rename(tmp_path / file)
    path.symlink_to(tmp_path / file)
    with pytest.raises(BundleCorrupt) as caught:
        read_bundle(path.parent)
    assert caught.value.file == file


def test_a_pipe_is_refused_and_does_not_block(root: Path) -> None:
    path = root / "tiny" / "1" / "MODEL_CARD.md"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BundleCorrupt, match="not a plain file"):
        read_bundle(path.parent)


@pytest.mark.parametrize("extra", ["weights.pt", ".hidden", "folder"])
def test_an_extra_file_is_named(root: Path, extra: str) -> None:
    path = root / "tiny" / "1" / extra
    path.mkdir() if extra == "folder" else path.write_bytes(b"x")
    with pytest.raises(BundleCorrupt) as caught:
        read_bundle(path.parent)
    assert caught.value.file == extra


def test_a_file_that_changes_after_verification_is_found(root: Path) -> None:
    bundle = read_bundle(root / "tiny" / "1")
    for file, load in [
        ("weights.safetensors", bundle.network),
        ("reference.nii.gz", bundle.reference),
        ("prior.safetensors", bundle.prior),
        ("MODEL_CARD.md", bundle.card),
    ]:
        with (bundle.path / file).open("ab") as stream:
            stream.write(b"x")
        with pytest.raises(BundleCorrupt) as caught:
            load()
        assert caught.value.file == file


@pytest.mark.parametrize(
    ("folder", "field"), [("other/1", "name"), ("tiny/2", "version"), ("tiny/01", "version")]
)
def test_a_folder_with_another_name_is_refused(root: Path, tmp_path: Path, folder: str, field: str) -> None:
    target = tmp_path / "elsewhere" / folder
    shutil.copytree(root / "tiny" / "1", target)
    with pytest.raises(BundleInvalid) as caught:
        read_bundle(target)
    assert caught.value.field == field


def test_a_huge_manifest_is_not_parsed(root: Path) -> None:
    path = root / "tiny" / "1" / "bundle.json"
    path.write_bytes(path.read_bytes() + b" " * MAX_MANIFEST_BYTES)
    with pytest.raises(BundleCorrupt, match="larger than"):
        read_bundle(path.parent)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "bundle.json"),
        ("[]", "bundle.json"),
        ("{", "bundle.json"),
        ("[" * 100_000, "bundle.json"),
        ("\x00", "bundle.json"),
    ],
)
def test_a_manifest_that_is_no_manifest(root: Path, text: str, field: str) -> None:
    (root / "tiny" / "1" / "bundle.json").write_text(text)
    with pytest.raises(BundleInvalid) as caught:
        read_bundle(root / "tiny" / "1")
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("changed", "value", "field"),
    [
        ("schema_version", 2, "schema_version"),
        ("surprise", 1, "surprise"),
        ("architecture.name", "vgg", "architecture.name"),
        ("architecture.hyperparameters", {"depth": 3}, "architecture.hyperparameters"),
        ("architecture.hyperparameters", {"widths": 7}, "architecture.hyperparameters"),
        ("architecture.hyperparameters", {"widths": ["a"]}, "architecture.hyperparameters"),
        ("architecture.hyperparameters", {"classes": 10**9}, "architecture.hyperparameters"),
        ("architecture.hyperparameters", {"classes": 3, "widths": [2, 3, 5]}, "weights.safetensors"),
        ("classes", ["none", "sphere", "cube", "cross"], "classes"),
        ("classes", ["none", "sphere", "sphere"], "bundle.json"),
        ("classes", ["none", "sphere", "cross"], "bundle.json"),
        ("classifier_layer", "pool", "classes"),
        ("classifier_layer", "head", "classifier_layer"),
        ("files", {}, "files"),
        ("files", {"../secret": "0" * 64}, "files.../secret.[key]"),
        ("files", {"MODEL_CARD.md": "abc"}, "files.MODEL_CARD.md"),
        ("license", "", "license"),
        ("name", "../tiny", "name"),
        ("version", 0, "version"),
        ("training.subjects_test", ["sub-01"], "training"),
        ("evaluation.chance", float("nan"), "evaluation.chance"),
        ("evaluation.accuracy.low", 2, "evaluation.accuracy"),
        ("input.shape", [11, 12, 14], "reference.nii.gz"),
        ("input.shape", [0, 12, 14], "input.shape.0"),
        ("input.shape", [2, 2, 2], "architecture.hyperparameters"),
        ("input.affine", [[0, 0, 0, 0]] * 4, "input"),
        ("input.orientation", "RAS", "input"),
        ("input.voxel_size_mm", [1, 2, 2], "input"),
        ("input.intensity_range", [1, 0], "input"),
    ],
)
def test_a_manifest_that_cannot_be_used_names_its_field(
    root: Path, changed: str, value: Any, field: str
) -> None:
    seal(root / "tiny" / "1", {changed: value})
    with pytest.raises(BundleInvalid) as caught:
        read_bundle(root / "tiny" / "1")
    assert caught.value.field == field
    assert str(root) not in str(caught.value)
    assert str(caught.value).startswith("model tiny/1: ")


def test_a_pickle_is_never_loaded(root: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    for file in ("weights.safetensors", "prior.safetensors", "reference.nii.gz"):
        spoiled = tmp_path / file.split(".")[0] / "tiny" / "1"
        shutil.copytree(root / "tiny" / "1", spoiled)
        torch.save({"weight": Trap()}, spoiled / file)
        seal(spoiled)
        with pytest.raises(BundleInvalid) as caught:
            read_bundle(spoiled)
        assert caught.value.field == file
    assert not (tmp_path / "sprung").exists()


def test_a_reference_that_unpacks_to_far_more_is_refused(root: Path) -> None:
    folder = root / "tiny" / "1"
    (folder / "reference.nii.gz").write_bytes(gzip.compress(bytes(50_000_000)))
    seal(folder)
    with pytest.raises(BundleInvalid, match="holds more than"):
        read_bundle(folder)


def test_a_cut_reference_is_refused(root: Path) -> None:
    folder = root / "tiny" / "1"
    data = gzip.decompress((folder / "reference.nii.gz").read_bytes())
    for spoiled in (gzip.compress(data[:-100]), gzip.compress(data[:100]), gzip.compress(data)[:-20]):
        (folder / "reference.nii.gz").write_bytes(spoiled)
        seal(folder)
        with pytest.raises(BundleInvalid) as caught:
            read_bundle(folder)
        assert caught.value.field == "reference.nii.gz"


def test_a_surplus_weight_is_refused(root: Path) -> None:
    path = root / "tiny" / "1" / "weights.safetensors"
    weights = {**safetensors.torch.load_file(path), "surplus": torch.zeros(1)}
    safetensors.torch.save_file(weights, path)
    seal(path.parent)
    with pytest.raises(BundleInvalid, match="surplus"):
        read_bundle(path.parent)


def test_activations_of_an_unknown_layer_are_refused(write: Writer, prior: Prior, tmp_path: Path) -> None:
    tensors = {**prior, "activations/head": prior["activations/classifier"]}
    with pytest.raises(BundleInvalid, match="head"):
        write(tmp_path, prior=tensors)


def nothing_is_left(root: Path) -> bool:
    return [path for path in root.rglob("*") if path.name != "tiny"] == []


def test_a_failed_write_leaves_nothing(
    write: Writer, reference: nibabel.Nifti1Image, prior: Prior, tmp_path: Path
) -> None:
    other = build("lesion-net", classes=3, widths=(2, 3, 5)).eval()
    wrong_grid = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.float32), reference.affine)
    not_finite = nibabel.Nifti1Image(np.full(reference.shape, np.nan, np.float32), reference.affine)
    elsewhere = nibabel.Nifti1Image(reference.get_fdata(), reference.affine + np.eye(4, k=3))
    short = {name: tensor for name, tensor in prior.items() if name != "mask"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"network": other}, "weights.safetensors"),
        ({"reference": wrong_grid}, "shape"),
        ({"reference": not_finite}, "finite"),
        ({"reference": elsewhere}, "affine"),
        ({"prior": short}, "mask"),
    ]
    for changes, match in cases:
        with pytest.raises(BundleInvalid, match=match):
            write(tmp_path, **changes)
        assert nothing_is_left(tmp_path)


def test_a_network_that_computes_nan_is_not_written(
    write: Writer, network: nn.Module, tmp_path: Path
) -> None:
    sick = build("lesion-net", classes=3, widths=(2, 3, 4)).eval()
    sick.load_state_dict(
        {k: v * float("nan") if v.is_floating_point() else v for k, v in network.state_dict().items()}
    )
    with pytest.raises(ExportFailed):
        write(tmp_path, network=sick)
    assert nothing_is_left(tmp_path)


def test_an_existing_version_is_replaced_only_on_demand(write: Writer, tmp_path: Path) -> None:
    first = write(tmp_path, onnx=False)
    with pytest.raises(BundleInvalid, match="exists already"):
        write(tmp_path, onnx=False, card="# other\n")
    assert read_bundle(first.path).digest == first.digest
    second = write(tmp_path, onnx=False, card="# other\n", overwrite=True)
    assert second.path == first.path
    assert read_bundle(first.path).card() == "# other\n"
    assert listing(tmp_path / "tiny") == ["1"]


def test_a_failed_replacement_keeps_the_old_bundle(write: Writer, tmp_path: Path) -> None:
    first = write(tmp_path, onnx=False)
    with pytest.raises(BundleInvalid):
        write(tmp_path, prior={}, overwrite=True)
    assert read_bundle(first.path).digest == first.digest
    assert listing(tmp_path / "tiny") == ["1"]


def test_writing_into_a_folder_with_another_name_is_refused(master: Bundle, tmp_path: Path) -> None:
    parts = (master.manifest, master.network(), master.reference(), master.prior(), master.card())
    with pytest.raises(BundleInvalid, match="tiny/1"):
        write_bundle(tmp_path / "big" / "1", *parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_architecture_keeps_all_its_tensors_in_the_state_dict(name: str) -> None:
    network = build(name)
    tensors = {n for n, _ in network.named_parameters()} | {n for n, _ in network.named_buffers()}
    assert tensors == set(network.state_dict())


def test_layers_on_another_grid(master: Bundle) -> None:
    """A smaller volume has the same layers with smaller outputs; a global layer sees all of that volume."""
    layers = {layer.name: layer for layer in master.layers((8, 8, 9))}
    assert list(layers) == [layer.name for layer in master.layers()]
    assert layers["blocks.0.conv"].output_shape == (8, 8, 9)
    assert layers["classifier"].receptive_field == (8, 8, 9)
    assert master.layer("classifier").receptive_field == master.manifest.input.shape
    with pytest.raises(BundleInvalid, match=r"\(2, 2, 2\)"):
        master.layers((2, 2, 2))


def test_an_unknown_layer_is_answered_with_the_valid_ones(master: Bundle) -> None:
    assert master.layer("blocks.1.conv").channels == 3
    with pytest.raises(LayerNotFound, match=r"valid layers: blocks\.0\.conv, .*classifier$"):
        master.layer("blocks.9.conv")


ORDINARY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@ORDINARY
@given(file=st.sampled_from(FILES), where=st.floats(0, 1), value=st.integers(0, 255))
def test_whatever_byte_changes_only_model_errors_come_out(
    root: Path, file: str, where: float, value: int
) -> None:
    """Also with digests that fit, as of a bundle that was made wrongly: nothing but a ModelError leaves."""
    path = root / "tiny" / "1" / file
    right = {name: (path.parent / name).read_bytes() for name in FILES}
    data = bytearray(right[file])
    data[int(where * (len(data) - 1))] = value
    path.write_bytes(data)
    if file != "bundle.json":
        seal(path.parent)
    try:
        message = f"{read_bundle(path.parent).label} is intact"
    except ModelError as error:
        message = str(error)
    finally:
        for name, content in right.items():
            (path.parent / name).write_bytes(content)
    assert "tiny/1" in message
    assert str(root) not in message


@ORDINARY
@given(where=st.integers(0, 351), value=st.integers(0, 255))
def test_whatever_byte_of_the_nifti_header_changes_only_model_errors_come_out(
    master: Bundle, where: int, value: int
) -> None:
    plain = bytearray(gzip.decompress((master.path / "reference.nii.gz").read_bytes()))
    plain[where] = value
    space = master.manifest.input
    with suppress(ValueError):
        assert decode(gzip.compress(plain, 1), space.shape, space.affine).shape == space.shape
