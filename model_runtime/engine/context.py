"""A KV cache, and exactly which ids are in it."""

from __future__ import annotations

from collections.abc import Callable

from model_runtime.engine.draws import Draw
from model_runtime.engine.history import Tokens
from model_runtime.engine.ops import Decode, Prefill, Work
from model_runtime.thinking.kv_cache import KVCache


class Context:
    """``ids`` are the positions the cache holds, ``size`` the most it can.

    The cache is made, or its slot taken, when first needed, and given back by ``forget``.

    ``chunk`` is the most tokens that one unit of work reads.
    """

    def __init__(self, new_cache: Callable[[], KVCache], size: int, chunk: int) -> None:
        """Empty."""
        self.size = size
        self.ids: list[int] = []
        self._new_cache = new_cache
        self._chunk = chunk
        self._cache: KVCache | None = None

    @property
    def room(self) -> int:
        """Positions left."""
        return self.size - len(self.ids)

    def keep(self, count: int) -> None:
        """Forget all but the first ``count`` positions."""
        if count < len(self.ids):
            del self.ids[count:]
            if self._cache is not None:
                self._cache.truncate(count)

    def align(self, ids: list[int]) -> None:
        """Forget whatever is not a beginning of ``ids``."""
        same = 0
        for mine, wanted in zip(self.ids, ids, strict=False):
            if mine != wanted:
                break
            same += 1
        self.keep(same)

    def forget(self) -> None:
        """Give the cache back: at the end, or after a fault in the midst of an operation, when nobody knows
        what is in it.
        """
        self.ids = []
        if self._cache is not None:
            self._cache.release()
            self._cache = None

    def read(self, tokens: Tokens, draw: Draw | None = None) -> Work[int]:
        """Read what is missing of ``tokens``, which begin with what the cache holds; returns the id drawn
        next (-1: none).

        Where the pieces begin depends on the session's own past alone, so the arithmetic does too.
        """
        if draw is not None:
            self.keep(len(tokens) - 1)  # the last position has to be read to be followed
        drawn = -1
        while (at := len(self.ids)) < len(tokens):
            stop = min(at + self._chunk, len(tokens))
            piece = tokens.piece(at, stop)
            result = yield Prefill(self._held(), piece, draw if stop == len(tokens) else None)
            self.ids.extend(piece.ids)
            drawn = -1 if result is None else result
        return drawn

    def decode(self, id: int, draw: Draw) -> Work[int]:
        """Read one id; returns the next."""
        drawn: int = yield Decode(self._held(), id, draw)
        self.ids.append(id)
        return drawn

    def _held(self) -> KVCache:
        if self._cache is None:
            self._cache = self._new_cache()
        return self._cache
