"""What an attention layer of the flow remembers of a stream's past, and what it may forget.

The prompt's keys and values are computed once a voice and shared by all of its streams; a stream owns only
what came after. Nothing is ever written in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of one layer, each float [B, H, L, D]."""


def length(past: Sequence[KeyValue]) -> int:
    """How many positions these pieces hold together."""
    return sum(keys.shape[2] for keys, _ in past)


def join(pieces: Sequence[KeyValue]) -> KeyValue:
    """The pieces as one, in the order given."""
    if len(pieces) == 1:
        return pieces[0]
    return torch.cat([k for k, _ in pieces], 2), torch.cat([v for _, v in pieces], 2)


@dataclass(frozen=True)
class Recent:
    """Remember the last `tail` positions of the reply (beside the whole prompt, which is kept apart).

    Relative positions close up over what was forgotten: the prompt seems nearer than it is. So neither cost
    nor the table of positions grows with the reply.
    """

    tail: int

    def grow(self, own: KeyValue | None, new: KeyValue) -> KeyValue:
        """What a layer remembers after a chunk whose keys and values are `new`."""
        keys, values = new if own is None else join([own, new])
        extra = keys.shape[2] - self.tail
        if extra > 0:  # cloned: a view would keep the forgotten part alive
            keys, values = keys[:, :, extra:].clone(), values[:, :, extra:].clone()
        return keys, values


@dataclass(frozen=True)
class ReferenceOrder:
    """The reference implementation's rule for the estimator: newest first, then cut out of the middle.

    New keys are put before the cached ones; beyond prompt + 100 positions the first `prompt` (the most recent
    frames) and the last 100 (which begin as the prompt's end) are kept. The prompt's head is forgotten first.
    """

    prompt: int
    tail: int

    def grow(self, own: KeyValue | None, new: KeyValue) -> KeyValue:
        """What a layer remembers after a chunk whose keys and values are `new`."""
        if own is None:
            return new

        def cut(x: Tensor) -> Tensor:
            if x.shape[2] <= self.prompt + self.tail:
                return x
            return torch.cat([x[:, :, : self.prompt], x[:, :, x.shape[2] - self.tail :]], 2)

        keys, values = join([new, own])
        return cut(keys), cut(values)


@dataclass(frozen=True)
class Everything:
    """The reference implementation's rule for the encoder: forget nothing. Cost grows with the reply."""

    def grow(self, own: KeyValue | None, new: KeyValue) -> KeyValue:
        """What a layer remembers after a chunk whose keys and values are `new`."""
        return new if own is None else join([own, new])


Rule = Recent | ReferenceOrder | Everything
