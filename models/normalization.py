"""From an image's own intensities to model units: what the training pipeline of a network did to its images.

Every kind is a rule that any one image answers by itself; formulas stand in the JSON for its readers.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

Voxels = Literal["nonzero", "all"]
Share = Annotated[float, Field(ge=0, le=1)]


class _Rule(BaseModel):
    """What every rule can do."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def words(self) -> str:
        """The rule as half a sentence."""
        raise NotImplementedError

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Bring an image to model units.

        Parameters
        ----------
        image : numpy.ndarray
            Intensities in the scanner's units, any shape.

        Returns
        -------
        numpy.ndarray
            float32, same shape.

        Raises
        ------
        ValueError
            If the image holds NaN or infinity, is zero everywhere, or has nothing that the rule can take its
            figures from.
        """
        return np.asarray(self._model(np.asarray(image, np.float32)), np.float32)

    def _model(self, image: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class Quantile(_Rule):
    """Divide by a quantile: with ``q`` that of the image's nonzero voxels, ``model = image / q``.

    Attributes
    ----------
    kind : "quantile"
        Names the rule.
    quantile : float
        Between 0 and 1, both excluded.
    voxels : "nonzero"
        Which voxels the quantile is taken over.
    forward, inverse : str
        The two formulas, for readers of the JSON.
    """

    kind: Literal["quantile"] = "quantile"
    quantile: float = Field(gt=0, lt=1)
    voxels: Literal["nonzero"] = "nonzero"
    forward: Literal["model = image / q"] = "model = image / q"
    inverse: Literal["image = model * q"] = "image = model * q"

    @property
    def words(self) -> str:
        """The rule as half a sentence."""
        return f"the image divided by the {self.quantile} quantile of its nonzero voxels"

    def scale(self, image: np.ndarray) -> float:
        """Return ``q`` of an image.

        Parameters
        ----------
        image : numpy.ndarray
            Intensities in the scanner's units, any shape.

        Returns
        -------
        float
            What to divide by to reach model units.

        Raises
        ------
        ValueError
            If the image holds NaN or infinity, is zero everywhere, or its quantile is not positive.
        """
        q = float(np.quantile(_chosen(np.asarray(image), self.voxels), self.quantile))
        if q <= 0:
            raise ValueError(f"quantile {self.quantile} of the image's nonzero voxels is {q}, not positive")
        return q

    def _model(self, image: np.ndarray) -> np.ndarray:
        return np.asarray(image / np.float32(self.scale(image)))


class ZScore(_Rule):
    """Set mean and standard deviation: ``model = (image - m) / s * deviation + mean``.

    Attributes
    ----------
    kind : "zscore"
        Names the rule.
    voxels : "nonzero" or "all"
        Over which ``m`` and ``s`` are taken; with "nonzero", voxels of 0 stay 0, as MONAI's
        ``NormalizeIntensity(nonzero=True)`` leaves them.
    clip : tuple of float
        Quantiles of all voxels at which the image is clipped beforehand; (0, 1) clips nothing.
    mean, deviation : float
        What the image's mean and standard deviation become.
    """

    kind: Literal["zscore"] = "zscore"
    voxels: Voxels = "nonzero"
    clip: tuple[Share, Share] = (0.0, 1.0)
    mean: float = 0.0
    deviation: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> ZScore:
        if self.clip[0] >= self.clip[1]:
            raise ValueError(f"clip must be (low, high) with low < high, got {self.clip}")
        return self

    @property
    def words(self) -> str:
        """The rule as half a sentence."""
        of = "its nonzero voxels (0 stays 0)" if self.voxels == "nonzero" else "all voxels"
        return f"the image with mean {self.mean:g} and standard deviation {self.deviation:g} of {of}"

    def _model(self, image: np.ndarray) -> np.ndarray:
        values, chosen = image, _chosen(image, self.voxels)
        if self.clip != (0.0, 1.0):
            low, high = np.quantile(image, self.clip)
            values, chosen = np.clip(image, low, high), np.clip(chosen, low, high)
        spread = float(chosen.std(dtype=np.float64))
        if spread <= 0:
            raise ValueError("the image is constant where its standard deviation is taken; it shows nothing")
        model = (values - chosen.mean(dtype=np.float64)) / spread * self.deviation + self.mean
        if self.voxels == "nonzero":
            model = np.where(image == 0, 0, model)
        return np.asarray(model)


class MinMax(_Rule):
    """Stretch between two quantiles: ``model = (image - a) / (b - a)``, clipped to 0 to 1.

    Attributes
    ----------
    kind : "minmax"
        Names the rule.
    voxels : "nonzero" or "all"
        Over which the quantiles are taken.
    quantiles : tuple of float
        Of ``a`` and ``b``; (0, 1) are the smallest and the largest value.
    """

    kind: Literal["minmax"] = "minmax"
    voxels: Voxels = "all"
    quantiles: tuple[Share, Share] = (0.0, 1.0)

    @model_validator(mode="after")
    def _ordered(self) -> MinMax:
        if self.quantiles[0] >= self.quantiles[1]:
            raise ValueError(f"quantiles must be (low, high) with low < high, got {self.quantiles}")
        return self

    @property
    def words(self) -> str:
        """The rule as half a sentence."""
        low, high = self.quantiles
        of = "its nonzero voxels" if self.voxels == "nonzero" else "all voxels"
        return f"the image stretched so that the quantiles {low:g} and {high:g} of {of} become 0 and 1"

    def _model(self, image: np.ndarray) -> np.ndarray:
        low, high = np.quantile(_chosen(image, self.voxels), self.quantiles)
        if low >= high:
            raise ValueError(f"quantiles {self.quantiles} of the image are both {low:g}; it shows nothing")
        return np.asarray(np.clip((image - low) / (high - low), 0, 1))


class Unchanged(_Rule):
    """Images are in model units already.

    Attributes
    ----------
    kind : "none"
        Names the rule.
    """

    kind: Literal["none"] = "none"

    @property
    def words(self) -> str:
        """The rule as half a sentence."""
        return "the image's own"

    def _model(self, image: np.ndarray) -> np.ndarray:
        return _chosen(image, "all").reshape(image.shape)


Normalization = Annotated[Quantile | ZScore | MinMax | Unchanged, Field(discriminator="kind")]
"""One of the rules; ``kind`` tells which."""


def _chosen(image: np.ndarray, voxels: Voxels) -> np.ndarray:
    """Return the voxels that figures are taken over, flat."""
    if not np.isfinite(image).all():
        raise ValueError("the image holds NaN or infinite voxels; replace them before normalizing")
    values: np.ndarray = image[image != 0] if voxels == "nonzero" else image.ravel()
    if not values.size or not values.any():
        raise ValueError("the image is zero everywhere; give one with a brain in it")
    return values
