"""Images of persons come onto the model's grid, or are refused with the reason."""

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from nilearn.image import resample_to_img
from scipy.ndimage import gaussian_filter1d, map_coordinates

from models import ZOO, read_bundle
from service.errors import InvalidField, SubjectUnusable
from service.volumes.subject import read_subject

BUNDLE = read_bundle(ZOO / "lesion-shapes" / "1")
SPACE = BUNDLE.manifest.input
AFFINE = np.asarray(SPACE.affine)
MASK = BUNDLE.prior().mask().numpy()
LIMIT = 64_000_000


@pytest.fixture(scope="module")
def brain(cohort_dir: Path) -> nibabel.Nifti1Image:
    return nibabel.load(sorted(cohort_dir.glob("sub-*/anat/*desc-affinebrain_T1w.nii.gz"))[0])


def _image(volume: np.ndarray, affine: np.ndarray = AFFINE) -> nibabel.Nifti1Image:
    image = nibabel.Nifti1Image(volume, affine)
    image.set_sform(affine, 2)
    return image


def _read(data: bytes, limit: int = LIMIT) -> np.ndarray:
    return read_subject(data, BUNDLE.manifest, MASK, "subject.nifti", limit)


def _normalized(volume: np.ndarray) -> np.ndarray:
    volume = volume.astype(np.float32)
    return np.clip(
        volume / np.float32(np.quantile(volume[volume != 0], SPACE.normalization.quantile)),
        *SPACE.intensity_range,
    )


def test_an_image_on_the_grid_is_only_normalized(brain: nibabel.Nifti1Image) -> None:
    found = _read(brain.to_bytes())
    np.testing.assert_allclose(found, _normalized(np.asarray(brain.dataobj)), rtol=1e-6)
    np.testing.assert_array_equal(_read(gzip.compress(brain.to_bytes(), 1)), found)
    assert found.dtype == np.float32


@pytest.mark.parametrize("codes", ["RAS", "LPI", "PIR", "SLA", "ASR", "IRP", "LAS"])
def test_any_orientation_gives_the_same_volume(brain: nibabel.Nifti1Image, codes: str) -> None:
    turn = ornt_transform(io_orientation(brain.affine), axcodes2ornt(codes))
    assert "".join(nibabel.aff2axcodes(brain.as_reoriented(turn).affine)) == codes
    assert inv_ornt_aff(turn, brain.shape).shape == (4, 4)
    np.testing.assert_allclose(
        _read(brain.as_reoriented(turn).to_bytes()), _read(brain.to_bytes()), atol=1e-4
    )


def test_coarser_and_turned_voxels_are_interpolated_as_nilearn_does(brain: nibabel.Nifti1Image) -> None:
    angle = np.radians(7)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn * [3.0, 2.5, 3.5]
    affine[:3, 3] = [-95, -130, -80]
    there = resample_to_img(
        brain, _image(np.zeros((68, 84, 54), np.float32), affine), force_resample=True, copy_header=True
    )
    there = _image(np.asarray(there.dataobj, np.float32).clip(0), affine)
    grid = _image(np.zeros(SPACE.shape, np.float32))
    back = resample_to_img(there, grid, interpolation="linear", force_resample=True, copy_header=True)
    np.testing.assert_allclose(_read(there.to_bytes()), _normalized(np.asarray(back.dataobj)), atol=2e-3)


def test_finer_voxels_are_smoothed_first() -> None:
    """Along each axis by a Gaussian of FWHM sqrt(2^2 - 1^2) mm, so that single voxels do not fold in."""
    shape, affine = (182, 218, 182), np.diag([-1.0, 1, 1, 1])
    affine[:3, 3] = [90, -126, -72]
    volume = np.random.default_rng(0).random(shape).astype(np.float32) + 0.1
    smooth = volume
    for axis in range(3):
        smooth = gaussian_filter1d(smooth, np.sqrt(3) / np.sqrt(8 * np.log(2)), axis=axis)
    places = np.indices(SPACE.shape).reshape(3, -1) * 2.0
    expected = map_coordinates(smooth, places, order=1).reshape(SPACE.shape)
    found = _read(_image(volume, affine).to_bytes())
    np.testing.assert_allclose(found, _normalized(expected), atol=1e-3)
    plain = _normalized(map_coordinates(volume, places, order=1).reshape(SPACE.shape))
    assert found[MASK].std() < plain[MASK].std() / 2


def test_scaled_integers_and_the_second_version_are_read(brain: nibabel.Nifti1Image) -> None:
    data = np.asarray(brain.dataobj, np.float32)
    scaled = _image(data)
    scaled.set_data_dtype(np.int16)
    scaled.header.set_slope_inter(None, None)
    np.testing.assert_allclose(_read(scaled.to_bytes()), _read(brain.to_bytes()), atol=1e-3)
    second = nibabel.Nifti2Image(data, AFFINE)
    second.set_sform(AFFINE, 2)
    np.testing.assert_allclose(_read(second.to_bytes()), _read(brain.to_bytes()), atol=1e-5)
    swapped = nibabel.Nifti1Image(data, AFFINE, nibabel.Nifti1Header(endianness=">"))
    swapped.set_sform(AFFINE, 2)
    np.testing.assert_allclose(_read(swapped.to_bytes()), _read(brain.to_bytes()), atol=1e-5)
    np.testing.assert_allclose(_read(_image(data[..., None]).to_bytes()), _read(brain.to_bytes()), atol=1e-5)


def _full() -> np.ndarray:
    return np.random.default_rng(0).random(SPACE.shape).astype(np.float32) + 0.5


def _with(change: Callable[[np.ndarray], None]) -> bytes:
    volume = _full()
    change(volume)
    return _image(volume).to_bytes()


def _nan(volume: np.ndarray) -> None:
    volume[3, 3, 3] = np.nan


def _negative(volume: np.ndarray) -> None:
    volume[3, 3, 3] = -1


def _flat(volume: np.ndarray) -> None:
    volume[:] = 1


def _empty(volume: np.ndarray) -> None:
    volume[:, :60] = 0


def _codeless() -> bytes:
    image = _image(_full())
    image.set_sform(AFFINE, 0)
    image.set_qform(AFFINE, 0)
    return image.to_bytes()


def _affine(affine: np.ndarray) -> bytes:
    return _image(_full(), affine).to_bytes()


def _patched(offset: int, data: bytes) -> bytes:
    whole = bytearray(_image(_full()).to_bytes())
    whole[offset : offset + len(data)] = data
    return bytes(whole)


SINGULAR = AFFINE * np.array([[1], [1], [0], [1]])
REFUSED = {
    "no NIfTI": (lambda: b"\x89PNG" + bytes(1000), "no NIfTI"),
    "nothing of it": (lambda: _image(_full()).to_bytes()[:100], "header|cut off"),
    "cut off": (lambda: _image(_full()).to_bytes()[:-5000], "cut off"),
    "cut off gzip": (lambda: gzip.compress(_image(_full()).to_bytes(), 1)[:-5000], "cut off"),
    "damaged gzip": (lambda: b"\x1f\x8b\x08\x00" + bytes(200), "damaged"),
    "two volumes": (lambda: _image(np.stack([_full()] * 2, -1)).to_bytes(), "one volume of three axes"),
    "a picture": (lambda: _image(_full()[:, :, 40]).to_bytes(), "one volume of three axes"),
    "complex": (lambda: _image(_full().astype(np.complex64)).to_bytes(), "no plain numbers"),
    "no orientation": (_codeless, "no orientation"),
    "no inverse": (lambda: _patched(280, SINGULAR[:3].astype("<f4").tobytes()), "affine"),
    "no affine": (lambda: _patched(280, np.full((3, 4), np.nan, "<f4").tobytes()), "affine"),
    "tiny voxels": (lambda: _affine(np.diag([0.05, 0.05, 0.05, 1])), "voxels of 0.05"),
    "huge voxels": (lambda: _affine(np.diag([20.0, 20, 20, 1])), "voxels of 20"),
    "NaN": (lambda: _with(_nan), "NaN"),
    "negative": (lambda: _with(_negative), "negative"),
    "constant": (lambda: _with(_flat), "constant"),
    "half empty": (lambda: _with(_empty), "shows tissue in"),
    "elsewhere": (lambda: _affine(np.diag([2.0, 2, 2, 1])), "covers"),
    "claims much": (lambda: _patched(40, np.array([3, 1000, 1000, 1000], "<i2").tobytes()), "cut off"),
    "too long": (lambda: _patched(40, np.array([3, 5000, 91, 91], "<i2").tobytes()), "has shape"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_brought_is_refused_with_the_reason(case: str) -> None:
    make, words = REFUSED[case]
    data = make()
    tracemalloc.start()
    with pytest.raises(SubjectUnusable, match=words) as caught:
        _read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.field == "subject.nifti"
    assert caught.value.reason == "SUBJECT_UNUSABLE"
    assert peak < 200_000_000


def test_a_bomb_is_noticed_before_it_goes_off() -> None:
    bomb = gzip.compress(bytes(300_000_000), 1)
    tracemalloc.start()
    with pytest.raises(SubjectUnusable, match="inflates to more than 1000000"):
        _read(bomb, 1_000_000)
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()
    with pytest.raises(SubjectUnusable, match="limit is 1000000"):
        _read(bytes(2_000_000), 1_000_000)


def test_the_headers_free_text_is_never_repeated() -> None:
    image = _image(_full(), np.diag([20.0, 20, 20, 1]))
    for name in ("descrip", "aux_file", "intent_name"):
        image.header[name] = b"Jane Doe"
    with pytest.raises(SubjectUnusable) as caught:
        _read(image.to_bytes())
    assert "Jane" not in str(caught.value) + repr(caught.value.metadata)


SMALL = _image(
    np.random.default_rng(0).random((20, 24, 20)).astype(np.float32), AFFINE @ np.diag([4.6, 4.6, 4.6, 1])
).to_bytes()


@settings(max_examples=60, deadline=None)
@given(data=st.one_of(st.binary(max_size=600), st.binary(max_size=600).map(lambda tail: b"\x1f\x8b" + tail)))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    with pytest.raises(InvalidField):
        _read(data)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 347), byte=st.integers(0, 255))
def test_a_damaged_header_is_refused_or_read(place: int, byte: int) -> None:
    damaged = bytearray(SMALL)
    damaged[place] = byte
    try:
        found = _read(bytes(damaged))
    except InvalidField:
        return
    assert found.shape == SPACE.shape
    assert np.isfinite(found).all()
