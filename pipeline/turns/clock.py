"""The call's one clock: the caller's samples at 16 kHz."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.segmenter import RATE

Span = tuple[int, int]
"""[from, to) in 16 kHz samples of the call's clock."""


def length(spans: Iterable[Span]) -> int:
    """Samples in all of them."""
    return sum(end - start for start, end in spans)


def samples(ms: int) -> int:
    """How many there are in ``ms``."""
    return RATE * ms // 1000
