"""The language model: a Qwen2 transformer over text, audio codes and the rows made of what is heard.

Two ways through one set of weights. ``forward`` is the plain batched pass, differentiable and without a
cache, for training. ``extend`` and ``extend_each`` are the serving passes: new rows join one session's
``KVCache``, in pieces of any length, or one row joins each of several sessions' at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_runtime.thinking.kv_cache import KVCache, PastShape, Slots
from model_runtime.thinking.pasts import Attends, Pasts

__all__ = ["Backbone", "BackboneConfig", "KVCache"]


@dataclass(frozen=True)
class BackboneConfig:
    """The dimensions of ``text_config``; the defaults are Step-Audio-2-mini's."""

    vocab_size: int = 158_720
    hidden_size: int = 3584
    intermediate_size: int = 18_944
    num_hidden_layers: int = 28
    num_attention_heads: int = 28
    num_key_value_heads: int = 4
    head_dim: int = 128
    max_position_embeddings: int = 16_384
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6


class _RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)
        # The mean of squares is taken in float32 and the product rounded before the weight, as Qwen2 does.
        return self.weight * F.rms_norm(x.float(), (x.shape[-1],), None, self.eps).to(x.dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, half-split ("neox") layout. x [..., T, head_dim]; cos, sin broadcast to it."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin


class _Attention(nn.Module):
    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        width, kv_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, width)
        self.k_proj = nn.Linear(config.hidden_size, kv_width)
        self.v_proj = nn.Linear(config.hidden_size, kv_width)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=False)
        # q, k and v as one matrix and bias; see Backbone.fuse
        self.fused: tuple[Tensor, Tensor] | None = None

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, hidden] to q [B, heads, T, head_dim] and k, v [B, kv_heads, T, head_dim]."""
        if self.fused is not None:
            width, kv_width = self.q_proj.out_features, self.k_proj.out_features
            q, k, v = torch.split(F.linear(x, *self.fused), [width, kv_width, kv_width], dim=-1)
        else:
            q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        batch, length = x.shape[:2]
        return (
            q.view(batch, length, self.heads, self.head_dim).transpose(1, 2),
            k.view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2),
            v.view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2),
        )

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self.qkv(x)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        groups = self.heads // self.kv_heads
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        out: Tensor = self.o_proj(y.transpose(1, 2).flatten(2))
        return out

    def extend(self, x: Tensor, cos: Tensor, sin: Tensor, pasts: Attends, layer: int) -> Tensor:
        # x [B, T, hidden], cos and sin [T, head_dim] or [B, 1, T, head_dim]
        q, k, v = self.qkv(x)
        y = pasts.attend(layer, _rotate(q, cos, sin), _rotate(k, cos, sin), v)
        out: Tensor = self.o_proj(y.transpose(1, 2).flatten(2))
        return out


class _MLP(nn.Module):
    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.fused: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.fused is not None:
            gate, up = F.linear(x, self.fused).chunk(2, dim=-1)
        else:
            gate, up = self.gate_proj(x), self.up_proj(x)
        out: Tensor = self.down_proj(F.silu(gate) * up)
        return out


class _Layer(nn.Module):
    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.input_layernorm = _RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = _Attention(config)
        self.post_attention_layernorm = _RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = _MLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        y: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return y

    def extend(self, x: Tensor, cos: Tensor, sin: Tensor, pasts: Attends, layer: int) -> Tensor:
        x = x + self.self_attn.extend(self.input_layernorm(x), cos, sin, pasts, layer)
        y: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return y


class _Body(nn.Module):
    """What the checkpoint calls ``model.*``."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = _RMSNorm(config.hidden_size, config.rms_norm_eps)


class Backbone(nn.Module):
    """Parameter names are the checkpoint's (``model.*``, ``lm_head.weight``), the two never tied."""

    def __init__(self, config: BackboneConfig) -> None:
        """Random weights of ``config``'s shapes."""
        super().__init__()
        self.config = config
        self.model = _Body(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._rope: tuple[Tensor, Tensor] | None = None
        self._fused = False

    # --- both ways ---

    def embed(self, ids: Tensor) -> Tensor:
        """ids int64 [...] to rows [..., hidden]."""
        rows: Tensor = self.model.embed_tokens(ids)
        return rows

    def logits(self, hidden: Tensor, rows: tuple[int, int] | None = None) -> Tensor:
        """Scores of all ids, or only of ids [from, to): [..., hidden] to [..., to - from]."""
        weight = self.lm_head.weight
        return F.linear(hidden, weight if rows is None else weight[rows[0] : rows[1]])

    def positions(self, start: int, end: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [end - start, head_dim] in ``like``'s dtype, from a table that grows by doubling."""
        table = self._rope
        known = 0 if table is None else table[0].shape[0]
        if table is None or known < end or table[0].device != like.device or table[0].dtype != like.dtype:
            size = max(end, min(2 * known, self.config.max_position_embeddings), 1024)
            steps = torch.arange(0, self.config.head_dim, 2, dtype=torch.float32, device=like.device)
            frequency = 1.0 / self.config.rope_theta ** (steps / self.config.head_dim)
            angle = torch.arange(size, dtype=torch.float32, device=like.device)[:, None] * frequency
            angle = torch.cat((angle, angle), dim=-1)
            table = self._rope = (angle.cos().to(like.dtype), angle.sin().to(like.dtype))
        return table[0][start:end], table[1][start:end]

    # --- training ---

    def hidden(self, embeddings: Tensor, mask: Tensor | None = None) -> Tensor:
        """Last hidden states, normalised: [B, T, hidden] to [B, T, hidden].

        ``mask`` is bool [B, T], True on real rows. Rows are positioned 0.. from the left; with padding only
        on the right, real rows do not need it (attention is causal).
        """
        length = embeddings.shape[1]
        cos, sin = self.positions(0, length, embeddings)
        allowed = None
        if mask is not None:
            causal = torch.ones(length, length, dtype=torch.bool, device=embeddings.device).tril()
            itself = torch.eye(length, dtype=torch.bool, device=embeddings.device)
            # A row always sees itself, so that one in the padding stays a number.
            allowed = ((causal & mask[:, None, :]) | itself)[:, None]
        x = embeddings
        for layer in self.model.layers:
            x = layer(x, cos, sin, allowed)
        normed: Tensor = self.model.norm(x)
        return normed

    def forward(self, embeddings: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits [B, T, vocab] of a batch without a cache; ``mask`` as for ``hidden``."""
        return self.logits(self.hidden(embeddings, mask))

    # --- serving ---

    @property
    def past_shape(self) -> PastShape:
        """Of the pasts that this model reads."""
        config, weight = self.config, self.lm_head.weight
        return PastShape(
            config.num_hidden_layers, config.num_key_value_heads, config.head_dim, weight.device, weight.dtype
        )

    def new_cache(self, max_tokens: int | None = None) -> KVCache:
        """An empty cache for one session, of at most ``max_tokens`` (default: all positions)."""
        most = self.config.max_position_embeddings
        return KVCache(self.past_shape, min(max_tokens or most, most))

    def new_slots(self, count: int, max_tokens: int) -> Slots:
        """A static cache for ``count`` sessions of at most ``max_tokens`` each."""
        return Slots(self.past_shape, count, max_tokens)

    @torch.inference_mode()
    def extend(self, cache: KVCache, embeddings: Tensor) -> Tensor:
        """Add rows [T, hidden] to one session. Returns their last hidden states [T, hidden], for ``logits``.

        Raises ``ContextFull`` (and leaves the cache as it was) when they do not fit.
        """
        length, past = embeddings.shape[0], cache.length
        cache.reserve(past + length)
        cos, sin = self.positions(past, past + length, embeddings)
        hidden = self.through(embeddings[None], cos, sin, Pasts([cache], length))
        cache.length = past + length
        return hidden[0]

    @torch.inference_mode()
    def extend_each(self, caches: Sequence[KVCache], embeddings: Tensor) -> Tensor:
        """Add one row to each of several sessions: [B, hidden] to their last hidden states [B, hidden].

        The weights are read once for all. Raises ``ContextFull``, and leaves every cache as it was, when one
        has no room.
        """
        for cache in caches:
            cache.reserve(cache.length + 1)
        tables = self.positions(0, 1 + max(cache.length for cache in caches), embeddings)
        at = torch.tensor([cache.length for cache in caches], device=embeddings.device)
        cos, sin = (table[at][:, None, None] for table in tables)  # [B, 1, 1, head_dim]
        hidden = self.through(embeddings[:, None], cos, sin, Pasts(caches, 1))
        for cache in caches:
            cache.length += 1
        return hidden[:, 0]

    def through(self, x: Tensor, cos: Tensor, sin: Tensor, pasts: Attends) -> Tensor:
        """All layers: x [B, T, hidden] to the last hidden states, normalised; cos, sin broadcast to
        [B, 1, T, head_dim].
        """
        for index, layer in enumerate(self.model.layers):
            assert isinstance(layer, _Layer)  # what a ModuleList holds is typed as any module
            x = layer.extend(x, cos, sin, pasts, index)
        hidden: Tensor = self.model.norm(x)
        return hidden

    def fuse(self) -> None:
        """Lay q, k, v and gate, up side by side for fewer, larger products. For serving, after loading.

        The parameters become views of the fused matrices: names stay, memory does not double. Not for
        training (gradients are switched off), and the module must not be moved or converted afterwards.
        """
        if self._fused:
            return
        for module in self.modules():
            if isinstance(module, _Attention):
                projections = (module.q_proj, module.k_proj, module.v_proj)
                weight = _side_by_side([projection.weight for projection in projections])
                bias = _side_by_side([projection.bias for projection in projections])
                module.fused = (weight, bias)
                module.o_proj.weight.data = _column_major(module.o_proj.weight.data)
            elif isinstance(module, _MLP):
                module.fused = _side_by_side([module.gate_proj.weight, module.up_proj.weight])
                module.down_proj.weight.data = _column_major(module.down_proj.weight.data)
        self.lm_head.weight.data = _column_major(self.lm_head.weight.data)
        self.requires_grad_(False)
        self._fused = True


def _side_by_side(parts: list[Tensor]) -> Tensor:
    """One tensor of all ``parts`` along their first axis; each part becomes a view of it."""
    whole = _column_major(torch.cat([part.data for part in parts]))
    at = 0
    for part in parts:
        part.data = whole[at : at + part.shape[0]]
        at += part.shape[0]
    return whole


def _column_major(weight: Tensor) -> Tensor:
    """The same matrix, laid out by columns on a CPU: products with one row are 1.7 times as fast there."""
    if weight.device.type != "cpu" or weight.dim() != 2:
        return weight
    return weight.t().contiguous().t()
