"""Where an engine's sessions keep their pasts, and how one more row is read into several of them.

Every session has a slot of the static KV cache, for as long as it is open and has something to remember. On a
GPU what is generated beside the conversation, as a transcript is, has a short slot: it would cost a step of
its own elsewhere, one that is launched kernel by kernel. What is too long for that has memory of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from weakref import WeakSet

import torch
from torch import Tensor

from model_runtime.model import SpeechModel
from model_runtime.thinking.decode_step import DecodeStep
from model_runtime.thinking.kv_cache import KVCache, Slot, Slots

ASIDE = 1024  # tokens: 25 s of speech are 313, and the task and its answer come to as many


class Memory:
    """For ``sessions`` of at most ``tokens``. ``fixed``: steps go through `DecodeStep`."""

    def __init__(self, model: SpeechModel, sessions: int, tokens: int, fixed: bool) -> None:
        """Held from now on."""
        self._model = model
        self._slots = model.backbone.new_slots(sessions, tokens)
        self._aside = model.backbone.new_slots(sessions, min(ASIDE, tokens)) if fixed else None
        self._steps: dict[Slots, DecodeStep] = {}
        self._lent: WeakSet[KVCache] = WeakSet()
        if self._aside is not None:
            self._steps = {slots: DecodeStep(model.backbone, slots) for slots in (self._slots, self._aside)}

    @property
    def nbytes(self) -> int:
        """Of all slots."""
        return self._slots.store.nbytes + (0 if self._aside is None else self._aside.store.nbytes)

    @property
    def used(self) -> int:
        """Bytes that pasts take now: all slots, but on a CPU only what is in them, since the system lends
        memory there as it is written.
        """
        lent = list(self._lent)
        if self._model.device.type == "cpu":
            return self._model.backbone.past_shape.token_bytes * sum(cache.length for cache in lent)
        return self.nbytes + sum(cache.nbytes for cache in lent if not isinstance(cache, Slot))

    @property
    def free(self) -> int:
        """Slots for sessions that are free."""
        return self._slots.free

    def session(self) -> KVCache:
        """The past of one more session. Raises RuntimeError if more are open than were spoken of."""
        return self._lend(self._slots.take())

    def aside(self, tokens: int) -> KVCache:
        """A past of that many tokens for a generation beside the conversation."""
        short = self._aside
        fits = short is not None and tokens <= short.max_tokens and short.free
        return self._lend(short.take() if short is not None and fits else self._model.new_cache(tokens))

    def _lend(self, cache: KVCache) -> KVCache:
        self._lent.add(cache)
        return cache

    def read_each(self, caches: Sequence[KVCache], ids: Sequence[int]) -> Tensor:
        """One id into each: their last hidden states [B, hidden], good until the next time.

        When it raises, some may have moved on.
        """
        together: defaultdict[DecodeStep | None, list[int]] = defaultdict(list)
        for at, cache in enumerate(caches):
            together[self._steps.get(cache.slots) if isinstance(cache, Slot) else None].append(at)
        parts = []
        for step, places in together.items():
            own = [ids[at] for at in places]
            if step is None:
                parts.append(self._model.step_each([caches[at] for at in places], own))
            else:
                parts.append(step([slot for at in places if isinstance(slot := caches[at], Slot)], own))
        if len(parts) == 1:
            return parts[0]
        order = torch.tensor([at for places in together.values() for at in places], device=parts[0].device)
        return torch.cat(parts)[order.argsort()]

    def warm_up(self, rows: int, tokens: int) -> None:
        """Record the steps of up to ``rows`` sessions with up to ``tokens`` behind them."""
        for step in self._steps.values():
            step.warm_up(rows, tokens)


def fitting(model: SpeechModel, sessions: int, wanted: int, free: int) -> int:
    """Tokens a session may hold, at most ``wanted``, so that all sessions' slots fit into ``free`` bytes."""
    token = model.backbone.past_shape.token_bytes
    aside = token * (sessions + 1) * ASIDE
    return max(0, min(wanted, (free - aside) // (token * (sessions + 1)) // 256 * 256))
