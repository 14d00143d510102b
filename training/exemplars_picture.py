"""Pictures of exemplars: three views of each image through the centre, and a close-up of each view.

They look like the client's contact sheets of visualizations, to be read side by side with them. A client
installs alone and the trainer must not import it, so what the two share is the style and no code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from training.exemplars import SMOOTHING_MM, Exemplar, Slices, UnitExemplars

_INK, _DIM, _ACCENT, _GROUND = "#f2f2f2", "#8c929c", "#4fd1c5", "black"
_BOX = "#d69e2e"
_CLOSE_UP_MM = 64.0
_DPI = 110
_PLANES = ((1, 2), (0, 2), (0, 1))
"""World axes that go to the right and up in the sagittal, the coronal and the axial view."""
_NAMES = "xyz"
_MARGIN, _LABEL, _ROW, _HEAD, _FOOT, _GAP = 0.3, 2.3, 2.1, 0.95, 0.55, 0.08
"""Inches."""


@dataclass(frozen=True)
class Caption:
    """What a picture says of its unit.

    Attributes
    ----------
    unit, images : str
        Names of the unit with its model, and of the images.
    field_mm : tuple of float or None
        Edges of the receptive field along x, y and z; None where the unit sees the whole input.
    intensities : tuple of float
        What is drawn black and white, model units.
    """

    unit: str
    images: str
    field_mm: tuple[float, ...] | None
    intensities: tuple[float, float]


def draw_exemplars(found: UnitExemplars, caption: Caption, path: Path) -> None:
    """Draw the exemplars of a unit one below the other.

    Parameters
    ----------
    found : UnitExemplars
        What to draw.
    caption : Caption
        What to say.
    path : Path
        Where; the ending chooses the format.
    """
    first = found.exemplars[0].slices
    scale = _ROW / max(high - low for low, high in zip(first.low, first.high, strict=True))
    close = max(_CLOSE_UP_MM, 1.15 * max(caption.field_mm or (0.0,)))
    wide = sum(scale * (first.high[right] - first.low[right]) + _GAP for right, _ in _PLANES)
    width = _MARGIN * 2 + _LABEL + wide + 3 * (_ROW + _GAP) + _GAP
    height = _HEAD + (_ROW + _GAP) * len(found.exemplars) + _FOOT
    figure = Figure(figsize=(width, height), facecolor=_GROUND)
    left = _MARGIN / width
    figure.text(left, 1 - 0.35 / height, caption.unit, color=_INK, fontsize=16, weight="bold", va="center")
    figure.text(left, 1 - 0.7 / height, _figures(found, caption), color=_DIM, fontsize=10, va="center")
    for row, exemplar in enumerate(found.exemplars):
        bottom = height - _HEAD - (row + 1) * (_ROW + _GAP) + _GAP
        _label(figure, exemplar, left, (bottom + _ROW / 2) / height)
        _row(figure, exemplar, caption, bottom, scale, close)
    figure.text(left, 0.27 / height, _legend(found, caption), color=_DIM, fontsize=8.5, va="center")
    figure.savefig(path, dpi=_DPI, facecolor=_GROUND)


def _figures(found: UnitExemplars, caption: Caption) -> str:
    low, middle, high = (found.quantiles[level] for level in ("0.05", "0.5", "0.95"))
    return f"{caption.images}; median activation {middle:.3g}, 5 to 95 %: {low:.3g} to {high:.3g}"


def _label(figure: Figure, exemplar: Exemplar, left: float, middle: float) -> None:
    # A painted image's name, "sub-05 sphere 2" and the like, must not run into the views.
    size = 14 * min(1, 16 / len(exemplar.subject))
    figure.text(left, middle, exemplar.subject, color=_INK, fontsize=size, weight="bold", va="bottom")
    x, y, z = exemplar.center_mm
    words = f"activation {exemplar.activation:.3g}\nquantile {exemplar.quantile:.2f}"
    place = f"{x:.0f}, {y:.0f}, {z:.0f} mm"
    if not exemplar.tissue:
        place += "\nno tissue in the box: the\nunit answers to empty space"
    figure.text(left, middle, f"\n{words}\n{place}", color=_DIM, fontsize=9.5, va="top", linespacing=1.35)


def _row(
    figure: Figure, exemplar: Exemplar, caption: Caption, bottom: float, scale: float, close: float
) -> None:
    """Draw the whole image and the close-ups, all views of a kind at one scale."""
    slices = exemplar.slices
    total_width, total_height = figure.get_size_inches()
    at = _MARGIN + _LABEL
    for window in (None, close):
        for index, axes in enumerate(_PLANES):
            spans = [_span(slices, axis, exemplar.center_mm[axis], window) for axis in axes]
            shown = scale if window is None else _ROW / window
            wide, tall = ((high - low) * shown for low, high in spans)
            low = bottom + (_ROW - tall) / 2
            place = (at / total_width, low / total_height, wide / total_width, tall / total_height)
            view = figure.add_axes(place)
            _view(view, slices, index, caption.intensities)
            _mark(view, exemplar, axes, caption.field_mm, cross=window is None)
            view.set_xlim(*spans[0])
            view.set_ylim(*spans[1])
            if window is None:
                _orient(view, index, exemplar.center_mm)
            at += wide + _GAP
        at += 2 * _GAP


def _span(slices: Slices, axis: int, middle: float, window: float | None) -> tuple[float, float]:
    """Return what is shown along an axis, mm: all, or a window around the middle, moved inside."""
    low, high = slices.low[axis], slices.high[axis]
    if window is None or window >= high - low:
        return low, high
    start = min(max(middle - window / 2, low), high - window)
    return start, start + window


def _view(view: Axes, slices: Slices, index: int, intensities: tuple[float, float]) -> None:
    right, up = _PLANES[index]
    view.imshow(
        slices.planes[index].T,
        origin="lower",
        extent=(slices.low[right], slices.high[right], slices.low[up], slices.high[up]),
        cmap="gray",
        vmin=intensities[0],
        vmax=intensities[1],
        aspect="auto",  # the axes have the right shape already
    )
    view.set_axis_off()


def _mark(
    view: Axes, exemplar: Exemplar, axes: tuple[int, int], field_mm: tuple[float, ...] | None, cross: bool
) -> None:
    middle = [exemplar.center_mm[axis] for axis in axes]
    if cross:
        view.axvline(middle[0], color=_ACCENT, linewidth=0.6)
        view.axhline(middle[1], color=_ACCENT, linewidth=0.6)
    elif field_mm is None:
        view.plot(*middle, marker="+", color=_ACCENT, markersize=9, markeredgewidth=0.8)
    if field_mm is not None:
        edges = [field_mm[axis] for axis in axes]
        corner = (middle[0] - edges[0] / 2, middle[1] - edges[1] / 2)
        view.add_patch(Rectangle(corner, *edges, fill=False, edgecolor=_BOX, linewidth=0.9))


def _orient(view: Axes, index: int, center: tuple[float, ...]) -> None:
    (normal,) = set(range(3)) - set(_PLANES[index])
    ground = {"facecolor": _GROUND, "edgecolor": "none", "alpha": 0.6, "pad": 0.8}
    style: dict[str, Any] = {"transform": view.transAxes, "fontsize": 8, "va": "bottom", "bbox": ground}
    view.text(0.01, 0.01, f"{_NAMES[normal]} = {center[normal]:.0f}", color=_INK, ha="left", **style)
    if index:
        style["va"] = "top"
        view.text(0.01, 0.99, "L", color=_INK, ha="left", **style)
        view.text(0.99, 0.99, "R", color=_INK, ha="right", **style)


def _legend(found: UnitExemplars, caption: Caption) -> str:
    how = {
        "receptive field": "the box is the receptive field of the position that answers most, the cross its "
        "middle",
        "gradient": "the cross is where |gradient x input| is largest, smoothed by a Gaussian of "
        f"{SMOOTHING_MM:g} mm",
        "middle of the grid": "the cross is the middle of the grid where the gradient is 0",
    }
    used = [words for by, words in how.items() if any(one.center_by == by for one in found.exemplars)]
    return (
        f"Images of persons, not synthetic. On the right close-ups. In each image {'; '.join(used)}.\n"
        "Quantile: share of images with no larger activation. Coordinates: mm, RAS+."
    )
