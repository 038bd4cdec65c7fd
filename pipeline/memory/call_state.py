"""What one call has told, and how much of that Redis has: pure, so the writing can be thought through apart.

Redis is brought up to date in steps. Each is one transaction that leaves a state which was once true, or the
beginning of a history that is: a reader never finds an entry missing from the middle.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from dataclasses import dataclass

from model_runtime.protocol import HistoryEntry, encode
from pipeline.conversation import Conversation
from pipeline.memory.keys import (
    F_CONVERSATION,
    F_COUNT,
    F_FACTS,
    F_REVISION,
    F_SCHEMA,
    SCHEMA,
    f_place,
)
from pipeline.memory.stored import Remembered, pack_conversation, pack_facts, unpack_conversation

# A step's entries are packed and handed to the socket in one go, during which no audio moves: up to 6 ms on
# two busy cores. A minute of a caller's speech is 5 MB in Step-Audio 2 (7 kB a row, 12.5 rows a second).
STEP_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Step:
    """One transaction: what it makes of the call's hash."""

    revision: bytes
    anew: bool  # whatever Redis has of the call is deleted first
    small: dict[bytes, bytes]  # facts, conversation
    start: int  # the place of the first of ``entries``
    entries: list[HistoryEntry]
    stale: range  # places that hold what is void now
    last: bool  # afterwards Redis has everything

    @property
    def count(self) -> int:
        """Entries in the history afterwards."""
        return self.start + len(self.entries)

    @property
    def empty(self) -> bool:
        """Whether Redis has everything already: then the step changes nothing."""
        return not (self.anew or self.small or self.entries or self.stale)

    def fields(self) -> dict[bytes, bytes]:
        """What is to be set, packed."""
        if self.empty:
            return {}
        entries = {f_place(self.start + n): encode(entry) for n, entry in enumerate(self.entries)}
        head = {F_SCHEMA: b"%d" % SCHEMA, F_REVISION: self.revision, F_COUNT: b"%d" % self.count}
        return head | self.small | entries

    def deleted(self) -> list[bytes]:
        """Fields to be deleted."""
        return [f_place(place) for place in self.stale]


class CallState:
    """One call's.

    Args:
        call_id: the call.
        writer: this process; begins every revision written by it.
    """

    def __init__(self, call_id: str, writer: str) -> None:
        """Nothing told, nothing written."""
        self.call_id = call_id
        self.closed_at: float | None = None  # seconds, monotonic; None: the call goes on
        self.ever_written = False
        self._writer = writer
        self._steps = itertools.count(1)
        self._history: list[HistoryEntry] = []
        self._ends = [0]  # bytes up to each place, and up to the end
        self._facts: dict[str, str] = {}
        self._small: dict[bytes, bytes] = {}  # facts and conversation by field, packed
        # Redis's side of it:
        self._revision: bytes | None = None  # None: nothing is sure, so all is written anew
        self._written = 0  # places from the first on that hold what they should
        self._stored = 0  # places that hold anything
        self._unwritten: set[bytes] = set()  # of the small ones

    # --- told by the call ----------------------------------------------------------------------------------

    def entry(self, entry: HistoryEntry) -> None:
        """The history up to its place, and then ``entry``. Raises ``ValueError`` if that leaves a gap."""
        if not 0 <= entry.place <= len(self._history):
            raise ValueError(f"nothing stands before place {entry.place}")
        end = self._ends[entry.place] + size(entry)
        del self._history[entry.place :], self._ends[entry.place + 1 :]
        self._history.append(entry)
        self._ends.append(end)
        self._written = min(self._written, entry.place)

    def converse(self, conversation: Conversation) -> None:
        """What was said, as it stands now. Raises as ``pack_conversation`` does."""
        self._set(F_CONVERSATION, pack_conversation(conversation))

    def note(self, facts: dict[str, str]) -> None:
        """Facts to add or to change. Raises as ``pack_facts`` does."""
        together = self._facts | facts
        self._set(F_FACTS, pack_facts(together))
        self._facts = together

    def _set(self, field: bytes, packed: bytes) -> None:
        if self._small.get(field) != packed:
            self._small[field] = packed
            self._unwritten.add(field)

    def remembered(self) -> Remembered:
        """All of it, as Redis will have it."""
        packed = self._small.get(F_CONVERSATION)
        said = Conversation() if packed is None else unpack_conversation(packed)
        return Remembered(self.call_id, dict(self._facts), list(self._history), said)

    # --- asked and told by who writes ----------------------------------------------------------------------

    @property
    def behind(self) -> int:
        """Changes that Redis does not have: entries, the facts, the conversation."""
        return len(self._history) - self._written + len(self._unwritten)

    @property
    def waiting_bytes(self) -> int:
        """About how large those are."""
        small = sum(len(self._small[field]) for field in self._unwritten)
        return self._ends[-1] - self._ends[self._written] + small

    def lose_track(self) -> None:
        """It is not known any more what Redis has."""
        self._revision = None
        self._written = self._stored = 0
        self._unwritten = set(self._small)

    def next_step(self, found: bytes | None) -> Step:
        """The next transaction, given the revision that Redis has now (``None``: nothing of the call)."""
        if found != self._revision:
            self.lose_track()
        room = self._ends[self._written] + STEP_BYTES
        count = max(self._written + 1, bisect_right(self._ends, room) - 1)
        entries = self._history[self._written : count]
        count = self._written + len(entries)
        return Step(
            revision=f"{self._writer}:{next(self._steps)}".encode(),
            anew=self._revision is None and self.behind > 0,
            small={field: self._small[field] for field in self._unwritten},
            start=self._written,
            entries=entries,
            stale=range(count, self._stored),
            last=count == len(self._history),
        )

    def done(self, step: Step) -> None:
        """Redis has taken ``step``; the call may have told more while it did."""
        if step.empty:
            return
        self.ever_written = True
        self._revision, self._stored = step.revision, step.count
        self._unwritten -= {field for field, packed in step.small.items() if self._small[field] is packed}
        if self._written == step.start:  # else the history was cut before the step's first entry
            for entry, now in zip(step.entries, self._history[step.start :], strict=False):
                if entry is not now:
                    break
                self._written += 1


def size(entry: HistoryEntry) -> int:
    """About the bytes of an entry packed: ids below 2**32 take at most five."""
    return sum(len(block) for _, block in entry.rows) + 5 * (len(entry.ids) + len(entry.short or ())) + 64
