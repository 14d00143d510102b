"""Real lesion masks as a class: matched to all others, checked on reading, told in the bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from typer.testing import Result

from models import Bundle, read_bundle
from tests.commands import train
from training.cohort import Cohort, CohortError
from training.console import keep_run
from training.lesions.brains import Brains
from training.lesions.catalog import BUILT_IN, Catalog, read_catalog
from training.lesions.command import BASELINE_DRAWS, _identity
from training.lesions.crops import CropSampler
from training.lesions.images import draw_images
from training.lesions.masks import MaskShapes, read_masks
from training.lesions.recipe import lesion_recipe
from training.lesions.shapes import CLASSES, GRID, PROFILE, REACH, centers, draw_lesion, shape_mask
from training.lesions.task import LESIONS, lesion_task

REAL = Path(__file__).parents[3] / "shared" / "lesion-masks"


def _write(path: Path, mask: np.ndarray, sizes: tuple[float, ...] = (1, 1, 1)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.float32), np.diag([*sizes, 1.0])), path)
    return path


def _ellipsoid(
    radii: tuple[float, float, float], sizes: tuple[float, float, float] = (1, 1, 1)
) -> np.ndarray:
    """Boolean ellipsoid; radii and voxel sizes in mm."""
    axes = [(np.arange(round(2 * r / s) + 5) - r / s - 2) * s / r for r, s in zip(radii, sizes, strict=True)]
    return np.asarray(sum(np.square(axis) for axis in np.meshgrid(*axes, indexing="ij")) <= 1)


def _bent(thickness: int) -> np.ndarray:
    """Three bars of different lengths that meet in a corner: none of its turns or mirror images agree."""
    mask = np.zeros((40, 40, 40), bool)
    low, high = 4, 4 + thickness
    mask[low:30, low:high, low:high] = True
    mask[low:high, low:24, low:high] = True
    mask[low:high, low:high, low:18] = True
    return mask


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four lesion masks: real ones of stroke where there are any beside the checkout, else invented."""
    root = tmp_path_factory.mktemp("shapes") / "Stroke_Masks"
    root.mkdir()
    found = sorted(REAL.glob("*.nii.gz"))[:4]
    for path in found:
        (root / path.name).symlink_to(path)
    if not found:
        for index in range(4):
            _write(root / f"{index}.nii.gz", _bent(7 + index), (1, 1.2, 2))
    (root / "LICENSE").write_text("\n    Some License\n  Version 2.0, January 2004\n\nTERMS\n")
    return root


@pytest.fixture(scope="module")
def catalog(folder: Path) -> Catalog:
    return read_catalog([folder])


def _random_brains() -> Brains:
    rng = np.random.default_rng(0)
    volumes = (0.5 + 0.2 * rng.random((2, 40, 44, 36))).astype(np.float16)
    return Brains(volumes, tuple(centers(volume > 0) for volume in volumes))


def test_built_in_batches_are_those_from_before_there_were_folders() -> None:
    """Figures of the code as it was with one fixed list of classes."""
    crops, labels = CropSampler(_random_brains(), 5).batch(1, 14, 24)
    assert labels.tolist() == [2, 0, 5, 4, 3, 1, 5, 3, 1, 2, 4, 0, 5, 0]
    sums = [8109.667, 8117.212, 7951.954, 8173.374, 9183.477, 7632.496, 7726.435]
    sums += [7640.797, 9097.699, 9045.053, 7845.616, 8419.349, 7632.038, 8102.01]
    np.testing.assert_allclose(crops.double().sum((1, 2, 3, 4)), sums, atol=2e-3)


def test_built_in_lesions_take_the_same_randomness(catalog: Catalog) -> None:
    sites = _random_brains().sites[0]
    for chosen in (BUILT_IN, catalog):
        mine, theirs = np.random.default_rng(3), np.random.default_rng(3)
        for label in CLASSES * 3:
            drawn, expected = chosen.draw(label, sites, mine), draw_lesion(label, sites, theirs)
            assert (drawn is None) == (expected is None)
            if drawn and expected:
                np.testing.assert_array_equal(drawn.mask, expected.mask)
                assert (drawn.corner, drawn.target) == (expected.corner, expected.target)
        assert mine.bit_generator.state == theirs.bit_generator.state


def test_folders_stand_between_the_shapes_and_none(catalog: Catalog) -> None:
    assert BUILT_IN.classes == CLASSES
    assert catalog.classes == (*CLASSES[:-1], "stroke-masks", "none")
    with pytest.raises(ValueError, match="pyramid"):
        catalog.draw("pyramid", np.zeros((1, 3), int), np.random.default_rng(0))


def _offset(rng: np.random.Generator, masks: MaskShapes) -> np.ndarray:
    """Where a drawn mask is centred, beside the grid's middle: drawn after which one and how it is turned."""
    rng.integers(masks.used), rng.permutation(3), rng.choice(2, size=3)
    return rng.uniform(-0.5, 0.5, 3)


def test_every_mask_holds_the_common_values_within_reach(catalog: Catalog) -> None:
    for seed in range(40):
        rng, twin = np.random.default_rng(seed), np.random.default_rng(seed)
        lesion = catalog.draw("stroke-masks", np.array([[20, 21, 22]]), rng)
        assert lesion is not None
        mask = lesion.mask
        assert mask.shape == (GRID,) * 3
        assert mask.dtype == np.float32
        np.testing.assert_array_equal(np.sort(mask[mask > 0])[::-1], PROFILE)
        assert lesion.corner == (12, 13, 14)
        center = GRID // 2 + _offset(twin, catalog.folders[0])
        assert np.linalg.norm(np.argwhere(mask > 0) - center, axis=1).max() <= REACH


def test_a_lesion_has_its_masks_form_at_any_size_and_voxel_size(tmp_path: Path) -> None:
    for index, (radius, sizes) in enumerate([(9.0, (1, 1, 1)), (30.0, (1, 1, 3)), (30.0, (2, 1.5, 1))]):
        path = tmp_path / f"round-{index}" / "mask.nii.gz"
        _write(path, _ellipsoid((radius,) * 3, sizes), sizes)
        masks = read_masks(path.parent)
        drawn = masks.draw_mask(np.random.default_rng(index))
        sphere = shape_mask("sphere", _offset(np.random.default_rng(index), masks))
        assert (drawn * sphere).sum() / (sphere**2).sum() > 0.99
    long = _ellipsoid((20, 10, 10))
    _write(tmp_path / "long" / "mask.nii", long)
    drawn = read_masks(tmp_path / "long").draw_mask(np.random.default_rng(0))
    spread = np.sort(np.linalg.eigvalsh(np.cov(np.argwhere(drawn > 0.5).T))) ** 0.5
    assert spread[2] / spread[1] == pytest.approx(2, rel=0.1)
    assert spread[1] / spread[0] == pytest.approx(1, rel=0.1)


def test_masks_are_turned_and_mirrored(tmp_path: Path) -> None:
    masks = read_masks(_write(tmp_path / "bent" / "mask.nii", _bent(6)).parent)
    rng = np.random.default_rng(0)
    tips = set()
    for _ in range(200):
        far = np.argwhere(masks.draw_mask(rng) > 0.5) - GRID // 2
        tip = far[np.linalg.norm(far, axis=1).argmax()]
        longest = int(np.abs(tip).argmax())
        tips.add((longest, int(np.sign(tip[longest]))))
    assert tips == {(axis, sign) for axis in range(3) for sign in (-1, 1)}


def test_only_the_largest_part_counts(tmp_path: Path) -> None:
    ball = np.pad(_ellipsoid((8, 8, 8)), 12)
    whole = read_masks(_write(tmp_path / "one" / "mask.nii", ball).parent)
    ball[2:5, 2:5, 2:5] = True
    parts = read_masks(_write(tmp_path / "two" / "mask.nii", ball).parent)
    np.testing.assert_allclose(whole.depths, parts.depths, atol=1e-5)


def test_long_masks_are_left_out_and_counted(tmp_path: Path) -> None:
    rod = np.zeros((80, 8, 8), bool)
    rod[2:78, 3:5, 3:5] = True
    _write(tmp_path / "mixed" / "rod.nii", rod)
    with pytest.raises(CohortError, match=r"none of the 1 masks .* use compacter ones"):
        read_masks(tmp_path / "mixed")
    _write(tmp_path / "mixed" / "ball.nii", _ellipsoid((6, 6, 6)))
    masks = read_masks(tmp_path / "mixed")
    assert (masks.used, masks.found) == (1, 2)


def _spoil(value: float) -> np.ndarray:
    mask = np.ones((6, 6, 6), np.float32)
    mask[2, 2, 2] = value
    return mask


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, r"is no folder; name one"),
        (lambda path: path.mkdir(), r"holds no \.nii, \.nii\.gz or \.mgz; put one"),
        (lambda path: _write(path / "a.nii", np.zeros((6, 6, 6))), r"a\.nii: is empty .*; remove it"),
        (lambda path: _write(path / "a.nii", np.ones((6, 6, 6, 2))), r"a\.nii: has 4 axes, not 3; keep one"),
        (lambda path: _write(path / "a.nii", _spoil(np.nan)), r"a\.nii: holds NaN .*; replace them"),
        (lambda path: _write(path / "a.nii.gz", _ellipsoid((4, 4, 4))).write_bytes(b"x"), "cannot be read"),
    ],
)
def test_what_is_wrong_is_named_with_a_remedy(
    write: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    write(tmp_path / "spoiled")
    with pytest.raises(CohortError, match=message):
        read_catalog([tmp_path / "spoiled"])


@pytest.mark.parametrize("name", ["Sphere", "none", "ROBUST", "___"])
def test_a_class_needs_a_name_of_its_own(name: str, tmp_path: Path) -> None:
    _write(tmp_path / name / "mask.nii", _ellipsoid((6, 6, 6)))
    with pytest.raises(CohortError, match="rename the folder"):
        read_catalog([tmp_path / name])


def test_two_folders_need_two_names(folder: Path, tmp_path: Path) -> None:
    _write(tmp_path / "stroke masks" / "mask.nii", _ellipsoid((6, 6, 6)))
    with pytest.raises(CohortError, match="'stroke-masks', the name of another folder's class"):
        read_catalog([folder, tmp_path / "stroke masks"])


def test_the_license_is_what_the_folder_says(catalog: Catalog, tmp_path: Path) -> None:
    assert catalog.folders[0].license == "Some License, Version 2.0, January 2004"
    path = _write(tmp_path / "bare" / "mask.nii", _ellipsoid((6, 6, 6)))
    assert read_masks(path.parent).license == "not stated"
    (path.parent / "LICENSES").mkdir()
    assert read_masks(path.parent).license == "not stated"
    (path.parent / "dataset_description.json").write_text(json.dumps({"License": "PDDL"}))
    assert read_masks(path.parent).license == "PDDL"


def test_images_and_batches_are_balanced_over_all_classes(catalog: Catalog) -> None:
    count = len(catalog.classes)
    _, labels = CropSampler(_random_brains(), 5, catalog=catalog).batch(0, 2 * count, 20)
    assert torch.bincount(labels).tolist() == [2] * count
    assert [label for _, label, _ in draw_images(_random_brains(), 1, 0, catalog)] == [*range(count)] * 2


def test_the_built_in_task_and_recipe_stay_as_they_are() -> None:
    assert lesion_task(BUILT_IN) == LESIONS
    assert lesion_recipe(catalog=BUILT_IN) == lesion_recipe()
    assert "none is real" in LESIONS.wording.division


def _run(*arguments: str | Path) -> Result:
    return train("lesions", *arguments)


@pytest.fixture(scope="module")
def run(block_dir: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    out = tmp_path_factory.mktemp("repository")
    arguments = ("--cohort", block_dir, "--out", out, "--steps", "2", "--draws", "1", "--shapes", folder)
    batch, seen = CropSampler.batch, set[int]()

    def watched(self: CropSampler, step: int, size: int, edge: int) -> tuple[torch.Tensor, torch.Tensor]:
        crops, labels = batch(self, step, size, edge)
        seen.update(labels.tolist())
        return crops, labels

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CropSampler, "batch", watched)
        result = _run(*arguments)
    assert seen == set(range(7)), "the network was not shown every class"
    return result, out


@pytest.fixture(scope="module")
def bundle(run: tuple[Result, Path]) -> Bundle:
    assert run[0].exit_code == 0, run[0].output
    return read_bundle(run[1] / "lesion-shapes-stroke-masks" / "1")


def test_a_network_of_seven_classes_reads_back(
    run: tuple[Result, Path], bundle: Bundle, catalog: Catalog
) -> None:
    manifest = bundle.manifest
    assert manifest.classes == catalog.classes
    assert manifest.architecture.hyperparameters["classes"] == 7
    assert manifest.evaluation.chance == pytest.approx(1 / 7)
    assert set(manifest.evaluation.per_class) == set(catalog.classes)
    subjects = len(manifest.training.subjects_test)
    assert {value.n for value in manifest.evaluation.baselines.values()} == {BASELINE_DRAWS * subjects * 7}
    answers = bundle.network()(torch.zeros(1, 1, *manifest.input.shape))
    assert answers.shape == (1, 7)
    assert "stroke-masks: 4 of 4 masks used" in run[0].output


def test_the_bundle_says_which_shapes_are_real(bundle: Bundle, folder: Path) -> None:
    recipe, card = bundle.manifest.training.recipe, bundle.card()
    assert recipe["real_masks"] == {
        "stroke-masks": {"used": 4, "found": 4, "license": "Some License, Version 2.0, January 2004"}
    }
    assert "Those of stroke-masks have the shape of real lesion masks" in card
    assert "no diagnosis" in card
    for words in ("none is real", "never seen a real lesion", str(folder.parent)):
        assert words not in card
        assert words not in bundle.manifest.model_dump_json()


def test_a_checkpoint_of_other_masks_is_refused(
    block_dir: Path, block: Cohort, folder: Path, catalog: Catalog, tmp_path: Path
) -> None:
    (masks,) = catalog.folders
    turned = Catalog((replace(masks, depths=np.ascontiguousarray(masks.depths[:, ::-1])),))
    assert turned.digest() != catalog.digest() == read_catalog([folder]).digest()
    task = replace(lesion_task(turned), name="mine")
    recipe = lesion_recipe(catalog=turned).scaled(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 1)
        keep_run(tmp_path, task, block, recipe, **_identity(turned)).save({})
    result = _run(
        "--cohort", block_dir, "--out", tmp_path, "--steps", "2", "--name", "mine", "--shapes", folder
    )
    assert result.exit_code == 2
    assert "another run; remove" in result.output


def test_a_wrong_folder_stops_before_the_cohort_is_read(tmp_path: Path) -> None:
    result = _run("--cohort", tmp_path, "--out", tmp_path / "out", "--shapes", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "nowhere is no folder" in result.output
    assert not (tmp_path / "out").exists()


def test_a_name_that_grew_too_long_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / ("long" * 15) / "mask.nii", _ellipsoid((6, 6, 6)))
    result = _run("--cohort", tmp_path, "--out", tmp_path / "out", "--shapes", path.parent)
    assert result.exit_code == 2
    assert "give a shorter one with --name" in result.output
