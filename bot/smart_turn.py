"""Smart Turn v3.2 (BSD-2, in pipecat's wheel): whether a turn is over, by its sound, in 23 languages.

An answer takes 50 to 115 ms of a core, too much for every pause of many calls at once. So one thread does it,
for one call at a time, and rests after it: who asks meanwhile is told nothing, and silence decides.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from pipecat.audio.turn.smart_turn.local_smart_turn_v3 import LocalSmartTurnAnalyzerV3

REST = 1.0  # times as long as an answer took: so it never takes more than half a core


class SmartTurn:
    """The loaded model, for all calls of a process; see ``turn_end_judges``."""

    def __init__(self) -> None:
        """Load it."""
        self._model = LocalSmartTurnAnalyzerV3(cpu_count=1)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="smart-turn")
        self._asked: Future[float] | None = None
        self._rests_until = 0.0

    async def __call__(self, pcm: bytes) -> float | None:
        """The likelihood, 0 to 1; ``None`` while it is busy or rests. Of ``pcm`` the last 8 s are heard."""
        busy = self._asked is not None and not self._asked.done()
        if busy or time.monotonic() < self._rests_until:
            return None
        self._asked = self._pool.submit(self._likelihood, pcm)
        return await asyncio.wrap_future(self._asked)

    def _likelihood(self, pcm: bytes) -> float:
        begun = time.monotonic()
        wave = np.frombuffer(pcm, np.int16).astype(np.float32) / 32768
        # pipecat's own way in keeps one call's audio and speech state; this is what it asks in the end.
        told = self._model._predict_endpoint(wave)
        now = time.monotonic()
        self._rests_until = now + REST * (now - begun)
        return float(told["probability"])
