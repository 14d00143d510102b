"""A network without what it has learned: the control of Adebayo et al. 2018."""

from __future__ import annotations

from itertools import chain

import numpy as np
import torch
from torch import nn


def shuffle_weights(network: nn.Module, seed: int) -> nn.Module:
    """Shuffle the values of every tensor of a network's state, each within itself.

    Layers keep the scale of their weights, and running variances stay above 0. Whole numbers, such as
    indices and shapes of an imported network, are no weights and stay as they are. A tensor whose values
    are all equal comes out as it was.

    Parameters
    ----------
    network : torch.nn.Module
        Changed in place.
    seed : int
        From 0. The same seed gives the same network: the order comes from the bits of PCG64, which numpy
        keeps the same in all versions.

    Returns
    -------
    torch.nn.Module
        `network`.

    References
    ----------
    Adebayo et al. 2018, "Sanity checks for saliency maps", section 3 (independent randomization is of one
    layer, cascading of all from the top; this is the end of the cascade).
    """
    bits = np.random.PCG64(seed)
    with torch.no_grad():
        for _, tensor in chain(network.named_parameters(), network.named_buffers()):
            if tensor.is_floating_point() and tensor.numel() > 1:
                order = np.argsort(bits.random_raw(tensor.numel()), kind="stable")
                tensor.copy_(tensor.flatten()[torch.from_numpy(order)].reshape(tensor.shape))
    return network
