"""A head that listens: in the backbone's first layer one attends, from the start, to the question heard last.

What the ears say of a question is in the mean of its rows as the backbone normalises them. A backbone that
has to find out by itself where to look, among instructions and earlier questions, takes long, and learns the
training voices by heart on the way. So its first query head is laid out by hand - near in the call, audible,
and the intent as the ears' own head reads it - practises for a minute where to look, until it reads what they
tell, and then stands still while the rest of the backbone learns to go by it. What it reads there is never
practised: so it reads a voice it has never met nearly as well as the ears' head does.
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

NEAR = range(3, 17)  # rotary pairs whose waves together tell near from far: periods of 23 to 6,300 tokens
EVEN, GONE, REACH = 48, 84, 2560  # tokens: alike near within the first, far from the second on, in all
FAR = 8.0  # of a score, between near and far
STILL = 31  # the rotary pair that hardly turns within a call
AUDIBLE = 3.0  # of a score, between a row of audio and any other token
ALIKE = 3.0  # how much more it counts that rows of audio are alike than that tokens are not like them
TOLERATED, GROWING = 0.1, 1.03  # of the way from a token to a row; how much more one beyond counts each time
LOUD = 0.4  # what one point of an intent's score adds to the residual stream
PRACTICE, RATE = 600, 5e-3  # steps, and how fast at first


@dataclass(frozen=True)
class Asked:
    """In which ``row`` of a batch, at which ``place`` an answer begins."""

    row: int
    place: int


def nearby(talks: Sequence[Conversation]) -> Tensor:
    """The ids that are no audio within ``GONE`` tokens before each answer begins."""
    found: list[int] = []
    for talk in talks:
        audio = {at for start, _, count in talk.slots for at in range(start, start + count)}
        for place, _ in talk.asked:
            found += [talk.ids[at] for at in range(max(0, place - GONE), place + 1) if at not in audio]
    return torch.tensor(found)


def questions(talks: Sequence[Conversation]) -> list[Asked]:
    """All that are answered in a batch."""
    return [Asked(row, place) for row, talk in enumerate(talks) for place, _ in talk.asked]


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
    def lay_out(self, hearer: Hearer, rows: Tensor, ids: Tensor, seed: int = 0) -> None:
        """The head by hand.

        ``rows`` [n, hidden]: many of the adaptor's, to be told from the tokens ``ids`` [m] that stand near
        questions, as often as they do.

        The other query heads that share its keys are silenced: they knew others.
        """
        size, root = self._size, self._size**0.25  # a score is divided by the root of the head's size
        for part in self._parts:
            part[:size] = 0
        for pair, along, across in zip(NEAR, *self._waves(), strict=True):
            # What is d tokens back scores along * cos(turned) + across * sin(turned), turned d times.
            size_of = math.hypot(along, across) ** 0.5
            self._key.bias[pair] = size_of * root
            self._query.bias[pair], self._query.bias[pair + size // 2] = (
                along / size_of * root, across / size_of * root,
            )  # fmt: skip
        self._query.bias[STILL] = root
        scale = self._norm.get_parameter("weight")
        audio, tokens = (F.rms_norm(x, (HIDDEN,)) for x in (rows, self._backbone.embed(ids)))
        self._key.weight[STILL] = AUDIBLE * root * _told_apart(audio, tokens) / scale
        # The ears' head read a mean that stood in for every look.
        whole = hearer.intent.weight.view(len(LABELS), LOOKS, HIDDEN).sum(1)
        self._value.weight[: len(LABELS)] = SIZE * whole / scale
        self._value.bias[: len(LABELS)] = hearer.intent.bias
        draw = torch.Generator().manual_seed(seed)
        self._out.weight[:, : self._shared * size] = 0
        self._out.weight[:, :size] = LOUD * torch.linalg.qr(torch.randn(HIDDEN, size, generator=draw))[0]

    def _waves(self) -> tuple[list[float], list[float]]:
        """Of each pair's wave, over the distance, the cosine's and the sine's share of the window.

        The least squares of a step, in which only what is nearer than wanted counts on the far side.
        """
        distance = torch.arange(REACH, dtype=torch.float64)[:, None]
        turn = self._turn(torch.tensor(list(NEAR), dtype=torch.float64))
        waves = torch.cat([(distance * turn).cos(), (distance * turn).sin(), torch.ones_like(distance)], 1)
        at = distance[:, 0]
        near, far = at <= EVEN, at >= GONE
        counts = torch.where(near, 30.0, torch.where(far, 0.3, 1.0)).double()
        wanted = -FAR * ((at - EVEN) / (GONE - EVEN)).clamp(0, 1)
        small = 1e-3 * REACH * torch.eye(waves.shape[1], dtype=torch.float64)
        small[-1, -1] = 0
        shares = wanted
        for _ in range(60):
            shares = torch.linalg.solve(
                waves.T @ (counts[:, None] * waves) + small, waves.T @ (counts * wanted)
            )
            made = waves @ shares
            wanted = torch.where(far, made.clamp(max=-FAR), torch.where(near, 0.0, made.clamp(-FAR, 0.0)))
        return shares[: len(NEAR)].tolist(), shares[len(NEAR) : -1].tolist()

    def _turn(self, pair: Tensor) -> Tensor:
        """How far rotary pairs turn with each token, in radians."""
        turned: Tensor = self._backbone.config.rope_theta ** (-2 * pair / self._size)
        return turned

    def practise(self, some: Callable[[], tuple[Tensor, Sequence[Asked], Tensor]]) -> float:
        """Learn where to look: so that it reads what the ears tell.

        ``some`` gives embeddings [B, T, hidden], what is asked in them, and what the ears make of that:
        scores [len(asked), labels]. Returns how far it read from that of late, a divergence in nats.
        """
        optimiser, apart = torch.optim.Adam(self._looks), 0.0
        for step in range(PRACTICE):
            optimiser.param_groups[0]["lr"] = RATE * (1 - step / PRACTICE)
            embeddings, asked, believed = some()
            optimiser.zero_grad()
            lost = F.kl_div(
                self.reads(embeddings, asked).log_softmax(-1), believed.log_softmax(-1),
                reduction="batchmean", log_target=True,
            )  # fmt: skip
            lost.backward()
            for part in self._looks:
                assert part.grad is not None
                part.grad[self._size :] = 0  # the other heads'
            optimiser.step()
            apart += max(0.05, 1 / (1 + step)) * (float(lost.detach()) - apart)
        return apart

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
        angle = torch.arange(x.shape[1])[:, None] * self._turn(torch.arange(size // 2))
        cos, sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)
        q, k = (y * cos + torch.cat((-y[..., size // 2 :], y[..., : size // 2]), -1) * sin for y in (q, k))
        return [
            (k[one.row, : one.place + 1] @ q[one.row, one.place] / size**0.5).log_softmax(0) for one in asked
        ]


def _linear(module: nn.Module) -> nn.Linear:
    assert isinstance(module, nn.Linear)
    return module


def _told_apart(audio: Tensor, tokens: Tensor) -> Tensor:
    """A direction [hidden] along which audio rows lie at one, all alike, and no token far above zero.

    Least squares, in which a token below zero is as good as one at zero, and one above it counts ever more.
    """
    rows = torch.cat([audio, tokens]).double()
    counts = torch.cat(
        [torch.full((len(audio),), ALIKE * len(tokens) / len(audio)), torch.ones(len(tokens))]
    ).double()
    wanted = torch.cat([torch.ones(len(audio)), torch.zeros(len(tokens))]).double()
    direction = torch.zeros(HIDDEN, dtype=torch.float64)
    for _ in range(60):
        weighed = counts[:, None] * rows
        direction = torch.linalg.solve(rows.T @ weighed + torch.eye(HIDDEN), weighed.T @ wanted)
        lies = tokens.double() @ direction
        wanted[len(audio) :] = lies.clamp(max=0.0)
        counts[len(audio) :] *= torch.where(lies > TOLERATED, GROWING, 1.0)
    return direction.float()
