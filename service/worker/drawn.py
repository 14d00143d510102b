"""How the units of a network behave on brains that are drawn from its bundle's prior."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from models import Bundle
from models.statistics import watched
from service.volumes import brains

# Each is shown to the whole network.
_COUNT = 8
_SEED = 0
_LOW, _HIGH = 0.05, 0.95

Ends = Mapping[tuple[str, str], np.ndarray]
"""By layer and statistic (`mean` or `maximum` over space): a low and a high end of each unit, (2, units)."""


def drawn_ends(network: nn.Module, bundle: Bundle, background: np.ndarray, device: torch.device) -> Ends:
    """Measure the units of which the prior knows how they behave on real images.

    Parameters
    ----------
    network : nn.Module
        The bundle's, with whatever weights; it is left as found.
    bundle : Bundle
        Whose prior brains are drawn from.
    background : ndarray, (X, Y, Z)
        The reference brain, model units.
    device : torch.device
        Where the network lives.

    Returns
    -------
    mapping
        The 5th and the 95th percentile of each unit over 8 brains, always the same.
    """
    layers = set(bundle.prior().layers)
    if not layers:
        return {}
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for brain in brains.drawn(bundle, background, _SEED, _COUNT):
        with torch.inference_mode(), watched(network, layers) as seen:
            network(torch.from_numpy(brain)[None, None].to(device))
        for layer, output in seen.items():
            flat = output[0].flatten(1) if output.ndim > 2 else output[0][:, None]
            for statistic, values in (("mean", flat.mean(1)), ("maximum", flat.amax(1))):
                found.setdefault((layer, statistic), []).append(values.double().cpu().numpy())
    return {key: np.quantile(np.stack(rows), (_LOW, _HIGH), axis=0) for key, rows in found.items()}
