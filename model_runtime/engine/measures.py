"""How an engine's ``Figures`` are come by: a clock around each unit of work, and a look at what is held."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakSet

import torch
from torch import Tensor, nn

from model_runtime.engine.figures import KINDS, Figures, Kind, MemoryUse, Work
from model_runtime.engine.memory import Memory
from model_runtime.engine.ops import Decode, Hear, Op, Prefill, Vocode
from model_runtime.model import SpeechModel
from model_runtime.speaking.token2wav import Token2WavStream

STATM = Path("/proc/self/statm")  # pages; the second number is what is resident


class Measures:
    """One engine's. A unit of work costs it a few microseconds.

    On a GPU a unit lasts until its result is needed here, as that of decoding and of rendering is; what was
    only set going counts with the next unit that waits. Both threads use one GPU, so a unit of either may
    have waited for the other's.
    """

    def __init__(
        self, model: SpeechModel, pasts: Memory, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Nothing done yet. The weights are those that ``model`` has now; ``pasts`` are all sessions'."""
        self._model, self._pasts = model, pasts
        self._clock = clock
        self._lock = threading.Lock()
        self._work: dict[Kind, Work] = {kind: Work(times={}) for kind in KINDS}
        self._waited = 0.0
        self._waits_since: float | None = None
        self._streams: WeakSet[Token2WavStream] = WeakSet()
        token2wav, backbone = model.token2wav, model.backbone
        parts = (model.encoder, model.adaptor, backbone, token2wav.flow, token2wav.hift)
        self._weights = stored(value for part in parts for value in _held(part))
        self._body = stored(
            value for module in (backbone.model.layers, backbone.model.norm) for value in _held(module)
        )
        head = backbone.lm_head.weight
        self._row = head.shape[1] * head.itemsize
        self._token = backbone.past_shape.token_bytes

    # --- time ---

    @contextmanager
    def unit(self, ops: Sequence[Op | None]) -> Iterator[None]:
        """A unit of work on the thread of the sessions: one operation, or several of one kind as one."""
        kind = _kind(ops[0])
        read = self._read(ops) if kind == "decode" else 0
        begun = self._clock()
        try:
            yield
        finally:
            self._add(kind, begun, len(ops), read)

    @contextmanager
    def rendering(self, chunks: Sequence[Vocode]) -> Iterator[None]:
        """A unit of work on the thread of token2wav."""
        begun = self._clock()
        try:
            yield
        finally:
            self._add("vocode", begun, len(chunks))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The thread of the sessions has nothing to do."""
        self._waits_since = self._clock()
        try:
            yield
        finally:
            self._waited, self._waits_since = self._waited_by_now(), None

    def _waited_by_now(self) -> float:
        return self._waited + (0.0 if self._waits_since is None else self._clock() - self._waits_since)

    def _add(self, kind: Kind, begun: float, items: int, read: int = 0) -> None:
        seconds = self._clock() - begun
        with self._lock:
            self._work[kind].add(seconds, items, read)

    def _read(self, ops: Sequence[Op | None]) -> int:
        """Bytes that a step must read: the layers, the scored rows of the head, and each one's past."""
        steps = [op for op in ops if isinstance(op, Decode)]
        scored = {step.draw.rows for step in steps}
        vocabulary = self._model.backbone.config.vocab_size
        rows = vocabulary if None in scored else sum(stop - start for start, stop in filter(None, scored))
        pasts = sum(step.cache.length for step in steps)
        return self._body + self._row * min(rows, vocabulary) + self._token * pasts

    # --- memory ---

    def new_stream(self, stream: Token2WavStream) -> Token2WavStream:
        """``stream``, which is counted for as long as it lives."""
        self._streams.add(stream)
        return stream

    def told(self) -> Figures:
        """The figures now. For the thread of the sessions, whose caches are looked at."""
        with self._lock:
            work = {kind: one.since(Work()) for kind, one in self._work.items()}
        return Figures(
            str(self._model.device),
            str(self._model.dtype).removeprefix("torch."),
            self._waited_by_now(),
            work,
            self._memory(),
        )

    def _memory(self) -> MemoryUse:
        pasts = self._pasts.used
        flow = self._model.token2wav.nbytes + sum(stream.nbytes for stream in list(self._streams))
        known = self._weights + pasts + flow
        return MemoryUse(self._weights, pasts, flow, max(0, _used(self._model.device) - known))


def stored(tensors: Iterable[Tensor]) -> int:
    """Bytes of the memory that these lie in; what several are views of is counted once."""
    stores = {store.data_ptr(): store.nbytes() for store in (tensor.untyped_storage() for tensor in tensors)}
    return sum(stores.values())


def _held(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _kind(op: Op | None) -> Kind:
    match op:
        case Hear():
            return "hear"
        case Prefill():
            return "prefill"
        case Decode():
            return "decode"
        case _:
            return "other"  # a job begins, or a chunk is handed over to be rendered


def _used(device: torch.device) -> int:
    """Bytes in use on a GPU, or by this process where it is the system's memory (0 where nobody says)."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return total - free
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
