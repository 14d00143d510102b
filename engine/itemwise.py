"""Work on a batch of volumes that gives each the bits it has alone.

What IEEE 754 rounds once (sums and products of two numbers, roots, comparisons)
comes out the same wherever a number lies, and is done for all volumes at once.
What adds many numbers up, transforms or convolves them may do so in another order
where there are more of them, and a sigmoid, a power or a fused Adam differs
between a processor's vectors and the few numbers left over behind the last one.
On a CPU those are done volume by volume. A GPU is asked for rounding only and
does all at once.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def separate(device: torch.device) -> bool:
    """Tell whether volumes on a device are to have the very bits they have alone."""
    return device.type == "cpu"


def rows(values: Tensor) -> Sequence[Tensor]:
    """Return views, `(1, ...)`, of the items of `(n, ...)`, or on a GPU one of all."""
    return values.split(1) if separate(values.device) else [values]


def parts(values: Tensor, count: int) -> Sequence[Tensor]:
    """Cut `(n, ...)` into so many equal parts where volumes are separate; on a GPU return all as one.

    The parts are copies: a routine may go by where in memory its numbers begin, and how they lie there.
    """
    if count == 1 or not separate(values.device):
        return [values]
    return [part.clone(memory_format=torch.contiguous_format) for part in values.chunk(count)]


def each(function: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """Apply a function to the items of a batch by themselves.

    Parameters
    ----------
    function : callable
        From tensors `(n, ...)` to one `(n, ...)`; differentiable if need be.
    values : Tensor, (n, ...)
        Its arguments.
    """
    found = [function(*row) for row in zip(*(parts(value, len(value)) for value in values), strict=True)]
    return torch.cat(found) if len(found) > 1 else found[0]


def means(values: Tensor) -> Tensor:
    """Return the mean of each item, `(n,)`, of `(n, ...)`."""
    return each(lambda part: part.flatten(1).mean(1), values)
