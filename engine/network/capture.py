"""Reading activations out of a network by hooks, where it cannot be traced."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

# What lies behind one of these may be cut off and have no slope, so it is read where it enters.
NONLINEARITIES = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Softplus,
    nn.Hardswish,
    nn.Hardtanh,
    nn.Sigmoid,
    nn.Tanh,
)


class UnknownLayer(KeyError):
    """The network has no layer of this name.

    Parameters
    ----------
    layer : str
        The name asked for.
    valid : list of str
        The names there are.
    """

    def __init__(self, layer: str, valid: list[str]) -> None:
        super().__init__(layer)
        self.layer = layer
        self.valid = valid

    def __str__(self) -> str:
        return f"no layer {self.layer!r}; the layers are {', '.join(self.valid)}"


class _AllReached(BaseException):
    """Every wanted layer has answered: the rest of the network need not run.

    A BaseException, so that no `except Exception` inside a network swallows it.
    """


def activations(
    network: nn.Module, layers: Iterable[str], volume: Tensor, behind_nonlinearities: bool = False
) -> dict[str, Tensor]:
    """Run a network up to the last wanted layer and return what the layers say.

    What lies behind that layer is not computed. A layer that runs more than
    once in a pass answers the first time. A non-linearity such as a ReLU says
    what enters it, for what leaves it may be cut off: a unit that is silent
    there has no slope to climb (Olah et al. 2017).

    Parameters
    ----------
    network : nn.Module
        Any network.
    layers : iterable of str
        Names as `named_modules` writes them.
    volume : Tensor
        Input, `(batch, channel, *spatial)`.
    behind_nonlinearities : bool
        Whether non-linearities say what leaves them instead.

    Returns
    -------
    dict of str to Tensor
        Each layer's answer, `(batch, channels, *spatial)`.

    Raises
    ------
    UnknownLayer
        A name is not a layer of the network.
    """
    wanted = set(layers)
    found: dict[str, Tensor] = {}

    def keep(layer: str, answer: Tensor) -> None:
        if layer not in found:
            last = len(found) == len(wanted) - 1
            # What runs on may overwrite its input, as an in-place ReLU does.
            found[layer] = answer if last else answer.clone()
            if last:
                raise _AllReached

    with heard(network, wanted, keep, behind_nonlinearities), suppress(_AllReached):
        network(volume)
    return found


@contextmanager
def heard(
    network: nn.Module,
    layers: Iterable[str],
    hear: Callable[[str, Tensor], None],
    behind_nonlinearities: bool = False,
) -> Iterator[None]:
    """Hear what layers say whenever the network runs; the hooks are removed at the end.

    Parameters
    ----------
    network : nn.Module
        Any network.
    layers : iterable of str
        Names as `named_modules` writes them.
    hear : callable
        Told a layer's name and its answer, `(batch, channels, *spatial)`, which what runs on may overwrite.
    behind_nonlinearities : bool
        See `activations`.

    Raises
    ------
    UnknownLayer
        A name is not a layer of the network.
    """
    modules = {name: module for name, module in network.named_modules() if name}
    wanted = sorted(set(layers))
    for layer in wanted:
        if layer not in modules:
            raise UnknownLayer(layer, list(modules))
    handles = [_listen(modules[layer], layer, hear, behind_nonlinearities) for layer in wanted]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _listen(
    module: nn.Module, layer: str, keep: Callable[[str, Tensor], None], behind_nonlinearities: bool
) -> RemovableHandle:
    """Let `keep` know what enters a non-linearity or leaves any other layer."""
    if isinstance(module, NONLINEARITIES) and not behind_nonlinearities:
        return module.register_forward_pre_hook(lambda _, inputs: keep(layer, inputs[0]))
    return module.register_forward_hook(lambda _, inputs, output: keep(layer, output))
