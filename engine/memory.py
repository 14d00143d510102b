"""How many bytes the tensors of a computation take at their most."""

from typing import Any, Self

import torch
from torch.autograd.profiler import profile


class PeakMemory:
    """Follows the bytes of the tensors that are made within a `with` statement.

    On a CPU torch's profiler tells every allocation of the thread, also what
    routines need for themselves; what another thread makes does not count. On a
    GPU the allocator is asked, and what else runs there counts as well.

    Parameters
    ----------
    device : torch.device
        Where the tensors lie.

    Attributes
    ----------
    peak : int
        On leaving: the most bytes that there were at once, beyond those at entering.
    left : int
        On leaving: the bytes that are still held, beyond those at entering.
    """

    def __init__(self, device: torch.device) -> None:
        self.peak = self.left = 0
        self._device = device
        self._profile = None if device.type == "cuda" else profile(use_cpu=True, profile_memory=True)
        self._before = 0

    def __enter__(self) -> Self:
        if self._profile is not None:
            self._profile.__enter__()
        else:
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        return self

    def __exit__(self, *failure: Any) -> None:
        if self._profile is None:
            self.peak = torch.cuda.max_memory_allocated(self._device) - self._before
            self.left = torch.cuda.memory_allocated(self._device) - self._before
            return
        self._profile.__exit__(*failure)
        results = self._profile.kineto_results
        changes: list[Any] = (
            [event for event in results.events() if event.name() == "[memory]"] if results else []
        )
        for change in sorted(changes, key=lambda event: event.start_ns()):
            self.left += change.nbytes()
            self.peak = max(self.peak, self.left)
