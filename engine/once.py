"""What is made once and used at every step."""

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, TypeVar

Made = TypeVar("Made")


class Once:
    """Keeps what is made of an object that does not change, for as long as the object lives."""

    @cached_property
    def _made(self) -> dict[Hashable, Any]:
        return {}

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return what belongs to a key; it is made at the first call.

        Parameters
        ----------
        key : hashable
            What it is.
        make : callable
            Makes it.
        """
        if key not in self._made:
            self._made[key] = make()
        found: Made = self._made[key]
        return found
