"""A way out for units that get no gradient because every ReLU on the way is shut.

Lucid (Olah et al. 2017) sends a gradient through a shut ReLU where it would
open it. Here that is done only for volumes whose gradient is exactly zero,
and only until they have one of their own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_KINDS = (nn.ReLU, nn.ReLU6)


class _Redirected(torch.autograd.Function):
    """A ReLU whose gradient, where all of it would be lost, passes where it opens the ReLU."""

    @staticmethod
    def forward(context: Any, inputs: Tensor, ceiling: float) -> Tensor:
        context.save_for_backward(inputs)
        context.ceiling = ceiling
        return inputs.clamp(0, ceiling)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (inputs,) = context.saved_tensors
        (gradient,) = gradients
        plain = gradient * ((inputs > 0) & (inputs < context.ceiling))
        # Gradients here are those of what is maximized: a positive one wants a larger output.
        opening = gradient * (((inputs <= 0) & (gradient > 0)) | ((inputs > 0) & (gradient < 0)))
        lost = (plain == 0).flatten(1).all(1).reshape(-1, *[1] * (inputs.ndim - 1))
        return torch.where(lost, opening, plain), None


@contextmanager
def redirected(network: nn.Module) -> Iterator[None]:
    """Let gradients through shut ReLUs while in the context.

    Values stay what they are; only ReLU and ReLU6 modules are redirected, and
    only for volumes that lose their whole gradient there. The gradient must be
    taken inside the context, of something that is maximized.

    Parameters
    ----------
    network : nn.Module
        Any network; on leaving it is as it was.
    """
    modules = [module for module in network.modules() if isinstance(module, _KINDS)]
    own = [module.__dict__.get("forward") for module in modules]
    try:
        for module in modules:
            ceiling = 6.0 if isinstance(module, nn.ReLU6) else float("inf")
            # An attribute of the instance hides the class's method until it is deleted.
            module.forward = lambda inputs, ceiling=ceiling: _Redirected.apply(inputs, ceiling)  # type: ignore[method-assign, misc]
        yield
    finally:
        for module, forward in zip(modules, own, strict=True):
            if forward is None:
                del module.__dict__["forward"]
            else:
                module.forward = forward  # type: ignore[method-assign]
