"""A network prepared for what is asked of it.

A step needs the network up to the last layer that is read, forward and back to
its input. So it is traced once, cut there, its batch norms are folded into the
convolutions before them, and its weights are laid out as the device likes them.
The caller's network is never touched: what runs is a copy.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from enum import Enum

import torch
from torch import Tensor, fx, nn

from engine.network.capture import activations
from engine.network.graph import Untraceable, cut
from engine.network.segments import segmented, sizes

# More than one model needs in a run: an objective's layers, those of penalties, single layers of figures.
_KEPT = 16
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Precision(Enum):
    """The numbers in which the network computes; the volume and its step stay in float32."""

    FLOAT32 = 1
    BFLOAT16 = 2
    FLOAT16 = 3

    @property
    def dtype(self) -> torch.dtype:
        """As torch calls it."""
        return {1: torch.float32, 2: torch.bfloat16, 3: torch.float16}[self.value]


class Reader(nn.Module):
    """Reads some layers of a network and computes nothing behind the last of them.

    Parameters
    ----------
    network : nn.Module
        It is copied.
    layers : tuple of str
        Names as `named_modules` writes them.
    behind_nonlinearities : bool
        See `engine.network.capture.activations`.
    precision : Precision
        The numbers in which it computes.

    Raises
    ------
    UnknownLayer
        A name is not a layer of the network.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: tuple[str, ...],
        behind_nonlinearities: bool,
        precision: Precision,
    ) -> None:
        super().__init__()
        self._layers, self._behind, self._dtype = layers, behind_nonlinearities, precision.dtype
        try:
            self.body: nn.Module = cut(network, layers, behind_nonlinearities)
            self._traced = True
        except Untraceable:
            self.body, self._traced = copy.deepcopy(network).eval(), False
        self.segments: nn.Module | None = None
        self._arrange(device_of(network))

    def _arrange(self, device: torch.device) -> None:
        """Freeze the copy and lay its weights out."""
        self.requires_grad_(False)
        self.body.to(self._dtype)
        if device.type == "cpu" and self._dtype != torch.float32:
            _pool_in_single(self.body)
        # A GPU has fast routines for channels that lie last in 16 bits only.
        if self._traced and (device.type != "cuda" or self._dtype != torch.float32):
            for weight in self.body.parameters():
                if weight.ndim in _CHANNELS_LAST:
                    weight.data = weight.data.to(memory_format=_CHANNELS_LAST[weight.ndim])

    def fits(self, volume: Tensor, memory: int) -> bool:
        """Tell whether all activations on volumes can be kept, and get ready to do without them if not.

        Parameters
        ----------
        volume : Tensor, (batch, 1, *shape)
            What is to be read.
        memory : int
            Bytes that the activations may take.
        """
        if not isinstance(self.body, fx.GraphModule) or _at_most(self.body, volume) <= memory:
            return True
        found = sizes(self.body, volume.to(self._dtype))
        if sum(found.values()) <= memory:
            return True
        self.segments = segmented(self.body, found)
        return self.segments is None

    def forward(self, volume: Tensor, keep: bool = True) -> Mapping[str, Tensor]:
        """Return what the layers say.

        Parameters
        ----------
        volume : Tensor, (batch, 1, *shape)
            Volumes.
        keep : bool
            Whether activations are kept for the way back. If not, and `fits` has said that they do not fit,
            they are computed again.

        Returns
        -------
        dict of str to Tensor
            By layer, in the volumes' own numbers.
        """
        inputs = volume.to(self._dtype)
        body = self.body if keep or self.segments is None else self.segments
        if self._traced:
            found = dict(zip(self._layers, body(inputs), strict=True))
        else:
            found = activations(self.body, self._layers, inputs, self._behind)
        return {layer: answer.to(volume.dtype) for layer, answer in found.items()}


class _InSingle(nn.Module):
    """A module that computes in float32, whatever numbers it is given."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, volume: Tensor) -> Tensor:
        out: Tensor = self.module(volume.float())
        return out.to(volume.dtype)


def _pool_in_single(body: nn.Module) -> None:
    """Let average poolings compute in float32: on a CPU torch has them in no 16 bits."""
    for module in list(body.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AvgPool3d):
                setattr(module, name, _InSingle(child))


class Prepared:
    """A network, and the readers that were made of it.

    A reader is made when it is first asked for and kept. The network must not be changed meanwhile.

    Parameters
    ----------
    network : nn.Module
        Takes `(batch, 1, *shape)`. It is left as found.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._readers: OrderedDict[tuple[object, ...], Reader] = OrderedDict()

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return device_of(self.network)

    def reader(
        self,
        layers: Iterable[str],
        behind_nonlinearities: bool = False,
        precision: Precision = Precision.FLOAT32,
    ) -> Reader:
        """Return the reader of some layers.

        Parameters
        ----------
        layers : iterable of str
            Names as `named_modules` writes them.
        behind_nonlinearities : bool
            Whether non-linearities say what leaves them instead of what enters them.
        precision : Precision
            The numbers in which it computes.

        Raises
        ------
        UnknownLayer
            A name is not a layer of the network.
        """
        names = tuple(sorted(set(layers)))
        key = (names, behind_nonlinearities, precision)
        if key not in self._readers:
            self._readers[key] = Reader(self.network, names, behind_nonlinearities, precision)
            while len(self._readers) > _KEPT:
                self._readers.popitem(last=False)
        self._readers.move_to_end(key)
        return self._readers[key]


def _at_most(body: fx.GraphModule, volume: Tensor) -> int:
    """Return more bytes than a network can need that nowhere is finer than its input."""
    channels = max([weight.shape[0] for weight in body.parameters() if weight.ndim > 1], default=1)
    return len(body.graph.nodes) * channels * volume.nbytes


def device_of(network: nn.Module) -> torch.device:
    """Return where a network's weights are; without any it runs on the CPU."""
    return next((weight.device for weight in network.parameters()), torch.device("cpu"))


def prepared(network: nn.Module | Prepared) -> Prepared:
    """Return a network prepared; one that is already stays as it is."""
    return network if isinstance(network, Prepared) else Prepared(network)
