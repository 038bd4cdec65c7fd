"""The flow's token encoder: a relative-position conformer from 25 Hz tokens to 50 Hz frames.

Structure and parameter names are those of `UpsampleConformerEncoderV2` in Step-Audio 2's `token2wav/flow.pt`
(prefix `encoder.`). The same code runs a whole padded batch (training, offline) and one chunk of a stream: a
chunk brings what is remembered of the past and gets back what it leaves behind.

Shapes: B batch, N tokens, T frames (T = 2 N), C channels, H heads, D = C / H.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_runtime.speaking.memory import KeyValue, join, length


@dataclass(frozen=True)
class EncoderConfig:
    """Dimensions of the encoder, named as in `flow.yaml`."""

    input_size: int = 512
    output_size: int = 512
    pre_lookahead_len: int = 3
    num_blocks: int = 6
    num_up_blocks: int = 4
    up_stride: int = 2
    attention_heads: int = 8
    linear_units: int = 2048
    key_bias: bool = True


@dataclass(frozen=True)
class EncoderState:
    """What a chunk leaves behind: the convolutions' last inputs and its own keys and values."""

    lookahead: Tensor  # [B, 2, C] inputs of the look-ahead layer's causal convolution
    upsample: Tensor  # [B, 2 * stride, C] inputs of the up-sampling convolution
    layers: tuple[KeyValue, ...]  # at the token rate, then at the frame rate (up_encoders)


Past = Sequence[Sequence[KeyValue]]
"""For each layer (both stacks, in order) the remembered pieces, oldest first."""


def sinusoid(start: int, stop: int, dim: int, device: torch.device) -> Tensor:
    """Sinusoids of the relative positions `start`, `start - 1`, ..., `stop` (inclusive): float32 [n, dim].

    Even columns sin, odd columns cos, base 10000 (Transformer-XL; ESPnet's `RelPositionalEncoding`).
    """
    position = torch.arange(start, stop - 1, -1, device=device, dtype=torch.float32).unsqueeze(1)
    rate = torch.exp(torch.arange(0, dim, 2, device=device, dtype=torch.float32) * -(math.log(10000.0) / dim))
    angle = position * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


class RelativeAttention(nn.Module):
    """Multi-head attention with Transformer-XL relative positions: ((q + u) k + (q + v) p) / sqrt(D)."""

    def __init__(self, dim: int, heads: int, key_bias: bool = True) -> None:
        """`dim` channels in `heads` heads; `key_bias` as in `flow.yaml`."""
        super().__init__()
        self.heads = heads
        self.linear_q = nn.Linear(dim, dim)
        self.linear_k = nn.Linear(dim, dim, bias=key_bias)
        self.linear_v = nn.Linear(dim, dim)
        self.linear_out = nn.Linear(dim, dim)
        self.linear_pos = nn.Linear(dim, dim, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, dim // heads))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, dim // heads))
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)

    def positions(self, table: Tensor) -> Tensor:
        """Project a table of sinusoids [R, C] to this layer's heads: [H, D, R]. Depends on weights only."""
        projected: Tensor = self.linear_pos(table)
        return projected.view(table.shape[0], self.heads, -1).permute(1, 2, 0)

    def forward(
        self, x: Tensor, positions: Tensor, mask: Tensor | None = None, past: Sequence[KeyValue] = ()
    ) -> tuple[Tensor, KeyValue]:
        """Attend from `x` [B, N, C] to the past and to itself; returns the output and the keys and values of
        `x`.

        `positions` [H, D, L + 2 N - 1] holds relative positions L + N - 1 down to -(N - 1), where L is the
        length of the past. `mask` bool, broadcastable to [B, 1, N, L + N], True where a query may look.
        """
        count = x.shape[1]
        q = self.linear_q(x).unflatten(2, (self.heads, -1))
        k = self.linear_k(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        v = self.linear_v(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        keys, values = join([*past, (k, v)])
        scale = q.shape[-1] ** -0.5
        distance = ((q + self.pos_bias_v).transpose(1, 2) * scale) @ positions  # [B, H, N, L + 2N - 1]
        # Row i must be read from column N - 1 - i on: one padded column and a flat re-view shift it there.
        bias = F.pad(distance, (1, 0)).flatten(2)[:, :, count:].view(*distance.shape)[..., : keys.shape[2]]
        if mask is not None:
            bias = bias.masked_fill(~mask, -torch.inf)
        q = (q + self.pos_bias_u).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=bias)
        return self.linear_out(y.transpose(1, 2).flatten(2)), (k, v)


class FeedForward(nn.Module):
    """Two linear layers with SiLU between."""

    def __init__(self, dim: int, inner: int) -> None:
        """`dim` channels, `inner` hidden units."""
        super().__init__()
        self.w_1 = nn.Linear(dim, inner)
        self.w_2 = nn.Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        y: Tensor = self.w_2(F.silu(self.w_1(x)))
        return y


class EncoderLayer(nn.Module):
    """Pre-norm attention and feed-forward; no convolution module, no macaron half step."""

    def __init__(self, config: EncoderConfig) -> None:
        """One layer of the given dimensions."""
        super().__init__()
        dim = config.output_size
        self.self_attn = RelativeAttention(dim, config.attention_heads, config.key_bias)
        self.feed_forward = FeedForward(dim, config.linear_units)
        # 1e-12 is ESPnet's epsilon for these two norms.
        self.norm_ff = nn.LayerNorm(dim, eps=1e-12)
        self.norm_mha = nn.LayerNorm(dim, eps=1e-12)

    def forward(
        self, x: Tensor, positions: Tensor, mask: Tensor | None = None, past: Sequence[KeyValue] = ()
    ) -> tuple[Tensor, KeyValue]:
        """[B, N, C] -> [B, N, C] and the keys and values (see `RelativeAttention`)."""
        y, now = self.self_attn(self.norm_mha(x), positions, mask, past)
        x = x + y
        return x + self.feed_forward(self.norm_ff(x)), now


class InputLayer(nn.Module):
    """Linear + LayerNorm, then times sqrt(C) as every ESPnet positional encoding scales its input."""

    def __init__(self, size: int, dim: int) -> None:
        """From `size` to `dim` channels."""
        super().__init__()
        self.out = nn.Sequential(nn.Linear(size, dim), nn.LayerNorm(dim, eps=1e-5))
        self.scale = math.sqrt(dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, size] -> [B, N, C]."""
        y: Tensor = self.out(x)
        return y * self.scale


class LookAhead(nn.Module):
    """Lets each token see the next three: a convolution looking right, a causal one, and a residual."""

    def __init__(self, dim: int, tokens: int) -> None:
        """`dim` channels, seeing `tokens` to the right."""
        super().__init__()
        self.tokens = tokens
        self.conv1 = nn.Conv1d(dim, dim, tokens + 1)
        self.conv2 = nn.Conv1d(dim, dim, 3)

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[B, N + tokens, C] -> [B, N, C] and the new cache [B, 2, C]; no past means silence (zeros)."""
        y = F.leaky_relu(self.conv1(x.transpose(1, 2)))
        before = y.new_zeros(y.shape[0], y.shape[1], 2) if past is None else past.transpose(1, 2)
        y = torch.cat([before, y], 2)
        return self.conv2(y).transpose(1, 2) + x[:, : x.shape[1] - self.tokens], y[:, :, -2:].transpose(1, 2)


class Upsample(nn.Module):
    """Repeat every token `stride` times, then a causal convolution of width 2 stride + 1."""

    def __init__(self, dim: int, stride: int) -> None:
        """`dim` channels, `stride` times the rate."""
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv1d(dim, dim, 2 * stride + 1)

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[B, N, C] -> [B, N * stride, C] and the new cache [B, 2 stride, C]."""
        y = x.repeat_interleave(self.stride, 1)
        before = y.new_zeros(y.shape[0], 2 * self.stride, y.shape[2]) if past is None else past
        y = torch.cat([before, y], 1)
        return self.conv(y.transpose(1, 2)).transpose(1, 2), y[:, -2 * self.stride :]


class ConformerEncoder(nn.Module):
    """25 Hz token embeddings to 50 Hz hidden frames (Step-Audio 2 `flow.pt`, prefix `encoder.`)."""

    def __init__(self, config: EncoderConfig) -> None:
        """Random weights, ready to be trained or filled."""
        super().__init__()
        self.config = config
        dim = config.output_size
        self.embed = InputLayer(config.input_size, dim)
        self.pre_lookahead_layer = LookAhead(dim, config.pre_lookahead_len)
        self.encoders = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_blocks))
        self.up_layer = Upsample(dim, config.up_stride)
        self.up_embed = InputLayer(dim, dim)
        self.up_encoders = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_up_blocks))
        self.after_norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        up_mask: Tensor | None = None,
    ) -> Tensor:
        """Encode a whole padded batch, differentiably: [B, N, input_size] -> [B, N * stride, C].

        `lengths` int [B] counts the valid tokens (None: all); `mask` bool [B, N, N] and `up_mask` bool [B, T,
        T] say which key (last axis) each query may look at and must themselves forbid padding.
        """
        x = self.embed(x)
        if (
            lengths is not None
        ):  # what lies beyond the end must be the zeros that the last chunk of a stream sees
            x = x * (torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)).unsqueeze(2)
        x = F.pad(x, (0, 0, 0, self.config.pre_lookahead_len))
        return self._run(x, None, (), mask, up_mask)[0]

    def chunk(
        self,
        x: Tensor,
        before: EncoderState | None = None,
        past: Past = (),
        *,
        last: bool = False,
        tables: PositionTables | None = None,
    ) -> tuple[Tensor, EncoderState]:
        """Encode the next chunk of a stream: [B, n + look-ahead, input_size] -> [B, n * stride, C].

        `before` is what the chunk before left (only its convolutions' inputs are used), `past` what the
        layers remember. The last chunk brings no look-ahead: zeros stand for it and all n tokens are
        rendered.
        """
        x = self.embed(x)
        if last:
            x = F.pad(x, (0, 0, 0, self.config.pre_lookahead_len))
        return self._run(x, before, past, None, None, tables)

    def _run(
        self,
        x: Tensor,
        before: EncoderState | None,
        past: Past,
        mask: Tensor | None,
        up_mask: Tensor | None,
        tables: PositionTables | None = None,
    ) -> tuple[Tensor, EncoderState]:
        depth = len(self.encoders)
        x, lookahead = self.pre_lookahead_layer(x, None if before is None else before.lookahead)
        x, layers = self._stack(self.encoders, x, past[:depth], mask, tables, 0)
        x, upsample = self.up_layer(x, None if before is None else before.upsample)
        x = self.up_embed(x)
        x, up_layers = self._stack(self.up_encoders, x, past[depth:], up_mask, tables, depth)
        return self.after_norm(x), EncoderState(lookahead, upsample, (*layers, *up_layers))

    def _stack(
        self,
        layers: nn.ModuleList,
        x: Tensor,
        past: Past,
        mask: Tensor | None,
        tables: PositionTables | None,
        first: int,
    ) -> tuple[Tensor, list[KeyValue]]:
        """Run one of the two stacks; `first` is the index of its first layer in `tables`."""
        high, low = (length(past[0]) if past else 0) + x.shape[1] - 1, 1 - x.shape[1]
        if mask is not None:
            mask = mask.unsqueeze(1)
        table = None if tables is not None else sinusoid(high, low, x.shape[2], x.device).to(x.dtype)
        now: list[KeyValue] = []
        for i, layer in enumerate(layers):
            assert isinstance(layer, EncoderLayer)
            if tables is not None:
                positions = tables.cut(first + i, high, low)
            else:
                assert table is not None
                positions = layer.self_attn.positions(table)
            x, pair = layer(x, positions, mask, past[i] if past else ())
            now.append(pair)
        return x, now


class PositionTables:
    """Each layer's projected positions, computed once: they depend on the weights and not on the stream.

    Grows by doubling when a longer span is asked for; the content never changes, so streams may share it.
    """

    def __init__(self, encoder: ConformerEncoder, reach: int = 512) -> None:
        """Tables for relative positions up to `reach` on both sides."""
        self._layers: list[EncoderLayer] = [
            layer for layer in [*encoder.encoders, *encoder.up_encoders] if isinstance(layer, EncoderLayer)
        ]
        self._reach = 0
        self._tables: list[Tensor] = []
        self._grow(reach)

    def _grow(self, reach: int) -> None:
        attention = [layer.self_attn for layer in self._layers]
        weight = attention[0].linear_pos.weight
        table = sinusoid(reach, -reach, weight.shape[1], weight.device).to(weight.dtype)
        with torch.no_grad():
            self._tables = [a.positions(table).contiguous() for a in attention]
        self._reach = reach

    def cut(self, layer: int, high: int, low: int) -> Tensor:
        """Positions `high` down to `low` of one layer: [H, D, high - low + 1]."""
        while max(high, -low) > self._reach:
            self._grow(2 * self._reach)
        return self._tables[layer][:, :, self._reach - high : self._reach - low + 1]
