"""How new rows see the pasts they join: two ways to the same numbers.

``Pasts`` goes through the sessions one by one, each past as it lies in memory: nothing is copied, and each
session's numbers are those it would have alone, bit for bit. That is best on a CPU. ``SlotPasts`` attends for
all sessions at once, in shapes that depend on how many they are and how long, in a few large kernels that can
be recorded. That is best on a GPU, where a launch takes as long as the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from model_runtime.thinking.kv_cache import KVCache, Slots


class Attends(Protocol):
    """What a layer needs of its step's pasts."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries [B, heads, T, head_dim] to each one's past and the new k, v [B, kv_heads, T, head_dim],
        which join it; returns [B, heads, T, head_dim].
        """


class Pasts:
    """The pasts of one step's sessions, ``length`` new rows of each; room for them is reserved already."""

    def __init__(self, caches: Sequence[KVCache], length: int) -> None:
        """For one pass through all layers."""
        self._caches = caches
        self._length = length
        self._mask: Tensor | None = None

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Session after session.

        Each key/value head is read once: the query heads that share it stand as further queries of that head,
        so nothing is repeated in memory.
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


class SlotPasts:
    """The pasts of a step that gives one row to each of B slots: int64 [B] ``index`` and ``position``.

    ``span``: so many tokens of each slot are looked at, more than any of the positions.
    """

    def __init__(self, slots: Slots, index: Tensor, position: Tensor, span: int) -> None:
        """For one pass through all layers."""
        self._store = slots.store
        self._index, self._position, self._span = index, position, span
        reach = torch.arange(span, device=index.device)
        self._seen = (reach <= position[:, None])[:, None, None]  # [B, 1, 1, span]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """All at once; the pasts are gathered, so that only those of this step are read."""
        batch, heads, _, dim = q.shape
        keys, values = self._store[layer]  # [slots, kv_heads, max_tokens, head_dim]
        keys[self._index, :, self._position] = k[:, :, 0]
        values[self._index, :, self._position] = v[:, :, 0]
        y = F.scaled_dot_product_attention(
            q.reshape(batch, k.shape[1], -1, dim),  # query heads of one key head are further queries of it
            keys[:, :, : self._span].index_select(0, self._index),
            values[:, :, : self._span].index_select(0, self._index),
            attn_mask=self._seen,
        )
        return y.reshape(batch, heads, 1, dim)
