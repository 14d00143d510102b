"""Natural exemplars: the real images to which a unit answers most, and where in them.

People who are to predict what a unit answers to do better with such images than with synthetic pictures
(Borowski et al. 2021, "Exemplary natural images explain CNN activations better than state-of-the-art feature
visualization"), so each picture of a unit should have them beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import nibabel
import numpy as np
import torch
from nibabel.affines import apply_affine, voxel_sizes
from scipy import ndimage
from torch import Tensor, nn

from models import Layer, ModelError

CenterBy = Literal["receptive field", "gradient", "middle of the grid"]
SMOOTHING_MM = 4.0
"""Standard deviation of the Gaussian over gradient times input: single voxels of it are noise."""
LEVELS = ("0.05", "0.5", "0.95")


class ExemplarError(ModelError):
    """Exemplars cannot be found; the message names what is wrong and the remedy."""


@dataclass(frozen=True)
class Slices:
    """Three planes of an image through one point, and where they lie.

    Attributes
    ----------
    planes : tuple of numpy.ndarray
        Sagittal `(y, z)`, coronal `(x, z)` and axial `(x, y)`, float32, model units; x to the right, y to the
        front, z up.
    low, high : tuple of float
        Outer faces of the volume along x, y and z, mm.
    """

    planes: tuple[np.ndarray, np.ndarray, np.ndarray]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def through(cls, volume: np.ndarray, affine: np.ndarray, point_mm: Sequence[float]) -> Slices:
        """Cut a volume; axes that are oblique to the world's count as the nearest of these.

        Parameters
        ----------
        volume : numpy.ndarray
            Shape `(X, Y, Z)`.
        affine : numpy.ndarray
            Voxel to world in mm, shape `(4, 4)`.
        point_mm : sequence of float
            World coordinates; a point outside takes the nearest planes.
        """
        image = nibabel.as_closest_canonical(nibabel.Nifti1Image(np.asarray(volume, np.float32), affine))
        data = np.asarray(image.dataobj)
        sizes = voxel_sizes(image.affine)
        nearest = np.rint(apply_affine(np.linalg.inv(image.affine), point_mm)).astype(int)
        x, y, z = np.clip(nearest, 0, np.array(data.shape) - 1)
        low = image.affine[:3, 3] - sizes / 2
        planes = (data[x].copy(), data[:, y].copy(), data[:, :, z].copy())
        return cls(planes, tuple(low.tolist()), tuple((low + sizes * data.shape).tolist()))


@dataclass(frozen=True)
class Exemplar:
    """An image to which a unit answers strongly.

    Attributes
    ----------
    subject : str
        Whose image, as the source names it.
    image : int
        Its number among the images looked at, from 0.
    activation : float
        The largest value of the unit's map, or the unit's value where it has no map.
    quantile : float
        Share of all images whose activation is no larger; 1 for the highest.
    position : tuple of int or None
        Where in the unit's map; None without one.
    center_voxel, center_mm : tuple of float
        Centre of what the unit answered to, in input voxels and world coordinates.
    center_by : str
        "receptive field": the middle of what the position sees. "gradient": where the unit sees the whole
        input, the largest absolute value of gradient times input, smoothed by a Gaussian of `SMOOTHING_MM`.
        "middle of the grid": where that gradient is 0 throughout.
    tissue : float
        Share of what the position sees that is above 0, within the grid. At 0 the unit answers most to empty
        space, and the exemplar shows nothing of the subject.
    slices : Slices
        The image, through the centre.
    """

    subject: str
    image: int
    activation: float
    quantile: float
    position: tuple[int, ...] | None
    center_voxel: tuple[float, ...]
    center_mm: tuple[float, ...]
    center_by: CenterBy
    tissue: float
    slices: Slices = field(repr=False, compare=False)


@dataclass(frozen=True)
class UnitExemplars:
    """The exemplars of one unit.

    Attributes
    ----------
    unit : int
        Its index in the layer.
    images : int
        How many images were looked at.
    quantiles : dict of float
        Quantiles 0.05, 0.5 and 0.95 of the unit's activation over all of them.
    exemplars : tuple of Exemplar
        The strongest first.
    """

    unit: int
    images: int
    quantiles: dict[str, float]
    exemplars: tuple[Exemplar, ...]


@dataclass(frozen=True)
class _Probe:
    """Reads one layer of a network on images of one grid."""

    network: nn.Module
    layer: Layer
    affine: np.ndarray

    def answer(self, volume: np.ndarray, subject: str) -> Tensor:
        """Return what the layer says of an image, `(channels, *spatial)`."""
        with torch.no_grad():
            answer = _answer(self.network, self.layer.name, _batch(volume))[0]
        name, positions = self.layer.name, tuple(answer.shape[1:])
        if positions != self.layer.output_shape:
            raise ExemplarError(
                f"{subject}: a volume of shape {volume.shape} leaves {positions} positions in {name}, not "
                f"{self.layer.output_shape}; take the layer from a table of this shape"
            )
        if not torch.isfinite(answer).all():
            raise ExemplarError(
                f"{subject}: {name} gives NaN or infinity; check the volume and the network's weights"
            )
        return answer

    def look(
        self, volume: np.ndarray, subject: str, number: int, unit: int, peak: int, activation: float
    ) -> Exemplar:
        """Say where in an image lies what a unit answers to; `peak` is a flat index into its map."""
        position = tuple(int(i) for i in np.unravel_index(peak, self.layer.output_shape))
        if self.layer.whole_input:
            voxel, by = self._by_gradient(volume, unit, peak)
        else:
            voxel, by = self.layer.center(position), "receptive field"
        center = tuple(apply_affine(self.affine, voxel).tolist())
        return Exemplar(
            subject=subject,
            image=number,
            activation=activation,
            quantile=math.nan,  # known when all images have been looked at
            position=position if self.layer.output_shape else None,
            center_voxel=voxel,
            center_mm=center,
            center_by=by,
            tissue=_tissue(volume, voxel, self.layer),
            slices=Slices.through(volume, self.affine, center),
        )

    def _by_gradient(self, volume: np.ndarray, unit: int, peak: int) -> tuple[tuple[float, ...], CenterBy]:
        free = _batch(volume).requires_grad_()
        value = _answer(self.network, self.layer.name, free)[0, unit].reshape(-1)[peak]
        (gradient,) = torch.autograd.grad(value, free)
        weight = np.abs(gradient[0, 0].numpy() * volume)
        if not weight.any():
            return tuple((length - 1) / 2 for length in weight.shape), "middle of the grid"
        smooth = ndimage.gaussian_filter(weight, SMOOTHING_MM / voxel_sizes(self.affine), mode="constant")
        place = np.unravel_index(int(smooth.argmax()), smooth.shape)
        return tuple(float(i) for i in place), "gradient"


def find_exemplars(
    network: nn.Module,
    layer: Layer,
    units: Sequence[int],
    images: Iterable[tuple[str, np.ndarray]],
    affine: np.ndarray,
    top: int = 4,
) -> tuple[UnitExemplars, ...]:
    """Find the images to which units answer most, in one pass over the images.

    A unit's activation in an image is the maximum of its map, for there it has a place; units without a map
    are taken as they are. Non-linearities are read behind, unlike in a visualization. Of the images only
    three slices through each exemplar's centre are kept.

    Parameters
    ----------
    network : torch.nn.Module
        Takes `(1, 1, X, Y, Z)`; it is put into evaluation mode.
    layer : Layer
        One of `models.layer_table` on volumes of the images' shape.
    units : sequence of int
        Indices into the layer's channels.
    images : iterable of (str, numpy.ndarray)
        Subject and volume, float32, shape `(X, Y, Z)`, model units. A subject may come with several images.
    affine : numpy.ndarray
        From the images' voxels to world coordinates in mm, shape `(4, 4)`.
    top : int
        How many exemplars of each unit; all images where there are fewer.

    Returns
    -------
    tuple of UnitExemplars
        In the order of `units`. Of equal activations the image that came first goes first.

    Raises
    ------
    ExemplarError
        If a unit is not in the layer, there is no image, or an image does not fit or gives no finite answer.
    """
    _check(layer, units, top)
    probe = _Probe(network.eval(), layer, np.asarray(affine, np.float64))
    found: dict[int, list[Exemplar]] = {unit: [] for unit in units}
    values: dict[int, list[float]] = {unit: [] for unit in units}
    for number, (subject, volume) in enumerate(images):
        answer = probe.answer(volume, subject)
        for unit, kept in found.items():
            peak = int(answer[unit].argmax())
            activation = float(answer[unit].reshape(-1)[peak])
            values[unit].append(activation)
            if len(kept) < top or activation > kept[-1].activation:
                kept.append(probe.look(volume, subject, number, unit, peak, activation))
                kept.sort(key=lambda one: -one.activation)  # stable, so the earlier of equals stays first
                del kept[top:]
    if not next(iter(values.values())):
        raise ExemplarError("images: there are none to look at; name a cohort with at least one subject")
    return tuple(_summary(unit, kept, np.array(values[unit])) for unit, kept in found.items())


def _check(layer: Layer, units: Sequence[int], top: int) -> None:
    if top < 1:
        raise ExemplarError(f"top: is {top}, but must be at least 1")
    if not units:
        raise ExemplarError(f"units: none is named; {layer.name} has units 0 to {layer.channels - 1}")
    for unit in units:
        if not 0 <= unit < layer.channels:
            raise ExemplarError(f"unit: is {unit}, but {layer.name} has units 0 to {layer.channels - 1}")


def _summary(unit: int, kept: list[Exemplar], values: np.ndarray) -> UnitExemplars:
    exemplars = tuple(replace(one, quantile=float((values <= one.activation).mean())) for one in kept)
    quantiles = {level: float(np.quantile(values, float(level))) for level in LEVELS}
    return UnitExemplars(unit, len(values), quantiles, exemplars)


class _Reached(BaseException):
    """The layer has answered: the rest need not run. No `except Exception` inside a network swallows it."""


def _answer(network: nn.Module, layer: str, volume: Tensor) -> Tensor:
    """Run a network up to a layer and return what leaves the layer when it is used first."""
    answers: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        answers.append(output)
        raise _Reached

    handle = network.get_submodule(layer).register_forward_hook(keep)
    try:
        network(volume)
    except _Reached:
        pass
    finally:
        handle.remove()
    return answers[0]


def _batch(volume: np.ndarray) -> Tensor:
    """Copy a volume into a batch of one, so that a gradient's leaf is nobody else's memory."""
    return torch.tensor(np.asarray(volume, np.float32))[None, None]


def _tissue(volume: np.ndarray, voxel: tuple[float, ...], layer: Layer) -> float:
    if layer.whole_input:
        return float((volume > 0).mean())
    starts = [round(at - (edge - 1) / 2) for at, edge in zip(voxel, layer.receptive_field, strict=True)]
    spans = zip(starts, layer.receptive_field, strict=True)
    seen = volume[tuple(slice(max(0, start), max(0, start + edge)) for start, edge in spans)]
    return float((seen > 0).mean()) if seen.size else 0.0
