"""A head that listens: in the backbone's first layer one attends, from the start, to the question heard last.

What the ears say of a question is in the mean of its rows as the backbone normalises them. A backbone that
has to find out by itself where to look, among instructions and earlier questions, takes long, and learns the
training voices by heart on the way. So its first query head is laid out by hand - near in the call, audible,
and the intent as the ears' own head reads it - practises for some seconds alone, and then stands still while
the rest of the backbone learns to go by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_runtime.thinking.backbone import Backbone
from model_runtime.training.hearer import HIDDEN, LABELS, LOOKS, SIZE, Hearer

NEAR = (10, 12, 14)  # rotary pairs whose cosines together fall with distance: periods of 470 to 2,700 tokens
STILL = 31  # the rotary pair that hardly turns within a call
NEARNESS = 6.0  # of a score, each pair at distance 0
AUDIBLE = 4.0  # of a score, between a row of audio and any other token
LOUD = 0.4  # what one point of an intent's score adds to the residual stream
PRACTICE, RATE = 80, 2e-3  # steps, and how fast at first


Asked = tuple[int, int, str]
"""In which row of a batch, at which place an answer begins, and the intent it answers."""


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
        self._parts = [x for one in (self._query, self._key, self._value) for x in (one.weight, one.bias)]

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

    def practise(self, some: Callable[[], tuple[Tensor, Sequence[Asked]]], evenly: Tensor) -> float:
        """Learn where to look. ``some`` gives embeddings [B, T, hidden] and what is asked in them.

        Returns the share of intents it told rightly of late.
        """
        optimiser, right = torch.optim.Adam(self._parts), 0.0
        for step in range(PRACTICE):
            optimiser.param_groups[0]["lr"] = RATE * (1 - step / PRACTICE)
            embeddings, asked = some()
            scores = self._heard(embeddings, [(row, place) for row, place, _ in asked])
            labels = torch.tensor([LABELS.index(intent) for _, _, intent in asked])
            optimiser.zero_grad()
            F.cross_entropy(scores, labels, evenly).backward()
            for part in self._parts:
                assert part.grad is not None
                part.grad[self._size :] = 0  # the other heads'
            optimiser.step()
            right += 0.1 * (float((scores.argmax(-1) == labels).float().mean()) - right)
        return right

    def hold(self) -> None:
        """Let it stand still from now on."""

        def none(gradient: Tensor) -> Tensor:
            return gradient.index_fill(0, torch.arange(self._size), 0.0)

        for part in self._parts:
            part.register_hook(none)

    def _heard(self, embeddings: Tensor, at: Sequence[tuple[int, int]]) -> Tensor:
        """What it reads there: intent scores [len(at), labels]."""
        size, x = self._size, self._norm(embeddings)
        q, k, v = (
            F.linear(x, one.weight[:size], one.bias[:size]) for one in (self._query, self._key, self._value)
        )
        angle = torch.arange(x.shape[1])[:, None] * self._backbone.config.rope_theta ** (
            -torch.arange(0, size, 2) / size
        )
        cos, sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)
        q, k = (y * cos + torch.cat((-y[..., size // 2 :], y[..., : size // 2]), -1) * sin for y in (q, k))
        return torch.stack(
            [
                (k[row, : place + 1] @ q[row, place] / size**0.5).softmax(0)
                @ v[row, : place + 1, : len(LABELS)]
                for row, place in at
            ]
        )


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
