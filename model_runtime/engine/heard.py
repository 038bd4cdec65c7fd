"""What a session has heard lately, piece by piece, so that no piece is encoded twice.

A turn is asked for again whenever the caller pauses in it. The encoder looks both ways over a whole piece,
and the loudest moment of it sets the floor of every frame, so a piece that has grown has other rows from its
first to its last: only a whole piece, of the very same samples, can be kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from torch import Tensor

Spans: TypeAlias = tuple[tuple[int, int], ...]
"""[from, to) in samples of the session's clock, in order, not touching: which samples a piece consists of."""


def covered(spans: Sequence[tuple[int, int]], start: int, stop: int) -> Spans:
    """The samples [start, stop) of what ``spans`` are when they are put together."""
    found: list[tuple[int, int]] = []
    behind = 0  # samples of the spans before this one
    for begin, end in spans:
        first = begin + max(0, start - behind)
        last = min(end, begin + stop - behind)
        behind += end - begin
        if first >= last:
            continue
        if found and found[-1][1] == first:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return tuple(found)


class Heard:
    """The rows [N, hidden] of the pieces of one turn; the next turn to be heard takes their place."""

    def __init__(self) -> None:
        """Nothing heard."""
        self._rows: dict[Spans, Tensor] = {}

    def keep(self, pieces: Iterable[Spans]) -> None:
        """Forget all other pieces: a session holds no more than one turn beside its history."""
        self._rows = {piece: self._rows[piece] for piece in pieces if piece in self._rows}

    def get(self, piece: Spans) -> Tensor | None:
        """The rows of ``piece`` if it has been heard."""
        return self._rows.get(piece)

    def put(self, piece: Spans, rows: Tensor) -> None:
        """``piece`` has been heard."""
        self._rows[piece] = rows
