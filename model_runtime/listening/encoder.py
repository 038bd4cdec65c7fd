"""The audio encoder: log-mel frames at 100 Hz to states at 25 Hz. Whisper's shape, Step-Audio 2's names."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Upstream adds this to the score of a key in the padding. Finite, so that an item of padding alone stays a
# number.
_PADDING_SCORE = -1e10


class _Attention(nn.Module):
    """Bidirectional attention; the key projection has no bias (Whisper)."""

    def __init__(self, state: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(state, state)
        self.key = nn.Linear(state, state, bias=False)
        self.value = nn.Linear(state, state)
        self.out = nn.Linear(state, state)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        # x [B, T, state], bias [B, 1, 1, T]
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out


class _Block(nn.Module):
    def __init__(self, state: int, heads: int) -> None:
        super().__init__()
        self.attn = _Attention(state, heads)
        self.attn_ln = nn.LayerNorm(state)
        self.mlp = nn.Sequential(nn.Linear(state, 4 * state), nn.GELU(), nn.Linear(4 * state, state))
        self.mlp_ln = nn.LayerNorm(state)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        x = x + self.attn(self.attn_ln(x), bias)
        y: Tensor = x + self.mlp(self.mlp_ln(x))
        return y


class AudioEncoder(nn.Module):
    """Parameter names are the checkpoint's, less ``encoder.``. Fit for training and for serving."""

    def __init__(
        self, n_mels: int = 128, n_ctx: int = 1500, n_state: int = 1280, n_head: int = 20, n_layer: int = 32
    ) -> None:
        """Dimensions; the defaults are Step-Audio-2-mini's."""
        super().__init__()
        self.conv1 = nn.Conv1d(n_mels, n_state, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(n_state, n_state, kernel_size=3, stride=2, padding=1)
        self.positional_embedding = nn.Embedding(n_ctx, n_state)
        self.blocks = nn.ModuleList(_Block(n_state, n_head) for _ in range(n_layer))
        self.after_norm = nn.LayerNorm(n_state)

    def forward(self, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``mel`` [B, n_mels, T] zero-padded to the longest, ``lengths`` int [B] valid frames each.

        Returns states [B, T // 4, n_state] (25 Hz) and their valid lengths int64 [B]. A shorter item's last
        states depend on the padding it was batched with, as upstream's do: serve one piece at a time for
        exact repeats.
        """
        total = mel.shape[-1]
        x = F.gelu(self.conv1(mel.to(self.conv1.weight.dtype)))
        x = F.gelu(self.conv2(x)).transpose(1, 2)  # [B, T', state], 50 Hz
        x = x + self.positional_embedding.weight[: x.shape[1]]
        bias = self._padding_bias(lengths, total, x)
        for block in self.blocks:
            x = block(x, bias)
        x = F.avg_pool1d(x.transpose(1, 2), kernel_size=2, stride=2).transpose(1, 2)
        frames = torch.div(
            torch.div(lengths.to(torch.int64) + 1, 2, rounding_mode="floor"), 2, rounding_mode="floor"
        )
        return self.after_norm(x), frames

    @staticmethod
    def _padding_bias(lengths: Tensor, total: int, x: Tensor) -> Tensor:
        """[B, 1, 1, T']: 0 on valid keys, every second mel frame; which ones depends on T's parity
        (upstream).
        """
        valid = torch.arange(total, device=x.device) < lengths.to(x.device)[:, None]
        valid = valid[:, (total + 1) % 2 :: 2]
        score = max(_PADDING_SCORE, torch.finfo(x.dtype).min)
        return torch.zeros(valid.shape, dtype=x.dtype, device=x.device).masked_fill(~valid, score)[
            :, None, None
        ]
