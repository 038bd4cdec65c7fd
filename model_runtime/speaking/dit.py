"""The flow's velocity estimator: a diffusion transformer with a causal convolution in every block.

Structure and parameter names are those of `DiT` in Step-Audio 2's `token2wav/flow.pt` (prefix
`decoder.estimator.`). Attention has no positions: only the causal convolutions know the order of frames. So
the order of cached keys does not matter, but which frames are kept does.

One path serves training, offline and streaming: the parts that do not change between solver steps
(`condition`) or between calls (`modulations` of the fixed time steps) are computed apart and passed in.

Shapes: B batch, T frames, C hidden, H heads, D head dim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_runtime.speaking.memory import KeyValue, join

TIME_SCALE = 1000.0  # t in [0, 1] is scaled before the sinusoids (DiT convention)
TIME_FEATURES = 256


@dataclass(frozen=True)
class DiTConfig:
    """Dimensions of the estimator, named as in `flow.yaml`."""

    in_channels: int = 320
    out_channels: int = 80
    mlp_ratio: float = 4.0
    depth: int = 16
    num_heads: int = 8
    head_dim: int = 64
    hidden_size: int = 512


Convs = tuple[Tensor, Tensor]
"""The last two inputs of a block's first and second causal convolution, each float [B, 2, C]."""


@dataclass(frozen=True)
class BlockState:
    """What a chunk leaves behind in one block at one solver step: its keys and values, and `convs`."""

    pair: KeyValue  # of this chunk alone
    convs: Convs


class TimeEmbedding(nn.Module):
    """Time in [0, 1] to a vector: 256 sinusoids [cos | sin], then an MLP with SiLU."""

    def __init__(self, hidden: int) -> None:
        """To `hidden` channels."""
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_FEATURES, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, t: Tensor) -> Tensor:
        """[B] -> [B, C]."""
        half = TIME_FEATURES // 2
        rate = torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
        angle = (t * TIME_SCALE).unsqueeze(1) * rate
        y: Tensor = self.mlp(torch.cat([angle.cos(), angle.sin()], 1))
        return y


class Attention(nn.Module):
    """Multi-head attention with a LayerNorm on each head's query and key."""

    def __init__(self, config: DiTConfig) -> None:
        """Dimensions as configured."""
        super().__init__()
        inner = config.num_heads * config.head_dim
        self.heads = config.num_heads
        self.to_q = nn.Linear(config.hidden_size, inner)
        self.to_k = nn.Linear(config.hidden_size, inner)
        self.to_v = nn.Linear(config.hidden_size, inner)
        self.q_norm = nn.LayerNorm(config.head_dim)
        self.k_norm = nn.LayerNorm(config.head_dim)
        self.proj = nn.Linear(inner, config.hidden_size)

    def forward(self, x: Tensor, mask: Tensor | None, past: Sequence[KeyValue]) -> tuple[Tensor, KeyValue]:
        """Attend from `x` [B, T, C] to the past and itself: the output, and the keys and values of `x`."""
        q = self.q_norm(self.to_q(x).unflatten(2, (self.heads, -1))).transpose(1, 2)
        k = self.k_norm(self.to_k(x).unflatten(2, (self.heads, -1))).transpose(1, 2)
        v = self.to_v(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        keys, values = join([*past, (k, v)])
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return self.proj(y.transpose(1, 2).flatten(2)), (k, v)


class CausalConv(nn.Conv1d):
    """A convolution of width 3 over [B, T, C] that sees the two frames before each frame."""

    def __init__(self, channels: int) -> None:
        """From and to `channels`."""
        super().__init__(channels, channels, 3)

    def step(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """[B, T, C] -> [B, T, C] and the last two inputs [B, 2, C]; no past means zeros."""
        x = F.pad(x, (0, 0, 2, 0)) if past is None else torch.cat([past, x], 1)
        return self(x.transpose(1, 2)).transpose(1, 2), x[:, -2:]


class ConvBlock(nn.Module):
    """Causal convolution, LayerNorm, Mish, causal convolution (weights at 1, 3 and 6 of `block`)."""

    def __init__(self, channels: int) -> None:
        """From and to `channels`."""
        super().__init__()
        # The reference keeps transpositions and the activation at the other indices; the names need the gaps.
        self.block = nn.ModuleDict(
            {"1": CausalConv(channels), "3": nn.LayerNorm(channels), "6": CausalConv(channels)}
        )

    def forward(self, x: Tensor, before: Convs | None) -> tuple[Tensor, Convs]:
        """[B, T, C] -> [B, T, C] and the two convolutions' last inputs."""
        first, second = self.block["1"], self.block["6"]
        assert isinstance(first, CausalConv)
        assert isinstance(second, CausalConv)
        y, conv1 = first.step(x, None if before is None else before[0])
        y = F.mish(self.block["3"](y))
        y, conv2 = second.step(y, None if before is None else before[1])
        return y, (conv1, conv2)


class MLP(nn.Module):
    """Two linear layers with a tanh-approximated GELU between."""

    def __init__(self, dim: int, inner: int) -> None:
        """`dim` channels, `inner` hidden units."""
        super().__init__()
        self.fc1 = nn.Linear(dim, inner)
        self.fc2 = nn.Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] -> [B, T, C]."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return y


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without parameters, then the scale and shift that the time step asks for."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), scale)


class Block(nn.Module):
    """adaLN-zero block: attention, causal convolution, MLP, each shifted, scaled and gated by the time."""

    def __init__(self, config: DiTConfig) -> None:
        """Dimensions as configured."""
        super().__init__()
        dim = config.hidden_size
        self.attn = Attention(config)
        self.mlp = MLP(dim, int(dim * config.mlp_ratio))
        self.conv = ConvBlock(dim)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 9 * dim))

    def modulation(self, time: Tensor) -> Tensor:
        """[B, C] -> [9, B, 1, C]: shift, scale (plus one) and gate of attention, MLP and convolution."""
        m: Tensor = self.adaLN_modulation(time).view(time.shape[0], 9, 1, -1).movedim(1, 0)
        one = torch.tensor([0, 1, 0] * 3, device=m.device, dtype=m.dtype).view(9, 1, 1, 1)
        return m + one

    def forward(
        self,
        x: Tensor,
        m: Tensor,
        mask: Tensor | None = None,
        before: Convs | None = None,
        past: Sequence[KeyValue] = (),
    ) -> tuple[Tensor, BlockState]:
        """[B, T, C] -> [B, T, C] and what to remember; `m` comes from `modulation`."""
        y, pair = self.attn(_modulate(x, m[0], m[1]), mask, past)
        x = torch.addcmul(x, m[2], y)
        y, convs = self.conv(_modulate(x, m[6], m[7]), before)
        x = torch.addcmul(x, m[8], y)
        x = torch.addcmul(x, m[5], self.mlp(_modulate(x, m[3], m[4])))
        return x, BlockState(pair, convs)


class FinalLayer(nn.Module):
    """Modulated LayerNorm and the projection to mel channels."""

    def __init__(self, dim: int, out: int) -> None:
        """From `dim` to `out` channels."""
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))
        self.linear = nn.Linear(dim, out)

    def modulation(self, time: Tensor) -> Tensor:
        """[B, C] -> [2, B, 1, C]: shift and scale (plus one)."""
        m: Tensor = self.adaLN_modulation(time).view(time.shape[0], 2, 1, -1).movedim(1, 0)
        return m + torch.tensor([0, 1], device=m.device, dtype=m.dtype).view(2, 1, 1, 1)

    def forward(self, x: Tensor, m: Tensor) -> Tensor:
        """[B, T, C] -> [B, T, out]."""
        y: Tensor = self.linear(_modulate(x, m[0], m[1]))
        return y


class DiT(nn.Module):
    """Velocity of the mel at a time, given the encoder's frames, the speaker and the known prompt mel."""

    def __init__(self, config: DiTConfig) -> None:
        """Weights at DiT's own initialisation."""
        super().__init__()
        self.config = config
        self.t_embedder = TimeEmbedding(config.hidden_size)
        self.in_proj = nn.Linear(config.in_channels, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(config.hidden_size, config.out_channels)
        self._initialise()

    def _initialise(self) -> None:
        """DiT's own initialisation: every block starts as the identity and the output as zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Block | FinalLayer):
                linear = module.adaLN_modulation[1]
                assert isinstance(linear, nn.Linear)
                nn.init.zeros_(linear.weight)
        nn.init.zeros_(self.final_layer.linear.weight)

    def modulations(self, t: Tensor) -> list[Tensor]:
        """Time steps [B] to what each block, and last the final layer, is modulated with."""
        time = self.t_embedder(t)
        parts = [block.modulation(time) for block in self.blocks if isinstance(block, Block)]
        return [*parts, self.final_layer.modulation(time)]

    def condition(self, mu: Tensor, speaker: Tensor, cond: Tensor | None) -> Tensor:
        """The part of the input projection that no solver step changes: [B, T, C], bias included.

        `mu` [B, T, 80] from the encoder, `speaker` [B, 80], `cond` [B, T, 80] known mel or None for none.
        """
        mel = mu.shape[2]
        _, w_mu, w_speaker, w_cond = torch.split(self.in_proj.weight, mel, 1)
        y = F.linear(mu, w_mu) + F.linear(speaker, w_speaker, self.in_proj.bias).unsqueeze(1)
        return y if cond is None else y + F.linear(cond, w_cond)

    def velocity(
        self,
        x: Tensor,
        condition: Tensor,
        modulations: list[Tensor],
        mask: Tensor | None = None,
        before: Sequence[Convs] = (),
        past: Sequence[Sequence[KeyValue]] = (),
    ) -> tuple[Tensor, list[BlockState]]:
        """One evaluation: `x` [B, T, 80] -> velocity [B, T, 80] and what it leaves in each block.

        `mask` bool, broadcastable to [B, 1, T, L + T], True where a frame may look; `before` and `past` are,
        for each block, what the convolutions and what the attention remember.
        """
        h = F.linear(x, self.in_proj.weight[:, : x.shape[2]]) + condition
        now: list[BlockState] = []
        for i, block in enumerate(self.blocks):
            h, state = block(h, modulations[i], mask, before[i] if before else None, past[i] if past else ())
            now.append(state)
        return self.final_layer(h, modulations[-1]), now

    def forward(
        self,
        x: Tensor,
        mu: Tensor,
        t: Tensor,
        speaker: Tensor,
        cond: Tensor | None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """A whole batch, differentiably: velocity [B, T, 80]; `mask` bool [B, T, T] or None."""
        if mask is not None:
            mask = mask.unsqueeze(1)
        return self.velocity(x, self.condition(mu, speaker, cond), self.modulations(t), mask)[0]
