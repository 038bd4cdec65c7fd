"""What an engine tells of itself: on what work its time went, and what fills its memory.

Counts only ever grow, so whoever asks twice knows what lay between, and any number may ask.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import msgspec

Kind = Literal["hear", "prefill", "decode", "vocode", "other"]
"""Of work: the four operations, and ``other``: beginning a job, or handing one to the other thread."""
KINDS: tuple[Kind, ...] = get_args(Kind)

STEP = math.log(1.02)  # a bin of times is 2 % wide: good enough for a percentile, and few enough to keep
SHORTEST_S = 1e-6  # what is shorter counts as this long


class Work(msgspec.Struct):
    """Work of one kind. ``units`` were done, each for one call or for several at once: ``items`` in all.

    ``read`` bytes at least had to come from memory (0 where nobody counts them). ``times``: how many units
    took so long, by bin; see ``percentile``.
    """

    units: int = 0
    items: int = 0
    seconds: float = 0.0
    read: int = 0
    times: dict[int, int] = {}

    def add(self, seconds: float, items: int, read: int = 0) -> None:
        """One unit more."""
        self.units += 1
        self.items += items
        self.seconds += seconds
        self.read += read
        place = math.ceil(math.log(max(seconds, SHORTEST_S) / SHORTEST_S) / STEP)
        self.times[place] = self.times.get(place, 0) + 1

    def percentile(self, percent: float) -> float:
        """So many of the units took at most so many seconds, up to 2 %; nan without units."""
        left = math.ceil(self.units * percent / 100)
        for place, count in sorted(self.times.items()):
            left -= count
            if left <= 0:
                return SHORTEST_S * math.exp(place * STEP)
        return math.nan

    def since(self, before: Work) -> Work:
        """What has been added to ``before``."""
        times = {place: count - before.times.get(place, 0) for place, count in self.times.items()}
        return Work(
            self.units - before.units,
            self.items - before.items,
            self.seconds - before.seconds,
            self.read - before.read,
            {place: count for place, count in times.items() if count},
        )


class MemoryUse(msgspec.Struct, frozen=True):
    """Bytes of the device's memory by what they hold; on a CPU, of the process's own.

    ``kv_cache``: the pasts of all sessions (on a GPU all that is set aside for them). ``flow``: what
    token2wav remembers of voices' prompts and of the replies being spoken. ``rest`` is everything else that
    is in use: what is being computed, what the allocator and the libraries keep, and on a GPU other
    processes.
    """

    weights: int = 0
    kv_cache: int = 0
    flow: int = 0
    rest: int = 0

    @property
    def used(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.flow + self.rest


class Figures(msgspec.Struct):
    """All that is told. ``waited`` are seconds in which the thread of the sessions had nothing to do."""

    device: str
    dtype: str
    waited: float = 0.0
    work: dict[Kind, Work] = {}
    memory: MemoryUse = MemoryUse()

    def since(self, before: Figures) -> Figures:
        """What has been added to the counts of ``before``; memory as it is now."""
        return Figures(
            self.device,
            self.dtype,
            self.waited - before.waited,
            {kind: work.since(before.work[kind]) for kind, work in self.work.items()},
            self.memory,
        )
