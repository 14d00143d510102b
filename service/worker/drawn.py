"""How the units of a network behave on brains that are drawn from its bundle's prior."""

from collections.abc import Iterator, Mapping
from functools import cached_property

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


class Drawn:
    """How units behave on drawn brains; measured once, in one go or brain by brain.

    Parameters
    ----------
    network : nn.Module
        The bundle's, with whatever weights; it is left as found.
    bundle : Bundle
        Whose prior brains are drawn from, and says which layers are measured.
    background : ndarray, (X, Y, Z)
        The reference brain, model units.
    device : torch.device
        Where the network lives.
    """

    def __init__(
        self, network: nn.Module, bundle: Bundle, background: np.ndarray, device: torch.device
    ) -> None:
        self._network, self._bundle, self._background = network, bundle, background
        self._device = device
        self._found: dict[tuple[str, str], list[np.ndarray]] = {}
        self._shown = 0

    def measure(self) -> Iterator[None]:
        """Show what has not been shown yet; yields after each brain, so that others get their turn."""
        layers = set(self._bundle.prior().layers)
        if not layers or self._shown == _COUNT:
            return
        for brain in brains.drawn(self._bundle, self._background, _SEED, _COUNT)[self._shown :]:
            volume = torch.from_numpy(brain)[None, None].to(self._device)
            with torch.inference_mode(), watched(self._network, layers) as seen:
                self._network(volume)
            self._note(seen)
            yield

    def _note(self, seen: Mapping[str, torch.Tensor]) -> None:
        """Note of each unit what a brain has brought about."""
        for layer, output in seen.items():
            flat = output[0].flatten(1) if output.ndim > 2 else output[0][:, None]
            for statistic, values in (("mean", flat.mean(1)), ("maximum", flat.amax(1))):
                self._found.setdefault((layer, statistic), []).append(values.double().cpu().numpy())
        self._shown += 1

    @cached_property
    def ends(self) -> Ends:
        """The 5th and the 95th percentile of each unit over 8 brains, always the same; {} without a prior."""
        for _ in self.measure():
            pass
        return {key: np.quantile(np.stack(rows), (_LOW, _HIGH), axis=0) for key, rows in self._found.items()}
