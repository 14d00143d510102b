"""How a unit behaves on real images, as far as the bundle's prior knows."""

import numpy as np

import engine
from models import Prior

SMALLEST_SPREAD = 1e-6
STATISTICS = ("mean", "maximum")


def quantiles(prior: Prior, unit: engine.Unit) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the quantiles of a unit's activation over real held-out images.

    A neuron is compared with the best position of its channel on each image,
    for it may sit anywhere.

    Parameters
    ----------
    prior : Prior
        Of the bundle.
    unit : Unit
        A channel, a neuron or a class logit.

    Returns
    -------
    values, levels : ndarray or None
        Ascending; None if the prior does not hold the unit's layer.
    """
    if not isinstance(unit, engine.Channel) or unit.layer not in prior.layers:
        return None
    values = prior.activation_quantiles(unit.layer, statistic_of(unit))[unit.channel]
    return values.double().numpy(), np.asarray(prior.quantile_levels)


def statistic_of(unit: engine.Channel) -> str:
    """Return over what of space the prior counts a unit: a neuron may sit anywhere in its channel."""
    return "maximum" if isinstance(unit, engine.Neuron) else "mean"


def ends(prior: Prior, layer: str, statistic: str) -> np.ndarray:
    """Return the 5th and the 95th percentile of each unit of a layer that the prior knows, (2, units)."""
    rows = prior.activation_quantiles(layer, statistic).double().numpy()
    return np.stack([np.interp([0.05, 0.95], prior.quantile_levels, values) for values in rows], axis=1)


def spread(prior: Prior, unit: engine.Unit) -> float:
    """Return the distance between the 5th and the 95th percentile of a unit's activation.

    It is what counts as 1 in an objective, so that one set of regularizer
    weights fits units of every scale. A unit that the prior does not know, or
    that never moves, counts plain.
    """
    known = quantiles(prior, unit)
    if known is None:
        return 1.0
    values, levels = known
    low, high = np.interp([0.05, 0.95], levels, values)
    return float(high - low) if high - low > SMALLEST_SPREAD else 1.0
