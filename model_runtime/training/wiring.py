"""A head that listens: in the backbone's first layer one attends, from the start, to the question heard last.

What the ears say of a question is in the mean of its rows as the backbone normalises them. A backbone that
has to find out by itself where to look, among instructions and earlier questions, takes long, and learns the
training voices by heart on the way. So its first query head is laid out by hand - near in the call, audible,
and the intent as the ears' own head reads it - practises for some seconds where to look, and then stands
still while the rest of the backbone learns to go by it. What it reads there is never practised: so it reads
a voice it has never met as well as the ears' head does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_runtime.thinking.backbone import Backbone
from model_runtime.training.conversations import Conversation
from model_runtime.training.hearer import HIDDEN, LABELS, LOOKS, SIZE, Hearer

NEAR = (10, 12, 14)  # rotary pairs whose cosines together fall with distance: periods of 470 to 2,700 tokens
STILL = 31  # the rotary pair that hardly turns within a call
NEARNESS = 6.0  # of a score, each pair at distance 0
AUDIBLE = 4.0  # of a score, between a row of audio and any other token
LOUD = 0.4  # what one point of an intent's score adds to the residual stream
PRACTICE, RATE = 300, 5e-3  # steps, and how fast at first


@dataclass(frozen=True)
class Asked:
    """In which ``row`` of a batch, at which ``place`` an answer begins; ``count`` rows from ``start`` ask."""

    row: int
    place: int
    start: int
    count: int


def questions(talks: Sequence[Conversation]) -> list[Asked]:
    """All that are answered in a batch."""
    return [
        Asked(row, place, start, count)
        for row, talk in enumerate(talks)
        for (place, _), (start, _, count) in zip(talk.asked, talk.slots, strict=True)
    ]


class Listener:
    """The first query head of the first layer, with the keys and values it looks at."""

    def __init__(self, backbone: Backbone) -> None:
        """Nothing is changed yet."""
        layer = backbone.model.layers[0]
        attention = layer.get_submodule("self_attn")
        self._backbone = backbone
        self._norm = layer.get_submodule("input_layernorm")
        self._query, self._key, self._value, self._out = (
            _linear(attention.get_submodule(f"{name}_proj")) for name in "qkvo"
        )
        self._size = backbone.config.head_dim
        self._shared = backbone.config.num_attention_heads // backbone.config.num_key_value_heads
        self._looks = [x for one in (self._query, self._key) for x in (one.weight, one.bias)]
        self._parts = [*self._looks, self._value.weight, self._value.bias]

    @torch.no_grad()
    def lay_out(self, hearer: Hearer, rows: Tensor, seed: int = 0) -> None:
        """The head by hand. ``rows`` [n, hidden]: many of the adaptor's, to be told from tokens' embeddings.

        The other query heads that share its keys are silenced: they knew others.
        """
        size, root = self._size, self._size**0.25  # a score is divided by the root of the head's size
        for part in self._parts:
            part[:size] = 0
        for pair in NEAR:
            self._query.bias[pair] = self._key.bias[pair] = NEARNESS**0.5 * root
        self._query.bias[STILL] = root
        scale = self._norm.get_parameter("weight")
        audio, tokens = (F.rms_norm(x, (HIDDEN,)) for x in (rows, self._backbone.model.embed_tokens.weight))
        self._key.weight[STILL] = AUDIBLE * root * _told_apart(audio, tokens) / scale
        # The ears' head read a mean that stood in for every look.
        whole = hearer.intent.weight.view(len(LABELS), LOOKS, HIDDEN).sum(1)
        self._value.weight[: len(LABELS)] = SIZE * whole / scale
        self._value.bias[: len(LABELS)] = hearer.intent.bias
        draw = torch.Generator().manual_seed(seed)
        self._out.weight[:, : self._shared * size] = 0
        self._out.weight[:, :size] = LOUD * torch.linalg.qr(torch.randn(HIDDEN, size, generator=draw))[0]

    def practise(self, some: Callable[[], tuple[Tensor, Sequence[Asked]]]) -> float:
        """Learn where to look: evenly at the rows of the question, and nowhere else.

        ``some`` gives embeddings [B, T, hidden] and what is asked in them. Returns the share of its attention
        that of late fell on the question.
        """
        optimiser, share = torch.optim.Adam(self._looks), 0.0
        for step in range(PRACTICE):
            optimiser.param_groups[0]["lr"] = RATE * (1 - step / PRACTICE)
            embeddings, asked = some()
            looks = [
                look[one.start : one.start + one.count]
                for look, one in zip(self._looked(embeddings, asked), asked, strict=True)
            ]
            optimiser.zero_grad()
            # The divergence of its attention from an even one.
            torch.stack([-look.mean() - math.log(len(look)) for look in looks]).mean().backward()
            for part in self._looks:
                assert part.grad is not None
                part.grad[self._size :] = 0  # the other heads'
            optimiser.step()
            fell = sum(float(look.detach().exp().sum()) for look in looks) / len(looks)
            share += 0.1 * (fell - share)
        return share

    def hold(self, optimiser: torch.optim.Optimizer) -> None:
        """Let it stand still from now on, and not fade by ``optimiser``'s weight decay either."""
        scale = self._norm.get_parameter("weight")
        held = [part[: self._size] for part in self._parts] + [scale]
        stands = [part.detach().clone() for part in held]

        @torch.no_grad()
        def put_back(*_: object) -> None:
            for part, value in zip(held, stands, strict=True):
                part.copy_(value)

        optimiser.register_step_post_hook(put_back)

    def reads(self, embeddings: Tensor, asked: Sequence[Asked]) -> Tensor:
        """What it reads where those are answered: intent scores [len(asked), labels]."""
        x = self._norm(embeddings)
        values = F.linear(x, self._value.weight[: len(LABELS)], self._value.bias[: len(LABELS)])
        looked = self._looked(embeddings, asked)
        return torch.stack(
            [look.exp() @ values[one.row, : one.place + 1] for look, one in zip(looked, asked, strict=True)]
        )

    def _looked(self, embeddings: Tensor, asked: Sequence[Asked]) -> list[Tensor]:
        """How much it looks where, of each: logarithms [place + 1]."""
        size, x = self._size, self._norm(embeddings)
        q, k = (F.linear(x, one.weight[:size], one.bias[:size]) for one in (self._query, self._key))
        angle = torch.arange(x.shape[1])[:, None] * self._backbone.config.rope_theta ** (
            -torch.arange(0, size, 2) / size
        )
        cos, sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)
        q, k = (y * cos + torch.cat((-y[..., size // 2 :], y[..., : size // 2]), -1) * sin for y in (q, k))
        return [
            (k[one.row, : one.place + 1] @ q[one.row, one.place] / size**0.5).log_softmax(0) for one in asked
        ]


def _linear(module: nn.Module) -> nn.Linear:
    assert isinstance(module, nn.Linear)
    return module


def _told_apart(audio: Tensor, tokens: Tensor) -> Tensor:
    """A direction [hidden] along which audio rows lie one unit from tokens, and close together (Fisher)."""
    apart = audio.mean(0) - tokens.mean(0)
    within = 3 * torch.cov(audio.T) + torch.cov(tokens.T) + 1e-3 * torch.eye(HIDDEN)
    direction = torch.linalg.solve(within, apart)
    told: Tensor = direction / (direction @ apart)
    return told
