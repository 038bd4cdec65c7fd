"""What one session keeps of its past: keys and values of every layer. Never shared."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = (
    512  # tokens; a call of a minute takes two or three, a full context is never paid for before it is used
)


class ContextFull(Exception):  # noqa: N818 - a state of the session, not a fault
    """The rows do not fit into the session's context. Nothing was added."""


class KVCache:
    """Keys and values [layers, 2, kv_heads, capacity, head_dim], grown by blocks up to ``max_tokens``.

    ``length`` tokens are valid. Cutting the history is ``truncate``: what lies behind is written over later.
    """

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        max_tokens: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        block: int = BLOCK,
    ) -> None:
        """Empty: no memory is held before it is needed."""
        self.max_tokens = max_tokens
        self.length = 0
        self._block = block
        self._store = torch.empty((layers, 2, kv_heads, 0, head_dim), device=device, dtype=dtype)

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
        """Put one layer's new k, v [1, kv_heads, T, head_dim] behind the past; returns all, the past first.

        ``length`` moves on only when every layer has been written (the backbone does it).
        """
        end = self.length + k.shape[2]
        keys, values = self._store[layer, 0, :, :end], self._store[layer, 1, :, :end]
        keys[:, self.length :] = k[0]
        values[:, self.length :] = v[0]
        return keys[None], values[None]

    def truncate(self, length: int) -> None:
        """Keep the first ``length`` tokens. Raises ValueError if there are fewer."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot keep {length} of {self.length} tokens")
        self.length = length
