"""How a unit behaves on real images, as far as the bundle's prior knows."""

import numpy as np

import engine
from models import Prior

_SMALLEST_SPREAD = 1e-6


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
    statistic = "maximum" if isinstance(unit, engine.Neuron) else "mean"
    values = prior.activation_quantiles(unit.layer, statistic)[unit.channel]
    return values.double().numpy(), np.asarray(prior.quantile_levels)


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
    return float(high - low) if high - low > _SMALLEST_SPREAD else 1.0
