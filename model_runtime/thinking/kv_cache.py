"""What one session keeps of its past, keys and values of every layer, and attention to it. Never shared."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

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


class Pasts:
    """The pasts of one step's sessions, ``length`` new rows of each; room for them is reserved already."""

    def __init__(self, caches: Sequence[KVCache], length: int) -> None:
        """For one pass through all layers."""
        self._caches = caches
        self._length = length
        self._mask: Tensor | None = None

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Each session's queries [B, heads, T, head_dim] to its own past and new k, v [B, kv_heads, T,
        head_dim]; returns [B, heads, T, head_dim].

        Each key/value head is read once: the query heads that share it stand as further queries of that head,
        so nothing is repeated in memory. Sessions are attended to one after another, because their pasts
        differ in length and padding them would copy them.
        """
        batch, heads, length, dim = q.shape
        kv_heads = k.shape[1]
        if length > 1 and self._mask is None:
            # [groups * T, past + T]: row i of each query head sees the past and the new rows up to itself.
            past = self._caches[0].length
            seen = torch.ones(length, past + length, dtype=torch.bool, device=q.device).tril(past)
            self._mask = seen.repeat(heads // kv_heads, 1)
        out = []
        for at, cache in enumerate(self._caches):
            keys, values = cache.write(layer, k[at], v[at])
            queries = q[at].reshape(1, kv_heads, -1, dim)
            y = F.scaled_dot_product_attention(queries, keys[None], values[None], attn_mask=self._mask)
            out.append(y.reshape(1, heads, length, dim))
        return out[0] if batch == 1 else torch.cat(out)
