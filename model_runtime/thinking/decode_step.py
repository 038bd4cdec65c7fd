"""One row for each of many slots in one pass, in few fixed shapes: recorded once, replayed ever after.

On a GPU a decode step is thousands of kernels that each take less time than their launch. A CUDA graph
launches them all at once, but replays them as they were: same shapes, same addresses. So the sessions of a
step are filled up to the next of a few numbers of rows, their pasts are looked at up to the next of a few
lengths, and which slots they are is data.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from model_runtime.thinking.backbone import Backbone
from model_runtime.thinking.kv_cache import Slot, Slots
from model_runtime.thinking.pasts import SlotPasts

log = logging.getLogger(__name__)

SHORTEST = 256  # tokens looked at; then 512, 1024, ... up to what a slot holds


def bucket(wanted: int, smallest: int, largest: int) -> int:
    """The first of ``smallest``, its double, ... that is not below ``wanted``; never above ``largest``."""
    size = smallest
    while size < wanted:
        size *= 2
    return min(size, largest)


class DecodeStep:
    """``slots`` of one engine, stepped together. One thread's; on a GPU that of the stream it is used on."""

    def __init__(self, backbone: Backbone, slots: Slots) -> None:
        """Nothing recorded yet."""
        self._backbone, self._slots = backbone, slots
        weight = backbone.lm_head.weight
        self._cos, self._sin = backbone.positions(0, slots.max_tokens, weight)  # held: graphs read them here
        # Each column a row of the step: its id, its slot, its position.
        self._inputs = torch.zeros(3, slots.count, dtype=torch.long, device=weight.device)
        self._recorded: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._pool: Any = None  # one for all graphs; of a type that torch does not name

    @torch.inference_mode()
    def __call__(self, slots: Sequence[Slot], ids: Sequence[int]) -> Tensor:
        """Read one id into each slot: its last hidden states [n, hidden], good until the next step.

        Raises ``ContextFull``, and leaves every slot as it was, when one has no room.
        """
        for slot in slots:
            slot.reserve(slot.length + 1)
        rows = bucket(len(slots), 1, self._slots.count)
        span = bucket(1 + max(slot.length for slot in slots), SHORTEST, self._slots.max_tokens)
        spare = [0] * (rows - len(slots))
        columns = [
            [*ids, *spare],
            [*(slot.index for slot in slots), *(self._slots.count for _ in spare)],
            [*(slot.length for slot in slots), *spare],
        ]
        hidden = self._run(rows, span, torch.tensor(columns))
        for slot in slots:
            slot.length += 1
        return hidden[: len(slots)]

    def warm_up(self, rows: int, tokens: int) -> None:
        """Record every shape of up to ``rows`` sessions that have up to ``tokens`` behind them."""
        begun = time.monotonic()
        rows, tokens = min(rows, self._slots.count), min(tokens, self._slots.max_tokens)
        sizes = {bucket(wanted, 1, self._slots.count) for wanted in range(1, rows + 1)}
        spans = {bucket(wanted, SHORTEST, self._slots.max_tokens) for wanted in range(1, tokens + 1)}
        for size in sorted(sizes, reverse=True):  # the largest first: the others fit into its memory
            for span in sorted(spans, reverse=True):
                self._run(size, span, self._nobody(size))
        log.info("decode steps of %d shapes in %.1f s", len(sizes) * len(spans), time.monotonic() - begun)

    def _nobody(self, rows: int) -> Tensor:
        """The inputs of a step that is nobody's."""
        return torch.tensor([[0] * rows, [self._slots.count] * rows, [0] * rows])

    def _run(self, rows: int, span: int, columns: Tensor) -> Tensor:
        if self._inputs.device.type != "cuda":
            self._inputs[:, :rows] = columns
            return self._through(rows, span)
        if (rows, span) not in self._recorded:
            self._inputs[:, :rows] = self._nobody(rows)
            self._recorded[rows, span] = self._record(rows, span)
        self._inputs[:, :rows] = columns
        graph, hidden = self._recorded[rows, span]
        graph.replay()
        return hidden

    def _record(self, rows: int, span: int) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """A step of that shape as a graph, and where it leaves its result."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._through(rows, span)  # libraries set themselves up on first use, which no graph may hold
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Speech is rendered on another thread meanwhile, and may ask for memory: that is none of the graph's.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            hidden = self._through(rows, span)
        self._pool = self._pool or graph.pool()
        return graph, hidden

    def _through(self, rows: int, span: int) -> Tensor:
        ids, index, position = self._inputs[:, :rows]
        cos, sin = (table[position][:, None, None] for table in (self._cos, self._sin))  # [B, 1, 1, head_dim]
        pasts = SlotPasts(self._slots, index, position, span)
        return self._backbone.through(self._backbone.embed(ids)[:, None], cos, sin, pasts)[:, 0]
