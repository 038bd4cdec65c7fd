"""A session's history as messages, so that another engine can go on with it, and back."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from model_runtime.engine.history import Entry, History, Tokens
from model_runtime.engine.refusal import Refusal
from model_runtime.protocol import HistoryEntry

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def written(place: int, entry: Entry) -> HistoryEntry:
    """An entry of the history as a message."""
    rows = entry.tokens.rows
    return HistoryEntry(
        place,
        entry.tokens.ids,
        [(at, block.cpu().contiguous().view(torch.uint8).numpy().tobytes()) for at, block in rows],
        NAMES[rows[0][1].dtype] if rows else "float32",  # type: ignore[arg-type]  # a key of DTYPES
        None if entry.short is None else entry.short.ids,
        entry.kept,
        entry.turn,
        entry.heard,
        entry.result,
    )


def read(message: HistoryEntry, vocabulary: int, hidden: int, like: Tensor) -> Entry:
    """A message as an entry, its rows [n, hidden] with ``like``'s dtype and device.

    Raises ``Refusal`` for what no session with this model can have had.
    """
    dtype = DTYPES[message.dtype]
    rows: list[tuple[int, Tensor]] = []
    for at, block in message.rows:
        if len(block) % (hidden * dtype.itemsize):
            raise _refused(message, "its audio rows are of another model")
        values = torch.from_numpy(np.frombuffer(block, np.uint8).copy()).view(dtype).view(-1, hidden)
        rows.append((at, values.to(like.device, like.dtype)))
    ids, short = message.ids, message.short
    if any(not 0 <= id < vocabulary for id in (*ids, *(short or ()))):
        raise _refused(message, "it has ids that this model has not")
    spans = [(at, at + len(block)) for at, block in rows]
    inside = all(0 <= start <= stop <= len(ids) for start, stop in spans)
    if not inside or any(stop > start for (_, stop), (start, _) in pairwise(spans)):
        raise _refused(message, "its audio rows do not lie within its ids")
    words = None if short is None else Tokens(list(short))
    return Entry(Tokens(list(ids), rows), words, message.kept, message.turn, message.heard, message.result)


def _refused(message: HistoryEntry, why: str) -> Refusal:
    return Refusal("bad_request", f"Entry {message.place} of the history is refused: {why}.", fatal=True)


class Record:
    """What has been told of a history, and so what still has to be."""

    def __init__(self) -> None:
        """Nothing has."""
        self._told: list[tuple[Tokens, Tokens | None]] = []

    def changes(self, history: History) -> list[HistoryEntry]:
        """Everything from the first entry on that is not as it was told."""
        now = [(entry.tokens, entry.short) for entry in history.entries]
        same = 0
        for old, new in zip(self._told, now, strict=False):
            if old[0] is not new[0] or old[1] is not new[1]:
                break
            same += 1
        shorter, self._told = same == len(now) < len(self._told), now
        if shorter and not now:
            return [HistoryEntry(0, [])]  # nothing is left: so says an entry of nothing
        if shorter:
            same -= 1  # told once more, which voids what stood behind it
        return [written(place, entry) for place, entry in enumerate(history.entries) if place >= same]

    def known(self, history: History) -> None:
        """The other end has this history from elsewhere."""
        self._told = [(entry.tokens, entry.short) for entry in history.entries]
