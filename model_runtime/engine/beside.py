"""A second thread for token2wav: speech is rendered beside the language model's own work.

The two halves of the model share nothing that changes, and each keeps one core busy. So while one call's
codes become sound, the other calls' are being written.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from model_runtime.engine.ops import Op


class Beside:
    """Does one operation at a time. ``busy`` until the result of the last one has been fetched."""

    def __init__(self, execute: Callable[[Op], Any]) -> None:
        """``execute`` is called on the thread."""
        self.busy = False
        self._execute = execute
        self._threads = torch.get_num_threads()  # torch counts them for each thread that calls it
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="token2wav")

    def begin(self, op: Op, done: Callable[[Future[Any]], None]) -> None:
        """Start on ``op``; ``done`` is called on the thread, with its result or why there is none."""
        self.busy = True
        self._pool.submit(self._run, op).add_done_callback(done)

    def stop(self) -> None:
        """End the thread, after what it is doing."""
        self._pool.shutdown()

    def _run(self, op: Op) -> Any:
        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            return self._execute(op)
