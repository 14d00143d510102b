"""Images of persons come onto the model's grid, or are refused with the reason."""

import gzip
import io
import re
import tracemalloc
from collections.abc import Callable, Iterable
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nilearn.image import resample_to_img
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from models import ZOO, read_bundle
from service.errors import SubjectUnusable
from service.volumes.subject import read_subject

BUNDLE = read_bundle(ZOO / "lesion-shapes" / "1")
SPACE = BUNDLE.manifest.input
AFFINE = np.asarray(SPACE.affine)
MASK = BUNDLE.prior().mask().numpy()
LIMIT = 64_000_000


@pytest.fixture(scope="module")
def brain(cohort_dir: Path) -> nibabel.Nifti1Image:
    return nibabel.load(sorted(cohort_dir.glob("sub-*/anat/*desc-affinebrain_T1w.nii.gz"))[0])


def _image(
    volume: np.ndarray, affine: np.ndarray = AFFINE, kind: type = nibabel.Nifti1Image
) -> nibabel.Nifti1Image:
    """Of a person whose name stands wherever the header has room for it."""
    image = kind(volume, affine)
    image.set_sform(affine, 2)
    for name in ("descrip", "aux_file", "intent_name"):
        image.header[name] = b"Jane Doe"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    return image


def _read(data: bytes, limit: int = LIMIT) -> np.ndarray:
    return read_subject(data, BUNDLE.manifest, MASK, "subject.nifti", limit)


def _normalized(volume: np.ndarray) -> np.ndarray:
    volume = volume.astype(np.float32)
    scale = np.float32(np.quantile(volume[volume != 0], SPACE.normalization.quantile))
    return np.clip(volume / scale, *SPACE.intensity_range)


def _full() -> np.ndarray:
    """Noise up to the very edges."""
    return np.random.default_rng(0).random(SPACE.shape).astype(np.float32) + 0.5


def test_an_image_on_the_grid_is_only_normalized(brain: nibabel.Nifti1Image) -> None:
    found = _read(brain.to_bytes())
    np.testing.assert_array_equal(found, _normalized(np.asarray(brain.dataobj)))
    np.testing.assert_array_equal(_read(gzip.compress(brain.to_bytes(), 1)), found)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(_read(_image(_full()).to_bytes()), _normalized(_full()))


@pytest.mark.parametrize("ending", ["nii", "mgz", "mgh"])
def test_a_file_of_another_kind_gives_the_same_bits(
    brain: nibabel.Nifti1Image, ending: str, tmp_path: Path
) -> None:
    zipped, other = tmp_path / "brain.nii.gz", tmp_path / f"brain.{ending}"
    nibabel.save(brain, zipped)
    kind = nibabel.Nifti1Image if ending == "nii" else nibabel.MGHImage
    nibabel.save(kind(brain.get_fdata(dtype=np.float32), brain.affine), other)
    assert other.read_bytes()[:4] != zipped.read_bytes()[:4] or ending == "mgz"
    np.testing.assert_array_equal(_read(other.read_bytes()), _read(zipped.read_bytes()))


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32])
def test_every_kind_of_number_in_an_mgh_file_is_read(kind: type) -> None:
    volume = np.round(_full() * 100).astype(kind)
    np.testing.assert_array_equal(_read(_mgh(volume)), _normalized(volume))
    turned = nibabel.MGHImage(volume[::-1], AFFINE @ _mirror(volume.shape[0]))
    np.testing.assert_array_equal(_read(turned.to_bytes()), _normalized(volume))


def _mirror(size: int) -> np.ndarray:
    mirror = np.diag([-1.0, 1, 1, 1])
    mirror[0, 3] = size - 1
    return mirror


def _mgh(volume: np.ndarray, offset: int = 0, patch: bytes = b"") -> bytes:
    """In FreeSurfer's format, with the person's name behind the voxels."""
    data = bytearray(nibabel.MGHImage(volume, AFFINE).to_bytes() + b"Jane Doe")
    data[offset : offset + len(patch)] = patch
    return bytes(data)


def test_a_gzip_stream_of_several_parts_is_read(brain: nibabel.Nifti1Image) -> None:
    plain = brain.to_bytes()
    parts = b"".join(gzip.compress(plain[at : at + 300_000], 1) for at in range(0, len(plain), 300_000))
    np.testing.assert_array_equal(_read(parts + bytes(100)), _read(plain))


@pytest.mark.parametrize("order", permutations(range(3)), ids=str)
def test_all_48_orientations_give_the_same_volume(order: tuple[int, ...]) -> None:
    image, expected = _image(_full()), _normalized(_full())
    names = set()
    for flips in product((1, -1), repeat=3):
        turned = image.as_reoriented(np.stack([order, flips], 1))
        names.add(nibabel.aff2axcodes(turned.affine))
        np.testing.assert_array_equal(_read(turned.to_bytes()), expected)
    assert len(names) == 8


def test_a_crop_comes_back_to_its_place() -> None:
    crop = _image(_full()).slicer[6:-7, 5:-3, 4:-2]
    expected = np.zeros(SPACE.shape, np.float32)
    expected[6:-7, 5:-3, 4:-2] = _full()[6:-7, 5:-3, 4:-2]
    np.testing.assert_allclose(_read(crop.to_bytes()), _normalized(expected), rtol=1e-6)


def _rotated(degrees: float, edges: tuple[float, float, float], corner: tuple[float, ...]) -> np.ndarray:
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [degrees, -degrees / 2, degrees / 3], degrees=True)
    affine[:3, :3] = turn.as_matrix() * edges
    affine[:3, 3] = corner
    return affine


@pytest.mark.parametrize(
    "affine",
    [
        _rotated(0, (2, 2, 2), (-89.3, -125.7, -72.2)),
        _rotated(0, (3, 2.5, 3.5), (-95, -130, -80)),
        _rotated(11, (3, 2.5, 3.5), (-105, -130, -80)),
        _rotated(-20, (2, 4, 2), (-88, -140, -60))[:, [1, 2, 0, 3]],
    ],
    ids=["shifted", "coarser", "turned", "swapped"],
)
def test_voxels_as_coarse_as_the_models_are_interpolated_as_nilearn_does(
    brain: nibabel.Nifti1Image, affine: np.ndarray
) -> None:
    alike = {"interpolation": "linear", "force_resample": True, "copy_header": True}
    # nilearn keeps integers, and would round.
    brain = _image(np.asarray(brain.dataobj, np.float32))
    there = resample_to_img(brain, _image(np.zeros((92, 100, 96), np.float32), affine), **alike)
    back = resample_to_img(there, _image(np.zeros(SPACE.shape, np.float32)), **alike)
    found, expected = _read(there.to_bytes()), _normalized(np.asarray(back.dataobj))
    # On the edge of the field of view nilearn stops, where the reader fades over a voxel. Those few
    # voxels move the quantile by less than a thousandth.
    whole = _image(np.ones(there.shape, np.float32), affine)
    inside = np.asarray(resample_to_img(whole, back, **alike).dataobj) > 0.999
    np.testing.assert_allclose(found[inside], expected[inside], rtol=5e-4, atol=2e-5)
    assert inside[MASK].mean() > 0.8
    assert found.max() > 1


MILLIMETERS = np.diag([-1.0, 1, 1, 1])
MILLIMETERS[:3, 3] = AFFINE[:3, 3]
FINE = tuple(2 * size for size in SPACE.shape)


def _low_passed(volume: np.ndarray, axes: Iterable[int]) -> np.ndarray:
    """By a Gaussian of FWHM sqrt(2^2 - 1^2) mm in voxels of 1 mm."""
    for axis in axes:
        volume = gaussian_filter1d(volume, np.sqrt(3) / np.sqrt(8 * np.log(2)), axis=axis)
    return volume


def test_finer_voxels_are_smoothed_first() -> None:
    volume = np.random.default_rng(0).random(FINE, np.float32) + np.float32(0.1)
    found = _read(_image(volume, MILLIMETERS).to_bytes())
    expected = _low_passed(volume, range(3))[::2, ::2, ::2]
    np.testing.assert_allclose(found, _normalized(expected), atol=1e-5)
    turned = _image(volume, MILLIMETERS).as_reoriented(
        ornt_transform(io_orientation(AFFINE), axcodes2ornt("SPL"))
    )
    np.testing.assert_allclose(_read(turned.to_bytes()), found, atol=1e-5)


def test_only_the_axes_that_are_finer_are_smoothed() -> None:
    volume = np.random.default_rng(0).random((91, 218, 91), np.float32) + np.float32(0.1)
    turned = _image(volume, AFFINE @ np.diag([1, 0.5, 1, 1])).as_reoriented(
        ornt_transform(io_orientation(AFFINE), axcodes2ornt("PRI"))
    )
    expected = _low_passed(volume, [1])[:, ::2]
    np.testing.assert_allclose(_read(turned.to_bytes()), _normalized(expected), atol=1e-5)


def test_a_checkerboard_of_fine_voxels_does_not_alias() -> None:
    """Its colors swap halfway, so every second voxel alone would show two halves that are not there."""
    places = np.indices(FINE)
    colors = np.where((places.sum(0) + (places[1] >= 109)) % 2, 0.5, 1.5).astype(np.float32)
    aliased = _normalized(colors[::2, ::2, ::2])
    found = _read(_image(colors, MILLIMETERS).to_bytes())[:, 3:-3][:, np.r_[0:48, 55:103]]
    assert aliased.var() > 0.1
    # At half a cycle per voxel a sampled Gaussian lets 0.14 pass along each axis.
    assert found[2:-2, :, 2:-2].var() < 1e-4 * aliased.var()


def _stored(dtype: type, slope: float, offset: float) -> tuple[bytes, np.ndarray]:
    numbers = np.random.default_rng(0).integers(5, 120, SPACE.shape).astype(dtype)
    image = _image(numbers)
    image.header.set_slope_inter(slope, offset)
    return image.to_bytes(), numbers * slope + offset


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_stored_numbers_are_scaled(dtype: type) -> None:
    data, meant = _stored(dtype, 0.25, 3.0)
    header = nibabel.Nifti1Header.from_fileobj(io.BytesIO(data))
    assert (header.get_slope_inter(), header.get_data_dtype()) == ((0.25, 3.0), dtype)
    np.testing.assert_allclose(_read(data), _normalized(meant), rtol=1e-6)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_both_versions_and_byte_orders_are_read(kind: type, order: str) -> None:
    image = kind(_full(), AFFINE, kind.header_class(endianness=order))
    image.set_sform(AFFINE, 2)
    data = image.to_bytes()
    assert int.from_bytes(data[:4], {"<": "little", ">": "big"}[order]) in (348, 540)
    np.testing.assert_array_equal(_read(data), _normalized(_full()))


def test_a_quaternion_is_enough_and_a_series_of_one_is_one() -> None:
    image = _image(_full()[..., None])
    image.set_qform(AFFINE, 1)
    image.header["sform_code"] = 0
    assert image.shape == (*SPACE.shape, 1)
    np.testing.assert_allclose(_read(image.to_bytes()), _normalized(_full()), rtol=1e-6)


def test_voxels_that_start_at_0_start_behind_the_header() -> None:
    image = nibabel.Nifti1Image(_full(), AFFINE)
    data = bytearray(image.to_bytes())
    assert np.frombuffer(data[108:112], "<f4") == 352
    data[108:112] = bytes(4)
    np.testing.assert_array_equal(_read(bytes(data)), _normalized(_full()))


def _with(change: Callable[[np.ndarray], None]) -> bytes:
    volume = _full()
    change(volume)
    return _image(volume).to_bytes()


def _at(place: tuple[int, ...], value: float) -> bytes:
    return _with(lambda volume: volume.__setitem__(place, value))


def _codeless() -> bytes:
    image = _image(_full())
    image.set_sform(AFFINE, 0)
    image.set_qform(AFFINE, 0)
    return image.to_bytes()


def _patched(offset: int, data: bytes, version: type = nibabel.Nifti1Image) -> bytes:
    whole = bytearray(_image(_full(), kind=version).to_bytes())
    whole[offset : offset + len(data)] = data
    return bytes(whole)


def _sform(affine: np.ndarray) -> bytes:
    return _patched(280, affine[:3].astype("<f4").tobytes())


def _zipped(data: bytes) -> bytes:
    """With the person's name as the name of the file."""
    target = io.BytesIO()
    with gzip.GzipFile("Jane Doe.nii", "wb", 1, target) as file:
        file.write(data)
    return target.getvalue()


def _flipped_bit(data: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + bytes([data[half] ^ 64]) + data[half + 1 :]


def _colors() -> bytes:
    colors = np.zeros(SPACE.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colors["R"] = 9
    return _image(colors).to_bytes()


_PLAIN = _image(_full()).to_bytes()
SHIFTED = AFFINE + np.array([[0, 0, 0, 60.0], [0] * 4, [0] * 4, [0] * 4])
REFUSED = {
    "nothing": (lambda: b"", "is no NIfTI file"),
    "no NIfTI": (lambda: b"\x89PNG" + bytes(1000), "is no NIfTI file"),
    "zipped, no NIfTI": (lambda: _zipped(b"Jane Doe" * 100), "is no NIfTI file"),
    "Analyze": (lambda: _patched(344, b"Jane"), "has a header that cannot be read"),
    "cut off in the header": (lambda: _PLAIN[:100], "is cut off"),
    "cut off": (lambda: _PLAIN[:-5000], "is cut off"),
    "cut off gzip": (lambda: _zipped(_PLAIN)[:-5000], "gzip stream does not end"),
    "cut off before gzip": (lambda: _zipped(_PLAIN[:-5000]), "is cut off"),
    "damaged gzip": (lambda: _flipped_bit(_zipped(_PLAIN)), "is damaged"),
    "no gzip": (lambda: b"\x1f\x8b\x08\x00" + bytes(200), "is damaged"),
    "gzip and more": (lambda: _zipped(_PLAIN) + b"Jane Doe", "is damaged"),
    "two volumes": (lambda: _image(np.stack([_full()] * 2, -1)).to_bytes(), "one volume of three axes"),
    "a slice": (lambda: _image(_full()[:, :, :1]).to_bytes(), "one volume of three axes"),
    "a picture": (lambda: _image(_full()[:, :, 40]).to_bytes(), "one volume of three axes"),
    "complex": (lambda: _image(_full().astype(np.complex64)).to_bytes(), "holds no plain numbers"),
    "color": (_colors, "holds no plain numbers"),
    "unknown numbers": (lambda: _patched(70, b"\x77\x77"), "has a header that cannot be read"),
    "no orientation": (_codeless, "has no orientation"),
    "singular": (lambda: _sform(AFFINE * np.array([[1], [1], [0], [1]])), "cannot be inverted"),
    "flat": (lambda: _sform(AFFINE[:, [0, 0, 2, 3]]), "cannot be inverted"),
    "NaN affine": (lambda: _sform(np.full((3, 4), np.nan)), "affine that is not finite"),
    "infinite affine": (lambda: _sform(AFFINE * np.inf), "affine that is not finite"),
    "tiny voxels": (lambda: _sform(np.diag([2, 0.05, 2, 1])), "has voxels of 2 x 0.05 x 2 mm"),
    "huge voxels": (lambda: _sform(np.diag([2, 2, 20.0, 1])), "has voxels of 2 x 2 x 20 mm"),
    "NaN": (lambda: _at((3, 3, 3), np.nan), "holds NaN or infinite voxels"),
    "infinite": (lambda: _at((3, 3, 3), np.inf), "holds NaN or infinite voxels"),
    "beyond float32": (lambda: _image(_full() * 1e300).to_bytes(), "holds NaN or infinite voxels"),
    "infinite offset": (lambda: _patched(112, np.array([1, np.inf], "<f4").tobytes()), "cannot be read"),
    "negative": (lambda: _at((3, 3, 3), -1), "holds negative voxels"),
    "constant": (lambda: _image(np.ones_like(_full())).to_bytes(), "is constant"),
    "mostly empty": (lambda: _at((slice(None), slice(60)), 0), r"shows tissue in [1-5].\.\d% of"),
    "elsewhere": (lambda: _sform(np.diag([2.0, 2, 2, 1])), r"covers [1-7]?.\.\d% of the model's brain mask"),
    "half in view": (lambda: _sform(SHIFTED), r"covers [1-7].\.\d% of the model's brain mask"),
    "long axis": (lambda: _patched(40, np.array([3, 5000, 91, 91], "<i2").tobytes()), "has shape"),
    "no voxels": (lambda: _patched(40, np.array([3, 0, 91, 91], "<i2").tobytes()), "has shape"),
    "negative axis": (lambda: _patched(40, np.array([3, -5, 91, 91], "<i2").tobytes()), "has shape"),
    "many voxels": (
        lambda: _patched(40, np.array([3, 1024, 1024, 1024], "<i2").tobytes()),
        "voxels are read",
    ),
    "many of 8 bytes": (
        lambda: _patched(16, np.array([3, 1024, 1024, 1024], "<i8").tobytes(), nibabel.Nifti2Image),
        "voxels are read",
    ),
    "more than there are": (lambda: _patched(40, np.array([3, 91, 109, 92], "<i2").tobytes()), "is cut off"),
    "starts far away": (lambda: _patched(108, np.array([1e9], "<f4").tobytes()), "is cut off"),
    "DICOM": (lambda: bytes(128) + b"DICM" + b"Jane Doe" * 100, "is DICOM; .* dcm2niix"),
    "half of a pair": (lambda: _patched(344, b"ni1\0")[:352], r"\.hdr/\.img pair"),
    "half of a NIfTI-2 pair": (lambda: _patched(4, b"ni2\0", nibabel.Nifti2Image)[:544], r"\.hdr/\.img pair"),
    "cut off mgh header": (lambda: _mgh(_full())[:80], "is cut off"),
    "cut off mgh": (lambda: _mgh(_full())[:-9000], "is cut off"),
    "cut off mgz": (lambda: _zipped(_mgh(_full()))[:-5000], "gzip stream does not end"),
    "mgh of unknown numbers": (lambda: _mgh(_full(), 20, b"\0\0\0\x09"), "has a header that cannot be read"),
    "mgh without orientation": (lambda: _mgh(_full(), 28, b"\0\0"), "no orientation .goodRASFlag"),
    "two volumes of mgh": (lambda: _mgh(np.stack([_full()] * 2, -1)), "one volume of three axes"),
    "negative axis of mgh": (lambda: _mgh(_full(), 4, b"\xff\xff\xff\xf0"), "has shape"),
    "many voxels of mgh": (lambda: _mgh(_full(), 4, b"\0\0\x04\0" * 3), "voxels are read"),
    "starts at no number": (lambda: _patched(108, np.array([np.nan], "<f4").tobytes()), "has a header that"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_brought_is_refused_with_the_reason(
    case: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    make, words = REFUSED[case]
    with pytest.raises(SubjectUnusable, match=words) as caught:
        _read(make())
    assert (caught.value.field, caught.value.reason) == ("subject.nifti", "SUBJECT_UNUSABLE")
    assert caught.value.message.startswith("subject.nifti ")
    told = caught.value.message + repr(caught.value.metadata) + caplog.text + "".join(capfd.readouterr())
    assert not any(name in told for name in ("Jane", "Doe"))
    assert caught.value.__suppress_context__


def _peak(data: bytes, limit: int, words: str) -> int:
    """Most bytes held at once while a file is refused."""
    tracemalloc.start()
    try:
        with pytest.raises(SubjectUnusable, match=words):
            _read(data, limit)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_bomb_is_noticed_before_it_goes_off() -> None:
    bomb = _zipped(bytes(300_000_000))
    assert len(bomb) < 2_000_000
    assert _peak(bomb, 5_000_000, "inflates to more than 5000000 bytes") < 12_000_000


def test_a_plain_file_has_the_same_limit() -> None:
    assert _read(_PLAIN, len(_PLAIN)).shape == SPACE.shape
    with pytest.raises(SubjectUnusable, match=f"limit is {len(_PLAIN) - 1}"):
        _read(_PLAIN, len(_PLAIN) - 1)


def test_nothing_is_made_of_a_claim() -> None:
    """A header may claim 8 GB, and a byte of the file may stand for more in memory."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((1024, 1024, 1024))
    header["vox_offset"] = 352
    header.set_sform(AFFINE, 2)
    data = header.binaryblock + bytes(4)
    assert _peak(data, LIMIT, "voxels are read") < 1_000_000
    assert _peak(data, 10**10, "is cut off") < 1_000_000
    header.set_data_dtype(np.uint8)
    header.set_data_shape((400, 400, 101))
    data = header.binaryblock + bytes(4 + 400 * 400 * 101)
    assert len(data) < LIMIT
    assert _peak(data, LIMIT, f"at most {LIMIT // 4} voxels are read") < 1_000_000


SMALL = {
    version: _image(
        np.random.default_rng(0).random((20, 24, 20)).astype(np.float32),
        AFFINE @ np.diag([4.6, 4.6, 4.6, 1]),
        version,
    ).to_bytes()
    for version in (nibabel.Nifti1Image, nibabel.Nifti2Image)
}


def _refused_or_read(data: bytes) -> None:
    tracemalloc.start()
    try:
        found = _read(data)
    except SubjectUnusable:
        pass
    else:
        assert (found.shape, found.dtype) == (SPACE.shape, np.float32)
        assert SPACE.intensity_range[0] <= found.min() < found.max() <= SPACE.intensity_range[1]
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 60_000_000


BYTES = st.binary(max_size=700)


@settings(max_examples=25, deadline=None)
@given(
    st.one_of(
        BYTES,
        BYTES.map(lambda tail: b"\x1f\x8b\x08" + tail),
        BYTES.map(_zipped),
        st.builds(
            lambda size, head, magic, tail: size + head.ljust(340, b"\0") + magic + tail,
            st.sampled_from([b"\x5c\x01\0\0", b"\0\0\x01\x5c"]),
            st.binary(max_size=340),
            st.sampled_from([b"n+1\0", b"ni1\0"]),
            BYTES,
        ),
    )
)
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    _refused_or_read(data)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(sorted(SMALL, key=str)),
    st.lists(st.tuples(st.integers(0, 351), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
)
def test_a_damaged_header_is_refused_or_read(version: type, damages: list[tuple[int, bytes]]) -> None:
    damaged = bytearray(SMALL[version])
    assert _read(bytes(damaged)).any()
    for place, new in damages:
        damaged[place : place + len(new)] = new
    _refused_or_read(bytes(damaged))


def _scanner_space(brain: nibabel.Nifti1Image, degrees: float, shift: float) -> bytes:
    """What a scanner would have made of the brain: finer, oblique, with a noisy background."""
    affine = _rotated(degrees, (1.2, 1.2, 1.4), (-100, -130 + shift, -80))
    grid = _image(np.zeros((160, 190, 130), np.float32), affine)
    there = resample_to_img(brain, grid, interpolation="linear", force_resample=True, copy_header=True)
    noise = np.random.default_rng(0).rayleigh(3, there.shape)
    return _zipped(_image((np.asarray(there.dataobj) * 7 + noise).astype(np.int16), affine).to_bytes())


def _native(brain: nibabel.Nifti1Image) -> dict[str, bytes]:
    """Images as the scanner made them: real ones where they lie beside the checkout, and made ones."""
    raw = Path(__file__).parents[3] / "shared" / "raw"
    real = {path.name: path.read_bytes() for path in sorted(raw.glob("*_T1w.nii.gz"))[:2]}
    return real | {"made": _scanner_space(brain, 8, 0), "made, too far": _scanner_space(brain, 8, 90)}


def test_a_brain_in_another_place_is_refused(brain: nibabel.Nifti1Image) -> None:
    volume = np.asarray(brain.dataobj, np.float32)
    middle = AFFINE.copy()
    middle[1, 3] += 12
    assert _read(_image(volume, middle).to_bytes()).any()
    middle[1, 3] += 12
    with pytest.raises(SubjectUnusable, match=r"whose middle lies 2\d mm from .* register it to"):
        _read(_image(volume, middle).to_bytes())


def test_images_as_the_scanner_made_them_are_brought_or_refused_with_the_share(
    brain: nibabel.Nifti1Image,
) -> None:
    reasons = {}
    for name, data in _native(brain).items():
        try:
            found = _read(data)
        except SubjectUnusable as error:
            reasons[name] = error.message
        else:
            assert np.isfinite(found).all()
            assert SPACE.intensity_range[0] <= found.min() < found.max() <= SPACE.intensity_range[1]
            assert (found[MASK] > 0).mean() >= 0.6
    # The real ones lie 36 mm and more from the model's space.
    assert reasons.keys() == _native(brain).keys() - {"made"}
    told = re.compile(r"(covers|shows tissue in) [\d.]+% of|whose middle lies \d+ mm")
    assert all(told.search(reason) for reason in reasons.values()), reasons
