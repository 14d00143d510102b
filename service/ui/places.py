"""How many of the page's requests are answered at once, of everybody and of one caller."""

import threading
from collections import Counter

# Half of the port's places: probes and metrics always find one.
MOST_AT_ONCE = 32
# One person's pages leave room for everybody else's.
MOST_EACH = 16


class Places:
    """What requests take before they are answered, and give back.

    Parameters
    ----------
    most_each : int
        Places of one caller.
    """

    def __init__(self, most_each: int) -> None:
        self._most_each = most_each
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    def take(self, name: str) -> str:
        """Take a place for a caller; return why there is none, or an empty string."""
        with self._lock:
            if self._taken.total() >= MOST_AT_ONCE:
                return "503 Service Unavailable"
            if self._taken[name] >= self._most_each:
                return "429 Too Many Requests"
            self._taken[name] += 1
            return ""

    def give_back(self, name: str) -> None:
        """Give a caller's place back."""
        with self._lock:
            self._taken[name] -= 1
            # Names of who came once do not pile up.
            self._taken += Counter()
