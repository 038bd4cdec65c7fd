"""The adaptor: encoder states at 25 Hz to rows the language model reads at 12.5 Hz.

One row stands at each ``<audio_patch>``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Adaptor(nn.Module):
    """Parameter names are the checkpoint's, less ``adapter.``. ``inner`` is 2048 in published weights."""

    def __init__(
        self, n_state: int = 1280, llm_dim: int = 3584, inner: int = 2048, kernel: int = 3, stride: int = 2
    ) -> None:
        """Dimensions; the defaults are Step-Audio-2-mini's."""
        super().__init__()
        self.conv = nn.Conv1d(n_state, n_state, kernel, stride=stride, padding=1)
        self.linear1 = nn.Linear(n_state, inner)
        self.linear2 = nn.Linear(inner, llm_dim)

    def forward(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``states`` [B, E, n_state], lengths [B] to rows [B, N, llm_dim], lengths int64 [B]."""
        x = F.gelu(self.conv(states.transpose(1, 2))).transpose(1, 2)
        rows: Tensor = self.linear2(F.relu(self.linear1(x)))
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        count = torch.div(lengths.to(torch.int64) + 2 - kernel, stride, rounding_mode="floor") + 1
        return rows, count.clamp(min=0)
