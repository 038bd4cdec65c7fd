"""A session's exact history:

the ids the model read and wrote, turn by turn, and the audio rows that stand in them.

Ids are never rendered again from text, so the KV cache of old turns stays valid for the whole call. Only when
the context is nearly full does the oldest part change: its sound goes, its text stays; then, if that is not
enough, the oldest turns go altogether.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor


class ContextFull(Exception):  # noqa: N818 - a state of the session, not a fault
    """The history cannot be brought under the limit. The message is a sentence for the media process."""


@dataclass(slots=True)
class Tokens:
    """Ids with audio rows laid over some of them:

    ``rows`` holds (offset, [n, hidden]), ordered, not overlapping.
    """

    ids: list[int] = field(default_factory=list)
    rows: list[tuple[int, Tensor]] = field(default_factory=list)

    def __len__(self) -> int:
        """Positions in the KV cache."""
        return len(self.ids)

    def extend(self, other: Tokens) -> None:
        """Append ``other``."""
        self.rows.extend((len(self.ids) + at, rows) for at, rows in other.rows)
        self.ids.extend(other.ids)

    def piece(self, start: int, stop: int) -> Tokens:
        """Positions [start, stop), rows cut to fit."""
        rows = []
        for at, block in self.rows:
            first, last = max(start, at), min(stop, at + len(block))
            if first < last:
                rows.append((first - start, block[first - at : last - at]))
        return Tokens(self.ids[start:stop], rows)


@dataclass(slots=True)
class Entry:
    """One turn of the template as it stands in the history.

    ``short`` is the same turn without its sound, used when the context runs full; ``None`` if it has none to
    lose. ``kept`` entries (the system turn, the tools) are never shortened or removed. ``turn`` is the
    response it belongs to; ``heard`` marks the caller's side of it; ``result`` names what a tool returned.
    """

    tokens: Tokens
    short: Tokens | None = None
    kept: bool = False
    turn: int = -1
    heard: bool = False
    result: str = ""


class History:
    """What is settled, in order."""

    def __init__(self) -> None:
        """Nothing settled."""
        self.entries: list[Entry] = []

    def __len__(self) -> int:
        """Tokens in all."""
        return sum(len(entry.tokens) for entry in self.entries)

    def append(self, entries: Iterable[Entry]) -> None:
        """Enter settled turns."""
        self.entries.extend(entries)

    def tokens(self) -> Tokens:
        """The whole history as one prompt."""
        whole = Tokens()
        for entry in self.entries:
            whole.extend(entry.tokens)
        return whole

    def in_words(self, turn: int, short: Tokens) -> None:
        """What the caller said in ``turn`` is now known in words: kept when the sound goes."""
        for entry in self.entries:
            if entry.turn == turn and entry.heard and entry.short is not None:
                entry.short = short

    def shorten(self, limit: int, goal: int) -> int | None:
        """Bring a history longer than ``limit`` down to ``goal`` tokens, oldest turns first.

        Going further than the limit means that it has to be done seldom: all that follows the first change
        must be prefilled again. What has not been answered yet goes only if it is too long for the limit:
        a tool's result would be gone before the model has read it. Returns the position of the first change,
        ``None`` if nothing had to change.
        Raises ``ContextFull`` when what can never go is longer than ``limit`` by itself; the history is then
        as it was.
        """
        if len(self) <= limit:
            return None
        if sum(len(entry.tokens) for entry in self.entries if entry.kept) > limit:
            raise ContextFull("The instructions and this turn do not fit into the model's context together.")
        changed = len(self)
        position = 0
        for entry in self.entries:
            if len(self) <= goal:
                break
            if not entry.kept and entry.short is not None and len(entry.short) < len(entry.tokens):
                changed = min(changed, position)
                entry.tokens, entry.short = entry.short, None
            position += len(entry.tokens)
        position = 0
        answered = max(
            (at for at, entry in enumerate(self.entries) if entry.kept or entry.turn >= 0), default=-1
        )
        for at, entry in enumerate(list(self.entries)):
            if len(self) <= (goal if at <= answered else limit):
                break
            if entry.kept:
                position += len(entry.tokens)
            else:
                changed = min(changed, position)
                self.entries.remove(entry)
        return changed
