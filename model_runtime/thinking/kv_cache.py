"""What one session keeps of its past: keys and values of every layer. Never shared, never in two hands."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCK = (
    512  # tokens; a call of a minute takes two or three, a full context is never paid for before it is used
)


CPU = torch.device("cpu")


class ContextFull(Exception):  # noqa: N818 - a state of the session, not a fault
    """The rows do not fit into the session's context. Nothing was added."""


@dataclass(frozen=True)
class PastShape:
    """Of what a token leaves behind in every layer, and where it lies."""

    layers: int
    kv_heads: int
    head_dim: int
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32

    @property
    def token_bytes(self) -> int:
        """The keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.dtype.itemsize


class KVCache:
    """Keys and values [layers, 2, kv_heads, capacity, head_dim], grown by blocks up to ``max_tokens``.

    ``length`` tokens are valid. Cutting the history is ``truncate``: what lies behind is written over later.
    """

    def __init__(self, shape: PastShape, max_tokens: int, block: int = BLOCK) -> None:
        """Empty: no memory is held before it is needed."""
        self.max_tokens = max_tokens
        self.length = 0
        self._block = block
        empty = (shape.layers, 2, shape.kv_heads, 0, shape.head_dim)
        self._store = torch.empty(empty, device=shape.device, dtype=shape.dtype)

    @property
    def capacity(self) -> int:
        """Tokens for which memory is held now."""
        return self._store.shape[3]

    @property
    def nbytes(self) -> int:
        """Memory held now, in bytes."""
        return self._store.nbytes

    def reserve(self, tokens: int) -> None:
        """Hold memory for that many tokens in all. Raises ContextFull beyond ``max_tokens``."""
        if tokens > self.max_tokens:
            raise ContextFull(f"the context holds {self.max_tokens} tokens, {tokens} are needed")
        if tokens <= self.capacity:
            return
        # By half again, in whole blocks: a long call copies its past seldom.
        wanted = max(tokens, self.capacity * 3 // 2)
        capacity = min(-(-wanted // self._block) * self._block, self.max_tokens)
        layers, two, heads, _, dim = self._store.shape
        grown = self._store.new_empty((layers, two, heads, capacity, dim))
        grown[:, :, :, : self.length] = self._store[:, :, :, : self.length]
        self._store = grown

    def write(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put one layer's new k, v [kv_heads, T, head_dim] behind the past; returns all, the past first.

        ``length`` moves on only when every layer has been written (the backbone does it).
        """
        end = self.length + k.shape[1]
        keys, values = self._store[layer, 0, :, :end], self._store[layer, 1, :, :end]
        keys[:, self.length :] = k
        values[:, self.length :] = v
        return keys, values

    def truncate(self, length: int) -> None:
        """Keep the first ``length`` tokens. Raises ValueError if there are fewer."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot keep {length} of {self.length} tokens")
        self.length = length

    def release(self) -> None:
        """Give the memory back. The cache is empty then, and not to be used any more."""
        self.length = 0
        self._store = self._store[:, :, :, :0].clone()


class Slots:
    """The static KV cache of all sessions: ``store`` [layers, 2, count + 1, kv_heads, max_tokens, head_dim].

    Its memory is held from the beginning to the end, so that no call fails in its midst for want of it, and
    nothing moves: a decode step for many sessions finds each past where it has always been, and so can be
    recorded once and replayed (`decode_step`). The slot behind the last one belongs to nobody: rows that
    only fill a step up are written there.

    It begins as zeros and a slot is zeros again when it is given back. What is masked still takes part in a
    product, with weight 0: that is 0 for any number, but not for what is none. And no caller's past shall lie
    in the memory of another's call.
    """

    def __init__(self, shape: PastShape, count: int, max_tokens: int) -> None:
        """All free."""
        self.count, self.max_tokens = count, max_tokens
        whole = (shape.layers, 2, count + 1, shape.kv_heads, max_tokens, shape.head_dim)
        self.store = _zeros(whole, shape.device, shape.dtype)
        self._free = list(range(count))

    @property
    def free(self) -> int:
        """How many are."""
        return len(self._free)

    def take(self) -> Slot:
        """An empty one, the lowest that is free. Raises RuntimeError if none is.

        That is a fault of whoever admits sessions.
        """
        if not self._free:
            raise RuntimeError(f"all {self.count} slots of the KV cache are taken")
        return Slot(self, heapq.heappop(self._free))

    def give_back(self, index: int) -> None:
        """For ``Slot.release``: that one is free again."""
        heapq.heappush(self._free, index)


class Slot(KVCache):
    """A session's place in ``slots``. ``release`` gives it back, once."""

    def __init__(self, slots: Slots, index: int) -> None:
        """To be had from ``Slots.take``."""
        self.slots, self.index = slots, index
        self.max_tokens = slots.max_tokens
        self.length = 0
        self._store = slots.store[:, :, index]
        self._written = 0  # tokens of it that are not zeros, at most

    def reserve(self, tokens: int) -> None:
        """As any cache, but the memory is there."""
        super().reserve(tokens)
        self._written = max(self._written, tokens)

    def release(self) -> None:
        """Wipe it and give it back."""
        if self.capacity:
            self._store[:, :, :, : self._written] = 0
            super().release()
            self.slots.give_back(self.index)


def _zeros(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Zeros. On a CPU of memory that the system lends only where it is written: ``torch.zeros`` writes it."""
    if device.type != "cpu":
        return torch.zeros(shape, device=device, dtype=dtype)
    raw = np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)
    return torch.from_numpy(raw).view(dtype).view(shape)
