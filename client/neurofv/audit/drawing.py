"""Still views and small volumes for a page, from the volumes of an audit.

A page must stay light: views are WebP images of a few kilobytes, and what the
3D viewer shows is kept in one byte a voxel, in few levels, so that it packs well.
"""

import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from PIL import Image, ImageDraw
from scipy import ndimage

# As in `neurofv.picture`: about the size of what a unit looks for.
_FWHM_MM = 12.0
_SIGMAS = 2.0  # farther out a Gaussian hardly counts
_MARGIN_MM = 6.0
_CROSS, _LETTER = (79, 209, 197), (196, 202, 210)
_QUALITY = 74
# Of the reference brain, and of a change to either side.
_GREYS, _LEVELS = 64, 15
# Less than this share of the strongest change is no finding, and what is 0 packs to nothing.
_FLOOR = 0.15

# Shares of the intensity range: what is less is black, or as it was.
_EMPTY, _CHANGED = 0.02, 0.1

Voxel = tuple[int, int, int]
Box = tuple[slice, ...]


@dataclass(frozen=True)
class Grid:
    """A volume whose axes run right, anterior and superior.

    Attributes
    ----------
    data : ndarray of float32, shape (i, j, k)
        Intensities in model units.
    affine : ndarray, shape (4, 4)
        Voxel indices to millimetres.
    limits : tuple of float
        Lowest and highest intensity, as the file's header has them.
    """

    data: np.ndarray
    affine: np.ndarray
    limits: tuple[float, float]

    def place(self, voxel: Voxel) -> tuple[float, float, float]:
        """Return where a voxel is, mm."""
        x, y, z = apply_affine(self.affine, voxel)
        return float(x), float(y), float(z)


def read_grid(file: Path | bytes) -> Grid:
    """Read a NIfTI file, its axes turned so that they run right, anterior and superior.

    Parameters
    ----------
    file : Path or bytes
        The file, or what is in it, gzip-compressed.

    Raises
    ------
    OSError
        It cannot be read.
    """
    if isinstance(file, bytes):
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(file))
    else:
        image = nibabel.Nifti1Image.from_filename(file)
    low, high = float(image.header["cal_min"]), float(image.header["cal_max"])
    turned = nibabel.as_closest_canonical(image)
    data = turned.get_fdata(dtype=np.float32)
    if high <= low:
        low, high = float(data.min()), float(data.max()) or 1.0
    return Grid(data, turned.affine, (low, high))


def read_scan(path: Path) -> Grid:
    """Read a real image as `read_grid` does, of any form that nibabel knows; its limits leave outliers out.

    Raises
    ------
    OSError
        It cannot be read.
    """
    turned = nibabel.as_closest_canonical(nibabel.load(path))
    data = np.asarray(turned.get_fdata(dtype=np.float32))
    while data.ndim > 3:
        data = data[..., 0]
    low, high = (float(value) for value in np.quantile(data, [0.01, 0.998]))
    return Grid(data, turned.affine, (low, high if high > low else low + 1.0))


def median(pictures: Sequence[Grid]) -> Grid:
    """Return the median of pictures of one grid in each voxel."""
    middle = np.median(np.stack([each.data for each in pictures]), axis=0).astype(np.float32)
    return Grid(middle, pictures[0].affine, pictures[0].limits)


def strongest_voxel(picture: Grid, grounds: Sequence[Grid]) -> Voxel:
    """Return the voxel around which a picture differs most from each of the grounds.

    Parameters
    ----------
    picture : Grid
        A picture.
    grounds : sequence of Grid
        Such as the reference brain and what other pictures have in common: what differs from one alone
        is no finding. Without any, the squared intensity gradient is taken, as `neurofv.picture` does.
    """
    if grounds:
        squares = np.minimum.reduce([(picture.data - ground.data) ** 2 for ground in grounds])
    else:
        axes = [axis for axis in range(3) if picture.data.shape[axis] > 1]
        squares = sum(
            (np.gradient(picture.data, axis=axis) ** 2 for axis in axes), np.zeros_like(picture.data)
        )
    sigmas = _FWHM_MM / np.sqrt(8 * np.log(2)) / voxel_sizes(picture.affine)
    smooth = ndimage.gaussian_filter(squares, sigmas, truncate=_SIGMAS)
    i, j, k = np.unravel_index(int(np.argmax(smooth)), smooth.shape)
    return int(i), int(j), int(k)


def shown_box(picture: Grid, ground: Grid | None) -> Box:
    """Return the box to show: around the brain, and what a picture has changed outside it."""
    low, high = picture.limits
    full = np.abs((picture if ground is None else ground).data) > _EMPTY * (high - low)
    if ground is not None:
        full |= np.abs(picture.data - ground.data) > _CHANGED * (high - low)
    margins = np.ceil(_MARGIN_MM / voxel_sizes(picture.affine)).astype(int)
    box = []
    for axis, margin in enumerate(margins):
        used = np.flatnonzero(full.any(axis=tuple(other for other in range(3) if other != axis)))
        first, last = (int(used[0]), int(used[-1])) if used.size else (0, full.shape[axis] - 1)
        box.append(slice(max(0, first - int(margin)), min(last + int(margin) + 1, full.shape[axis])))
    return tuple(box)


def three_views(picture: Grid, voxel: Voxel, box: Box, pixels_per_mm: float) -> tuple[bytes, int, int]:
    """Return what `views` draws as a WebP image, its width and its height."""
    strip = views(picture, voxel, box, pixels_per_mm)
    return webp(strip), strip.width, strip.height


def views(picture: Grid, voxel: Voxel, box: Box, pixels_per_mm: float, lines: bool = True) -> Image.Image:
    """Draw a sagittal, a coronal and an axial view through a voxel, side by side.

    The left of the brain is on the left, as nilearn draws it.

    Parameters
    ----------
    picture : Grid
        What to draw, in grey: a color map would hide what the unit looks for.
    voxel : tuple of int
        Where the views cross; thin lines lead to it.
    box : tuple of slice
        The part of the grid to show.
    pixels_per_mm : float
        Size of the views.
    lines : bool
        Whether there are such lines.
    """
    low, high = picture.limits
    part = np.clip((picture.data[box] - low) / (high - low), 0, 1)
    at = [
        int(np.clip(index - side.start, 0, size - 1))
        for index, side, size in zip(voxel, box, part.shape, strict=True)
    ]
    scale = voxel_sizes(picture.affine) * pixels_per_mm
    drawn = []
    for cut, (across, up) in zip((0, 1, 2), ((1, 2), (0, 2), (0, 1)), strict=True):
        plane = np.take(part, at[cut], axis=cut).T[::-1]
        size = (max(1, round(plane.shape[1] * scale[across])), max(1, round(plane.shape[0] * scale[up])))
        view = (
            Image.fromarray((255 * plane).astype(np.uint8))
            .resize(size, Image.Resampling.BICUBIC)
            .convert("RGB")
        )
        if lines:
            _point(view, (at[across] + 0.5) * scale[across], size[1] - (at[up] + 0.5) * scale[up])
        if cut > 0:
            _name_sides(view)
        drawn.append(view)
    return _side_by_side(drawn)


def _point(view: Image.Image, x: float, y: float) -> None:
    """Draw lines that lead to a point and leave it free."""
    draw = ImageDraw.Draw(view)
    gap = 0.09 * max(view.size)
    draw.line([(x, 0), (x, y - gap)], fill=_CROSS)
    draw.line([(x, y + gap), (x, view.height)], fill=_CROSS)
    draw.line([(0, y), (x - gap, y)], fill=_CROSS)
    draw.line([(x + gap, y), (view.width, y)], fill=_CROSS)


def _name_sides(view: Image.Image) -> None:
    draw = ImageDraw.Draw(view)
    size = max(10.0, 0.07 * view.height)
    draw.text((4, 2), "L", fill=_LETTER, font_size=size)
    draw.text((view.width - 4, 2), "R", fill=_LETTER, anchor="ra", font_size=size)


def _side_by_side(views: Sequence[Image.Image]) -> Image.Image:
    height = max(view.height for view in views)
    strip = Image.new("RGB", (sum(view.width for view in views), height))
    left = 0
    for view in views:
        strip.paste(view, (left, (height - view.height) // 2))
        left += view.width
    return strip


def webp(image: Image.Image) -> bytes:
    """Return an image as a WebP file."""
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=_QUALITY, method=4)
    return buffer.getvalue()


def thumbnail(path: Path, largest: int = 480) -> tuple[bytes, int, int]:
    """Return a picture file as a WebP image no longer than so many pixels, its width and its height."""
    with Image.open(path) as file:
        image = file.convert("L" if file.mode in ("1", "L", "I", "I;16", "F") else "RGB")
    image.thumbnail((largest, largest))
    return webp(image), image.width, image.height


def grey_volume(picture: Grid) -> bytes:
    """Return a volume for the viewer, in grey: NIfTI-1, gzip-compressed."""
    low, high = picture.limits
    step = (high - low) / (_GREYS - 1)
    levels = np.rint((np.clip(picture.data, low, high) - low) / step).astype(np.uint8)
    return _nifti(levels, picture.affine, step, low, (low, high))


def change_volume(picture: Grid, ground: Grid, box: Box) -> tuple[bytes, float]:
    """Return by how much a picture differs from the ground, for the viewer.

    Returns
    -------
    tuple of bytes, float
        NIfTI-1, gzip-compressed; and the largest change in it, either way, in model units.
    """
    change = picture.data[box] - ground.data[box]
    # A single voxel must not set the scale.
    extent = float(np.quantile(np.abs(change), 0.9995)) or 1.0
    share = np.clip(change / extent, -1, 1)
    share[np.abs(share) < _FLOOR] = 0
    levels = (np.rint(_LEVELS * share) + _LEVELS).astype(np.uint8)
    step = extent / _LEVELS
    return _nifti(levels, _moved(picture.affine, box), step, -extent, (_FLOOR * extent, extent)), extent


def _moved(affine: np.ndarray, box: Box) -> np.ndarray:
    moved = affine.copy()
    moved[:3, 3] = apply_affine(affine, [side.start for side in box])
    return moved


def _nifti(
    levels: np.ndarray, affine: np.ndarray, slope: float, intercept: float, shown: tuple[float, float]
) -> bytes:
    """Write levels as they are: nibabel's images would choose another scale."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(levels.shape)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = slope, intercept
    header["cal_min"], header["cal_max"] = shown
    header["vox_offset"], header["magic"] = 352, b"n+1"
    return gzip.compress(header.binaryblock + bytes(4) + levels.tobytes(order="F"), 9, mtime=0)
