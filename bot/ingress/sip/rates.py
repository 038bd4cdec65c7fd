"""How many calls may be placed in a time: pure, the clock is given.

Every call of the last window is counted, so no more than the limit lie in any window, wherever it begins; a
token bucket would let twice as many through at its edge.
"""

from __future__ import annotations

from collections import deque


class Rate:
    """At most ``limit`` in any ``window_s`` seconds, for each name apart."""

    def __init__(self, limit: int, window_s: float) -> None:
        """Nothing has been counted."""
        self._limit = limit
        self._window_s = window_s
        self._counted: dict[str, deque[float]] = {}

    def wait_s(self, name: str, now: float) -> float:
        """Seconds until one more may be counted for ``name``; 0: now. ``now``: seconds, monotonic."""
        self._forget(now)
        times = self._counted.get(name)
        if times is None or len(times) < self._limit:
            return 0.0
        return times[0] + self._window_s - now

    def count(self, name: str, now: float) -> None:
        """One more, now."""
        self._counted.setdefault(name, deque()).append(now)

    def _forget(self, now: float) -> None:
        for name, times in list(self._counted.items()):
            while times and times[0] + self._window_s <= now:
                times.popleft()
            if not times:
                del self._counted[name]
