"""Exemplars of shipped networks on brains, against a pass of their own and against planted spheres."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from matplotlib import image as pictures
from nibabel.affines import apply_affine, voxel_sizes
from torch import nn
from typer.testing import Result

from models import ZOO, Bundle, Layer, layer_table, read_bundle
from models.manifest import InputSpace
from tests.brains import write_tables
from tests.commands import train
from training.cohort import Cohort, CohortError, read_participants
from training.exemplars import ExemplarError, Slices, UnitExemplars, find_exemplars
from training.lesions.brains import paintable
from training.lesions.images import draw_images
from training.lesions.shapes import CLASSES, Lesion, paint, shape_mask
from training.model_space import choose_subjects, into_model_space, model_images
from training.whole.growth import Region
from training.whole.plants import Window
from training.whole.volumes import coarse, framed

FOLDER = ZOO / "lesion-shapes-robust" / "1"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(FOLDER)


def _layer(bundle: Bundle, name: str, cohort: Cohort) -> Layer:
    x, y, z = cohort.brains.shape[1:]
    return next(layer for layer in bundle.layers((x, y, z)) if layer.name == name)


def _brains(cohort: Cohort, count: int) -> list[tuple[str, np.ndarray]]:
    subjects = cohort.subjects[:count]
    return [(name, cohort.brains[row].astype(np.float32)) for row, name in enumerate(subjects)]


def _find(
    bundle: Bundle, cohort: Cohort, layer: str, units: list[int], images: Any, top: int = 4
) -> tuple[UnitExemplars, ...]:
    return find_exemplars(bundle.network(), _layer(bundle, layer, cohort), units, images, cohort.affine, top)


@pytest.mark.parametrize("name", ["blocks.2.conv", "blocks.1.norm", "classifier"])
def test_activations_are_those_of_a_pass_of_its_own(bundle: Bundle, block: Cohort, name: str) -> None:
    brains, units = _brains(block, 4), [5, 0, 3]
    network, seen = bundle.network(), []
    network.get_submodule(name).register_forward_hook(lambda *call: seen.append(call[2][0].numpy()))
    with torch.no_grad():
        for _, volume in brains:
            network(torch.from_numpy(volume)[None, None])
    answers = np.stack(seen)
    found = _find(bundle, block, name, units, iter(brains), top=3)
    assert [each.unit for each in found] == units
    for each in found:
        values = answers[:, each.unit].reshape(4, -1).max(axis=1)
        order = np.argsort(-values, kind="stable")[:3]
        assert [one.subject for one in each.exemplars] == [brains[row][0] for row in order]
        assert [one.image for one in each.exemplars] == order.tolist()
        assert [one.activation for one in each.exemplars] == values[order].tolist()
        assert [one.quantile for one in each.exemplars] == [1.0, 0.75, 0.5]
        assert each.images == 4
        assert each.quantiles["0.5"] == pytest.approx(np.median(values))
        for one in each.exemplars:
            if name != "classifier":
                assert one.position is not None
                assert answers[(one.image, each.unit, *one.position)] == one.activation
                assert one.center_by == "receptive field"
            else:
                assert one.position is None
                assert one.center_by == "gradient"


def test_the_network_and_the_images_are_left_as_found(bundle: Bundle, block: Cohort) -> None:
    network, brains = bundle.network(), _brains(block, 2)
    before = [volume.copy() for _, volume in brains]
    find_exemplars(network, _layer(bundle, "classifier", block), [1], brains, block.affine)
    assert all(weight.grad is None for weight in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    assert all(np.array_equal(old, new) for old, (_, new) in zip(before, brains, strict=True))


def _sphere(bundle: Bundle, block: Cohort) -> tuple[list[tuple[str, np.ndarray]], np.ndarray]:
    """Paint a sphere into the third of four brains, at the middle of a position of the last convolution."""
    layer = _layer(bundle, "blocks.3.conv", block)
    sites = paintable(block, block.subjects[2:3]).sites[0]
    middle = np.median(sites, axis=0)
    center = np.array(layer.center(layer.position(middle.tolist())))
    whole = np.floor(center)
    mask = shape_mask("sphere", center - whole)
    x, y, z = (int(value) - mask.shape[0] // 2 for value in whole)
    brains = _brains(block, 4)
    name, volume = brains[2]
    brains[2] = name, paint(volume, Lesion(mask, (x, y, z), 1.1))
    return brains, apply_affine(block.affine, center)


def test_a_planted_sphere_comes_first_where_it_was_planted(bundle: Bundle, block: Cohort) -> None:
    brains, planted = _sphere(bundle, block)
    (logit,) = _find(bundle, block, "classifier", [CLASSES.index("sphere")], brains)
    best = logit.exemplars[0]
    assert best.subject == brains[2][0]
    assert best.center_by == "gradient"
    assert np.linalg.norm(np.array(best.center_mm) - planted) <= 4
    # The unit that speaks most for spheres; with the global maximum, its strongest position decides.
    unit = int(bundle.network().get_submodule("classifier").weight[CLASSES.index("sphere")].argmax())
    (local,) = _find(bundle, block, "blocks.3.conv", [unit], brains)
    best = local.exemplars[0]
    assert best.subject == brains[2][0]
    assert best.center_by == "receptive field"
    assert np.linalg.norm(np.array(best.center_mm) - planted) <= 4
    assert best.tissue > 0.5


def test_painted_images_of_one_subject_are_images_of_their_own(bundle: Bundle, block: Cohort) -> None:
    (subject,) = subjects = block.subjects[:1]

    def images() -> Iterator[tuple[str, np.ndarray]]:
        for _, label, volume in draw_images(paintable(block, subjects), draws=2, seed=7):
            yield f"{subject} {CLASSES[label]}", volume

    for found in _find(bundle, block, "classifier", [0, 4], images(), top=3):
        assert found.images == 2 * len(CLASSES)
        assert found.exemplars[0].subject == f"{subject} {CLASSES[found.unit]}"
        assert len({one.image for one in found.exemplars}) == 3


def test_of_equal_images_the_first_goes_first(bundle: Bundle, block: Cohort) -> None:
    (_, volume), (_, other) = _brains(block, 2)
    images = [("a", volume), ("b", other), ("c", volume), ("d", volume)]
    for found in _find(bundle, block, "blocks.1.conv", [0, 1, 2, 3], images, top=3):
        names = [one.subject for one in found.exemplars]
        assert names in (["a", "c", "d"], ["b", "a", "c"])
        assert found.exemplars[names.index("a")].quantile == (1.0 if names[0] == "a" else 0.75)


class Silent(nn.Module):
    """Its logits do not depend on the volume."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.classifier = nn.Linear(1, 2)
        nn.init.zeros_(self.classifier.weight)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.pool(volume).flatten(1))


def test_without_a_gradient_the_center_is_that_of_the_grid() -> None:
    network = Silent()
    layer = layer_table(network, (5, 6, 7), (1.0,) * 3)[-1]
    images = [("one", np.ones((5, 6, 7), np.float32))]
    best = find_exemplars(network, layer, [1], images, np.eye(4))[0].exemplars[0]
    assert best.center_by == "middle of the grid"
    assert best.center_mm == (2.0, 2.5, 3.0)


def test_a_box_without_tissue_says_so() -> None:
    network = nn.Sequential(nn.Conv3d(1, 1, 3, padding=1))
    nn.init.constant_(network[0].weight, -1.0)
    volume = np.zeros((9, 9, 9), np.float32)
    volume[4:] = 1
    layer = layer_table(network, volume.shape, (1.0,) * 3)[0]
    best = find_exemplars(network, layer, [0], [("half", volume)], np.eye(4))[0].exemplars[0]
    assert best.center_mm == (0.0, 0.0, 0.0)
    assert best.tissue == 0


def test_slices_go_through_the_point_in_the_axes_of_the_world(block: Cohort) -> None:
    volume = np.zeros(block.brains.shape[1:], np.float32)
    volume[10, 40, 7] = 1
    point = apply_affine(block.affine, (10, 40, 7))
    slices = Slices.through(volume, block.affine, point)
    sizes = voxel_sizes(block.affine)
    for plane, axes in zip(slices.planes, ((1, 2), (0, 2), (0, 1)), strict=True):
        assert plane.sum() == 1
        places = np.array(np.unravel_index(int(plane.argmax()), plane.shape))
        for place, axis in zip(places, axes, strict=True):
            assert slices.low[axis] + (place + 0.5) * sizes[axis] == pytest.approx(point[axis])
            assert slices.high[axis] - slices.low[axis] == plane.shape[axes.index(axis)] * sizes[axis]


def test_wrong_questions_are_refused(bundle: Bundle, block: Cohort) -> None:
    brains = _brains(block, 1)
    with pytest.raises(ExemplarError, match="unit: is 6, but classifier has units 0 to 5"):
        _find(bundle, block, "classifier", [0, 6], brains)
    with pytest.raises(ExemplarError, match="units: none is named"):
        _find(bundle, block, "classifier", [], brains)
    with pytest.raises(ExemplarError, match="top: is 0"):
        _find(bundle, block, "classifier", [0], brains, top=0)
    with pytest.raises(ExemplarError, match="images: there are none"):
        _find(bundle, block, "classifier", [0], [])
    damaged = brains[0][1].copy()
    damaged[20, 20, 20] = np.nan
    with pytest.raises(ExemplarError, match=r"sub-x: blocks\.1\.conv gives NaN"):
        _find(bundle, block, "blocks.1.conv", [0], [("sub-x", damaged)])
    with pytest.raises(ExemplarError, match=r"take the layer from a table of this shape"):
        find_exemplars(bundle.network(), bundle.layer("blocks.1.conv"), [0], brains, block.affine)


def _reading(bundle: Bundle, cohort: Cohort, **more: Any) -> Bundle:
    """Let a bundle claim to read a cohort's grid."""
    given = {
        "shape": cohort.brains.shape[1:],
        "affine": tuple(tuple(row) for row in cohort.affine.tolist()),
        "voxel_size_mm": tuple(voxel_sizes(cohort.affine).tolist()),
        "orientation": "".join(nibabel.aff2axcodes(cohort.affine)),
        **more,
    }
    space = InputSpace(**{**dict(bundle.manifest.input), **given})
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"input": space}))


@pytest.fixture(scope="module")
def roomy(block: Cohort) -> Cohort:
    """The block's brains with empty space around, unlike at both ends."""
    widths = ((3, 4), (2, 5), (1, 2))
    affine = block.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.array([low for low, _ in widths])
    return replace(block, brains=np.pad(block.brains, ((0, 0), *widths)), affine=affine)


def _check_equal(bundle: Bundle, full: Cohort, small: Cohort) -> None:
    images = list(model_images(bundle, full, full.subjects[:3]))
    assert [name for name, _ in images] == list(full.subjects[:3])
    for (_, volume), expected in zip(images, small.brains, strict=False):
        assert volume.dtype == np.float32
        np.testing.assert_array_equal(volume, expected.astype(np.float32))


def test_each_bundle_gets_the_images_it_was_trained_on(bundle: Bundle, roomy: Cohort) -> None:
    _check_equal(_reading(bundle, roomy), roomy, roomy)
    framed_small = coarse(framed(roomy))
    assert framed_small.brains.shape != coarse(roomy).brains.shape
    _check_equal(_reading(bundle, framed_small), roomy, framed_small)
    window = Window.around(Region(radius=15, reach=24), roomy).cohort(roomy)
    assert window.brains.shape[1:] != coarse(roomy).brains.shape[1:]
    _check_equal(_reading(bundle, window), roomy, window)


def test_grids_that_do_not_fit_are_refused(bundle: Bundle, block: Cohort) -> None:
    small = coarse(block)
    with pytest.raises(CohortError, match=r"grid: the scans have .*resample the scans"):
        into_model_space(bundle, block)
    beyond = replace(small, brains=np.pad(small.brains, ((0, 0), (0, 1), (0, 0), (0, 0))))
    with pytest.raises(CohortError, match="grid"):
        into_model_space(_reading(bundle, beyond), block)
    for shift in (np.array([0.5, 0, 0]), np.array([0, -4.0, 0])):
        moved = replace(small, affine=small.affine.copy())
        moved.affine[:3, 3] += shift
        with pytest.raises(CohortError, match="grid"):
            into_model_space(_reading(bundle, moved), block)
    with pytest.raises(CohortError, match="space: the scans lie in MNI152NLin6Asym, but"):
        into_model_space(_reading(bundle, small, space="MNI305"), block)


def test_subjects_that_did_not_train_are_preferred(bundle: Bundle, block: Cohort) -> None:
    held_out = bundle.manifest.training.subjects_test[:2]
    train = bundle.manifest.training.subjects_train[:3]
    mixed = replace(block, subjects=(*train, *held_out, "sub-x"), brains=block.brains[:6])
    assert choose_subjects(bundle, mixed).subjects == held_out
    assert choose_subjects(bundle, mixed, "all").subjects == mixed.subjects
    strange = replace(block, subjects=(*train, "sub-x"), brains=block.brains[:4])
    found = choose_subjects(bundle, strange)
    assert found.subjects == strange.subjects
    assert "all 4 subjects; identifiers of 3 are among those that trained" in found.words
    with pytest.raises(CohortError, match="--subjects: the cohort has none of the 18 subjects"):
        choose_subjects(bundle, strange, "held-out")


@pytest.fixture(scope="module")
def few(cohort_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three whole brains."""
    root = tmp_path_factory.mktemp("few")
    names = list(read_participants(cohort_dir)[:3])
    for name in names:
        (root / name).symlink_to(cohort_dir / name)
    write_tables(root, names)
    return root


def _run(*arguments: str | Path) -> Result:
    return train("exemplars", *arguments)


def test_the_command_writes_facts_and_pictures(bundle: Bundle, few: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    units = ("--layer", "blocks.3.conv", "--unit", 17, "--unit", 0)
    result = _run(FOLDER, "--cohort", few, "--out", out, *units, "--top", 2, "--subjects", "all")
    assert result.exit_code == 0, result.output
    assert "all 3 subjects" in result.output
    facts = json.loads((out / "exemplars.json").read_text())
    assert (facts["bundle"], facts["digest"]) == (bundle.label, bundle.digest)
    assert facts["layer"]["name"] == "blocks.3.conv"
    assert [unit["unit"] for unit in facts["units"]] == [17, 0]
    assert sorted(path.name for path in out.iterdir()) == [
        "blocks.3.conv-000.png",
        "blocks.3.conv-017.png",
        "exemplars.json",
    ]
    for unit in facts["units"]:
        first, second = unit["exemplars"]
        assert first["activation"] >= second["activation"]
        assert first["receptive_field_mm"] == [52.0, 52.0, 52.0]
        voxel, affine = first["center_voxel"], np.array(bundle.manifest.input.affine)
        np.testing.assert_allclose(first["center_mm"], apply_affine(affine, voxel))
        picture = pictures.imread(out / unit["picture"])
        assert min(picture.shape[:2]) > 400
        assert picture[..., :3].std() > 0.05


def test_without_a_layer_the_units_are_the_classes(few: Path, tmp_path: Path) -> None:
    result = _run(FOLDER, "--cohort", few, "--out", tmp_path, "--top", 1)
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "exemplars.json").read_text())
    assert [unit["name"] for unit in facts["units"]] == [f"class {name}" for name in CLASSES]
    assert {one["center_by"] for unit in facts["units"] for one in unit["exemplars"]} == {"gradient"}
    assert len(list(tmp_path.glob("*.png"))) == len(CLASSES)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--layer", "blocks.9"), "no layer 'blocks.9'; valid layers: blocks.0.conv"),
        (("--unit", "6"), "--unit: is 6, but classifier has units 0 to 5"),
        (("--description", "rigid"), "no scan"),
    ],
)
def test_the_command_says_what_is_wrong(
    few: Path, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    result = _run(FOLDER, "--cohort", few, "--out", tmp_path / "new", *more)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "new").exists()


def test_the_command_refuses_another_grid_and_a_full_folder(
    block_dir: Path, few: Path, tmp_path: Path
) -> None:
    result = _run(FOLDER, "--cohort", block_dir, "--out", tmp_path / "new")
    assert (result.exit_code, "resample the scans" in result.stderr) == (2, True)
    (tmp_path / "mine.txt").write_text("keep")
    result = _run(FOLDER, "--cohort", few, "--out", tmp_path)
    assert (result.exit_code, "is not empty" in result.stderr) == (2, True)
