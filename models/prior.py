"""Statistics of the cohort that visualization needs, stored compactly in ``prior.safetensors``.

What the file holds (all tensors):

``magnitude`` float16
    Mean of ``abs(rfftn(brain, norm="ortho"))`` over brains in model units, sampled on a coarser grid of
    frequencies. The orthonormal scale keeps the constant term inside float16 and hardly depends on the
    volume's size.
``deviation`` float16
    Voxelwise standard deviation at half resolution.
``mask`` uint8, ``mask_shape`` int64
    The brain mask, eight voxels a byte, and its shape.
``intensity_quantiles``, ``quantile_levels`` float32
    Quantiles of the brains' intensities (model units) and the levels of every quantile in the file.
``activations/<layer>`` float32
    ``(units, levels)``: quantiles, over real held-out images, of each unit's spatial mean.
``maxima/<layer>`` float32
    The same of each unit's spatial maximum; absent for layers without spatial axes, where both coincide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional

_FIXED = ("magnitude", "deviation", "mask", "mask_shape", "intensity_quantiles", "quantile_levels")
_BY_LAYER = ("activations/", "maxima/")
_TINY = 1e-6


class Prior(Mapping[str, torch.Tensor]):
    """The stored tensors by name, and what they stand for by method.

    Parameters
    ----------
    tensors : mapping of str to torch.Tensor
        As the module's text lists them.

    Raises
    ------
    ValueError
        If a tensor is missing, unknown, or has the wrong type or shape.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = dict(tensors)
        _check(self._tensors)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the full grid in voxels."""
        x, y, z = (int(n) for n in self["mask_shape"])
        return x, y, z

    @property
    def quantile_levels(self) -> tuple[float, ...]:
        """Levels of every quantile here, ascending, from 0 to 1."""
        return tuple(round(float(level), 6) for level in self["quantile_levels"])

    @property
    def intensity_quantiles(self) -> torch.Tensor:
        """Quantiles of the brains' intensities, float32 ``(levels,)``, model units."""
        return self["intensity_quantiles"]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers whose activations are known, sorted."""
        prefix = "activations/"
        return tuple(sorted(name.removeprefix(prefix) for name in self if name.startswith(prefix)))

    def mask(self) -> torch.Tensor:
        """Return the brain mask.

        Returns
        -------
        torch.Tensor
            bool, at the full `shape`.
        """
        bits = np.unpackbits(self["mask"].numpy(), count=int(np.prod(self.shape)))
        return torch.from_numpy(bits.astype(bool).reshape(self.shape))

    def deviation(self) -> torch.Tensor:
        """Return the voxelwise standard deviation, interpolated linearly.

        Returns
        -------
        torch.Tensor
            float32, at the full `shape`, model units.
        """
        return _resized(self["deviation"].float(), self.shape)

    def magnitude(self, shape: Sequence[int] | None = None) -> torch.Tensor:
        """Return the mean Fourier magnitude at the frequencies of a grid.

        Parameters
        ----------
        shape : sequence of int, optional
            The grid in voxels of the same size as the cohort's; by default the full `shape`.

        Returns
        -------
        torch.Tensor
            float32, shaped as ``rfftn`` of such a volume; the scale is that of ``norm="ortho"``. Between the
            stored frequencies the logarithm is interpolated linearly.
        """
        x, y, z = shape or self.shape
        stored = self["magnitude"].float().clamp_min(_TINY).log()
        return _resampled_spectrum(stored, (x, y, z // 2 + 1), even=z % 2 == 0).exp()

    def activation_quantiles(self, layer: str, statistic: str = "mean") -> torch.Tensor:
        """Return quantiles of a layer's units over real held-out images.

        Parameters
        ----------
        layer : str
            One of `layers`.
        statistic : {"mean", "maximum"}
            Over space, of each image's activation.

        Returns
        -------
        torch.Tensor
            float32, ``(units, levels)``.

        Raises
        ------
        KeyError
            If the layer is not among `layers`.
        ValueError
            If there is no such statistic.
        """
        if statistic not in ("mean", "maximum"):
            raise ValueError(f"statistic must be 'mean' or 'maximum', got {statistic!r}")
        if statistic == "maximum" and f"maxima/{layer}" in self:
            return self[f"maxima/{layer}"]
        return self[f"activations/{layer}"]

    @classmethod
    def pack(
        cls,
        *,
        magnitude: torch.Tensor,
        deviation: torch.Tensor,
        mask: torch.Tensor,
        intensity_quantiles: torch.Tensor,
        quantile_levels: Sequence[float],
        activations: Mapping[str, torch.Tensor],
        maxima: Mapping[str, torch.Tensor],
    ) -> Prior:
        """Make a prior from statistics at full resolution.

        Parameters
        ----------
        magnitude : torch.Tensor
            Mean of ``abs(rfftn(brain, norm="ortho"))``, shape ``(X, Y, Z // 2 + 1)``.
        deviation : torch.Tensor
            Voxelwise standard deviation, shape ``(X, Y, Z)``, model units.
        mask : torch.Tensor
            bool, shape ``(X, Y, Z)``.
        intensity_quantiles : torch.Tensor
            Shape ``(levels,)``, model units.
        quantile_levels : sequence of float
            Ascending, between 0 and 1.
        activations, maxima : mapping of str to torch.Tensor
            By layer, ``(units, levels)``, see the module's text.

        Returns
        -------
        Prior
            Its `magnitude` and `deviation` are kept at half resolution.
        """
        x, y, z = mask.shape
        half = ((x + 1) // 2, (y + 1) // 2, (z + 1) // 2)
        log = magnitude.float().clamp_min(_TINY).log()
        coarse = (half[0], half[1], half[2] // 2 + 1)
        # Both grids must reach the highest frequency, so so the coarse axis counts as even.
        spectrum = _resampled_spectrum(log, coarse, even=True, source_even=z % 2 == 0)
        tensors = {
            "magnitude": spectrum.exp().half(),
            "deviation": _resized(deviation.float(), half).half(),
            "mask": torch.from_numpy(np.packbits(mask.bool().numpy())),
            "mask_shape": torch.tensor([x, y, z]),
            "intensity_quantiles": intensity_quantiles.float(),
            "quantile_levels": torch.tensor(list(quantile_levels), dtype=torch.float32),
        }
        tensors |= {f"activations/{layer}": values.float() for layer, values in activations.items()}
        tensors |= {f"maxima/{layer}": values.float() for layer, values in maxima.items()}
        return cls(tensors)


def _check(tensors: Mapping[str, torch.Tensor]) -> None:
    missing = [name for name in _FIXED if name not in tensors]
    unknown = [name for name in tensors if name not in _FIXED and not name.startswith(_BY_LAYER)]
    if missing or unknown:
        raise ValueError(f"tensors missing: {missing or 'none'}; tensors not known: {unknown[:5] or 'none'}")
    shape = tensors["mask_shape"]
    if shape.shape != (3,) or shape.dtype != torch.int64 or not bool(((shape > 0) & (shape <= 1024)).all()):
        raise ValueError("mask_shape must be three int64 from 1 to 1024")
    packed = tensors["mask"]
    if packed.dtype != torch.uint8 or packed.shape != (-(-int(shape.prod()) // 8),):
        raise ValueError("mask must be uint8 with one bit for each voxel of mask_shape")
    levels = tensors["quantile_levels"]
    if (
        levels.ndim != 1
        or not bool((levels.diff() > 0).all())
        or not bool(((levels >= 0) & (levels <= 1)).all())
    ):
        raise ValueError("quantile_levels must ascend within 0 to 1")
    if tensors["magnitude"].ndim != 3 or tensors["deviation"].ndim != 3:
        raise ValueError("magnitude and deviation must have three axes")
    if tensors["intensity_quantiles"].shape != levels.shape:
        raise ValueError("intensity_quantiles must have one value per quantile level")
    for name, values in tensors.items():
        if name.startswith(_BY_LAYER) and (values.ndim != 2 or values.shape[1] != len(levels)):
            raise ValueError(f"{name} must have shape (units, {len(levels)}), got {tuple(values.shape)}")
        if values.is_floating_point() and not bool(values.isfinite().all()):
            raise ValueError(f"{name} holds NaN or infinity")


def _resized(volume: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Interpolate linearly, the outer voxels staying where they are."""
    out = functional.interpolate(volume[None, None], size=tuple(shape), mode="trilinear", align_corners=True)
    return out[0, 0]


def _along(values: torch.Tensor, axis: int, positions: torch.Tensor) -> torch.Tensor:
    """Interpolate linearly along one axis at fractional positions."""
    positions = positions.clamp(0, values.shape[axis] - 1)
    below = positions.floor().long().clamp_max(max(values.shape[axis] - 2, 0))
    above = (below + 1).clamp_max(values.shape[axis] - 1)
    weight = (positions - below).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    return values.index_select(axis, below) * (1 - weight) + values.index_select(axis, above) * weight


def _resampled_spectrum(
    log: torch.Tensor, shape: tuple[int, int, int], even: bool, source_even: bool = True
) -> torch.Tensor:
    """Resample a spectrum in rfftn's layout at the frequencies of another grid.

    `even` and `source_even` say whether the last axis belongs to a volume of even length, whose last
    frequency is exactly half a cycle a voxel.
    """
    for axis in (0, 1):
        n = log.shape[axis]
        # Frequencies ascend after fftshift; one period is closed so that both ends can be interpolated.
        shifted = torch.fft.fftshift(log, dim=axis)
        closed = torch.cat([shifted, shifted.narrow(axis, 0, 1)], dim=axis)
        wanted = torch.fft.fftfreq(shape[axis], dtype=log.dtype)
        log = _along(closed, axis, wanted * n + n // 2)
    length = 2 * (log.shape[2] - 1) + (0 if source_even else 1)
    target = 2 * (shape[2] - 1) + (0 if even else 1)
    return _along(log, 2, torch.arange(shape[2], dtype=log.dtype) / target * length)
