"""Pictures of results, drawn with nilearn; needs the extra `plot`.

Outside the canvas a final volume shows the model's reference brain, so the
volume brings its own anatomy. It is drawn as it is, in gray: what the unit
looks for must not hide behind a color map. Only a deformation is drawn in color
on it, for a warp is hard to read from the intensities that it moves.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from matplotlib.figure import Figure
from nibabel.affines import apply_affine, voxel_sizes
from nilearn import datasets, image, plotting
from nilearn.plotting.displays import OrthoSlicer

from neurofv.files import write_atomically
from neurofv.results import Visualization
from neurofv.words import describe

_INK, _DIM, _ACCENT, _GROUND = "#f2f2f2", "#8c929c", "#4fd1c5", "black"
_BOX = "#d69e2e"  # unlike the crosshair, so that an edge of the box is not read as one
# About the size of what a unit looks for: the middle of a ring is its hole, not a point of its rim.
_FWHM_MM = 12.0
_CLOSE_UP_MM = 64.0
_DPI = 130
_FADE_MM = 8.0  # as the contract says of the canvas
_MNI = 4  # NIFTI_XFORM_MNI_152

Box = tuple[slice, ...]
_WHOLE: Box = (slice(None),) * 3


def picture(result: Visualization, path: str | Path, background: nibabel.Nifti1Image | None = None) -> Path:
    """Draw three orthogonal views through a result's strongest point, and a close-up of each.

    Parameters
    ----------
    result : Visualization
        What to draw.
    path : str or Path
        Where; the ending chooses the format (`.png`, `.svg`, `.pdf`).
    background : Nifti1Image, optional
        The brain to compare with, on any grid; see `strongest_point`.

    Returns
    -------
    Path
        `path`.
    """
    volume = result.volume.nifti()
    point = strongest_point(result, background)
    figure = Figure(figsize=(10, 7.6), facecolor=_GROUND)
    figure.text(0.03, 0.95, result.title, color=_INK, fontsize=17, weight="bold", va="center")
    figures = describe(
        result.objective.terms[0], result.evaluation.terms[0], result.request.HasField("control")
    )
    figure.text(0.03, 0.905, figures, color=_DIM, fontsize=10.5, va="center")
    views = _draw(result, _WHOLE, point, figure, (0.03, 0.45, 0.95, 0.42))
    views.draw_cross(color=_ACCENT, linewidth=0.6)
    _draw(result, _around(volume, point), point, figure, (0.03, 0.06, 0.95, 0.36))
    figure.text(0.03, 0.024, _legend([result]), color=_DIM, fontsize=8.5, va="center")
    return _write(figure, Path(path))


def contact_sheet(
    results: Sequence[Visualization], path: str | Path, background: nibabel.Nifti1Image | None = None
) -> Path:
    """Draw several results one below the other: three orthogonal views and a close-up of each.

    Parameters
    ----------
    results : sequence of Visualization
        What to draw, from top to bottom.
    path : str or Path
        Where; the ending chooses the format.
    background : Nifti1Image, optional
        The brain to compare with, on any grid; see `strongest_point`.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ValueError
        There is nothing to draw.
    """
    if not results:
        raise ValueError("a contact sheet needs at least one result")
    width, row, head, foot = 16.0, 2.2, 0.8, 0.4
    height = head + row * len(results) + foot
    figure = Figure(figsize=(width, height), facecolor=_GROUND)
    model = f"{results[0].provenance.model}/{results[0].provenance.version}"
    heading = f"What the units of {model} look for"
    figure.text(0.02, 1 - head / 2 / height, heading, color=_INK, fontsize=19, weight="bold", va="center")
    for index, result in enumerate(results):
        bottom = (foot + row * (len(results) - 1 - index)) / height
        _sheet_row(result, figure, bottom, row / height, background)
    figure.text(0.02, foot / 2 / height, _legend(results), color=_DIM, fontsize=9, va="center")
    return _write(figure, Path(path))


def _sheet_row(
    result: Visualization,
    figure: Figure,
    bottom: float,
    height: float,
    background: nibabel.Nifti1Image | None,
) -> None:
    """Draw one result of a contact sheet: its name, the whole volume, close-ups."""
    # Long names, such as that of a contrasted class's sample, must not run into the views.
    size = 16 * min(1, 16 / len(result.label))
    figure.text(0.02, bottom + height * 0.56, result.label, color=_INK, fontsize=size, weight="bold")
    figure.text(0.02, bottom + height * 0.36, _figures(result), color=_DIM, fontsize=9)
    point = strongest_point(result, background)
    low, tall = bottom + height * 0.04, height * 0.92
    _draw(result, _WHOLE, point, figure, (0.15, low, 0.44, tall)).draw_cross(color=_ACCENT, linewidth=0.6)
    _draw(result, _around(result.volume.nifti(), point), point, figure, (0.59, low, 0.4, tall))


def strongest_point(
    result: Visualization, background: nibabel.Nifti1Image | None = None
) -> tuple[float, float, float]:
    """Return the point around which the optimizer has changed most, mm.

    Parameters
    ----------
    result : Visualization
        A finished visualization.
    background : Nifti1Image, optional
        The reference brain in model units, on any grid. A run that began on it is compared with it; if it
        is not at hand, the squared intensity gradient is taken, which a mean brain has little of. A run
        that began with noise is compared with middle grey.

    Returns
    -------
    tuple of float
        Where the squared change, smoothed with a FWHM of 12 mm, is largest within the canvas.
    """
    volume = result.volume.nifti()
    # On the rim the canvas fades into the brain, which is far from grey and nobody's doing.
    box = _canvas(result, volume, rim_mm=_FADE_MM if _on_noise(result) else 0.0)
    part = volume.get_fdata(dtype=np.float32)[box]
    growth = _growth(result)
    if growth is not None:
        change = growth.get_fdata(dtype=np.float32)[box] ** 2
    elif _on_noise(result):
        change = (part - np.mean(_intensities(volume))) ** 2
    elif background is not None:
        home = image.resample_to_img(background, volume, force_resample=True, copy_header=True)
        change = (part - home.get_fdata(dtype=np.float32)[box]) ** 2
    else:
        axes = [axis for axis in range(3) if part.shape[axis] > 1]
        change = sum((np.gradient(part, axis=axis) ** 2 for axis in axes), np.zeros_like(part))
    affine = volume.slicer[box].affine
    smooth = image.smooth_img(nibabel.Nifti1Image(change, affine), _FWHM_MM).get_fdata()
    x, y, z = apply_affine(affine, np.unravel_index(int(np.argmax(smooth)), smooth.shape))
    return float(x), float(y), float(z)


def _canvas(result: Visualization, volume: nibabel.Nifti1Image, rim_mm: float = 0.0) -> Box:
    """Return the box of the grid that was optimized, less a rim where its faces are not the grid's."""
    canvas = result.request.canvas
    sizes = np.array([canvas.size_mm.i, canvas.size_mm.j, canvas.size_mm.k]) / voxel_sizes(volume.affine)
    center = (canvas.center_mm.x, canvas.center_mm.y, canvas.center_mm.z)
    middle = apply_affine(np.linalg.inv(volume.affine), center)
    box = _box(volume, middle, np.rint(sizes))
    rims = np.floor(np.minimum(np.rint(rim_mm / voxel_sizes(volume.affine)), sizes / 6)).astype(int)
    return tuple(
        slice(side.start + rim * (side.start > 0), side.stop - rim * (side.stop < whole))
        for side, rim, whole in zip(box, rims, volume.shape, strict=True)
    )


def _around(volume: nibabel.Nifti1Image, point: tuple[float, float, float]) -> Box:
    """Return the box of a close-up."""
    middle = apply_affine(np.linalg.inv(volume.affine), point)
    return _box(volume, middle, np.rint(_CLOSE_UP_MM / voxel_sizes(volume.affine)))


def _box(volume: nibabel.Nifti1Image, middle: np.ndarray, sizes: np.ndarray) -> Box:
    """Return a box of whole voxels, moved inside the grid."""
    shape = np.array(volume.shape)
    sizes = np.clip(sizes, 1, shape).astype(int)
    first = np.clip(np.rint(middle - (sizes - 1) / 2).astype(int), 0, shape - sizes)
    return tuple(slice(int(start), int(start + size)) for start, size in zip(first, sizes, strict=True))


def _draw(
    result: Visualization,
    box: Box,
    point: tuple[float, float, float],
    figure: Figure,
    place: tuple[float, float, float, float],
) -> OrthoSlicer:
    """Draw sagittal, coronal and axial views of a box of the final volume."""
    whole = result.volume.nifti()
    low, high = _intensities(whole)
    display = plotting.plot_img(
        whole.slicer[box],
        cut_coords=point,
        display_mode="ortho",
        figure=figure,
        axes=figure.add_axes(place),
        cmap="gray",
        vmin=low,
        vmax=high,
        black_bg=True,
        colorbar=False,
        annotate=False,
        draw_cross=False,
    )
    growth = _growth(result)
    if growth is not None and (extent := float(np.abs(growth.get_fdata()).max())):
        # Half and double are equally far from 1, and what hardly changes stays gray.
        limits = {"vmin": -extent, "vmax": extent, "threshold": extent / 10}
        display.add_overlay(growth.slicer[box], cmap="coolwarm", transparency=0.75, **limits)
    display.annotate(size=10, color=_INK)
    outline, color = _outline(result, whole)
    if outline is not None and np.ptp(outline.slicer[box].get_fdata()):
        display.add_contours(outline.slicer[box], levels=[0.5], colors=[color], linewidths=0.7)
    return display


def _growth(result: Visualization) -> nibabel.Nifti1Image | None:
    """Return the logarithm of a deformation's Jacobian determinant: above 0 where tissue has grown."""
    if "jacobian" not in result.extras:
        return None
    jacobian = result.extras["jacobian"].nifti()
    # A fold, which has no logarithm, counts as the strongest shrinking.
    size = np.maximum(jacobian.get_fdata(dtype=np.float32), 1e-2)
    return nibabel.Nifti1Image(np.log(size), jacobian.affine)


def _outline(result: Visualization, whole: nibabel.Nifti1Image) -> tuple[nibabel.Nifti1Image | None, str]:
    """Return a mask whose border helps to see where one is, and its color."""
    inside = np.zeros(whole.shape, dtype=np.float32)
    inside[_canvas(result, whole)] = 1
    if not inside.all():
        return nibabel.Nifti1Image(inside, whole.affine), _BOX
    if _on_noise(result) and int(whole.header["sform_code"]) == _MNI:
        # No brain is left in the volume; the template's outline says where one would be.
        template = datasets.load_mni152_brain_mask(resolution=2)
        grid = {"force_resample": True, "copy_header": True, "interpolation": "nearest"}
        return image.resample_to_img(template, whole, **grid), _DIM
    return None, _DIM


def _on_noise(result: Visualization) -> bool:
    return bool(result.request.start.WhichOneof("kind") == "noise")


def _intensities(volume: nibabel.Nifti1Image) -> tuple[float, float]:
    """Return the bundle's intensity range, as the file's header has it."""
    return float(volume.header["cal_min"]), float(volume.header["cal_max"])


def _figures(result: Visualization) -> str:
    """Return a contact sheet's two lines on the activation."""
    term = result.evaluation.terms[0]
    real = f"95 % of real images: below {term.real_p95:.1f}" if term.HasField("real_p95") else ""
    return f"activation {term.activation:.1f}\n{real}"


def _legend(results: Sequence[Visualization]) -> str:
    first = results[0]
    start = first.request.start.WhichOneof("kind").replace("_", " ")
    _, color = _outline(first, first.volume.nifti())
    where = "inside the outlined box" if color == _BOX else "on the whole grid"
    person = "derived from a person's image" if first.provenance.subject_sha256 else "no person's image"
    text = f"Synthetic; {person}. Optimized {where}, start: {start}, {first.request.steps} steps"
    if len({each.seed for each in results}) == 1:
        text += f", seed {first.seed}"
    text += ". Coordinates: mm, RAS+."
    if all("jacobian" in each.extras for each in results):
        low = min(each.evaluation.smallest_jacobian for each in results)
        high = max(each.evaluation.largest_jacobian for each in results)
        text += f"\nRed has grown, at most {high:.2f} times; blue has shrunk, at most to {low:.2f}."
    return text


def _write(figure: Figure, path: Path) -> Path:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.lstrip(".") or "png", dpi=_DPI, facecolor=_GROUND)
    write_atomically(path, buffer.getvalue())
    return path
