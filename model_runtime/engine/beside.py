"""A second thread for token2wav: speech is rendered beside the language model's own work.

The two halves of the model share nothing that changes, and each keeps one core busy. So while one call's
codes become sound, the other calls' are being written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from model_runtime.engine.kit import Kit
from model_runtime.engine.ops import Vocode


class Beside:
    """Renders one batch of chunks at a time. ``busy`` until the sound of the last one has been fetched."""

    def __init__(self, kit: Kit) -> None:
        """``kit``'s token2wav is used by this thread alone from now on."""
        self.busy = False
        self._kit = kit
        self._threads = torch.get_num_threads()  # torch counts them for each thread that calls it
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="token2wav")

    def begin(self, chunks: Sequence[Vocode], done: Callable[[list[Future[Any]]], None]) -> None:
        """Start on ``chunks``; ``done`` is called, on the thread, with each one's sound or its fault."""
        self.busy = True
        self._pool.submit(lambda: done(self._render(chunks)))

    def stop(self) -> None:
        """End the thread, after what it is doing."""
        self._pool.shutdown()

    def _render(self, chunks: Sequence[Vocode]) -> list[Future[Any]]:
        torch.set_num_threads(self._threads)
        sounds: list[Future[Any]] = [Future() for _ in chunks]
        with torch.inference_mode():
            if len(chunks) > 1:
                try:
                    for sound, audio in zip(sounds, self._kit.vocode_each(chunks), strict=True):
                        sound.set_result(audio)
                    return sounds
                except ValueError:
                    pass  # one of them is wrong, and none has changed: each alone
                except BaseException as fault:
                    for sound in sounds:
                        sound.set_exception(fault)
                    return sounds
            for sound, chunk in zip(sounds, chunks, strict=True):
                try:
                    sound.set_result(self._kit.execute(chunk))
                except BaseException as fault:  # it is for the thread of the sessions to make something of it
                    sound.set_exception(fault)
        return sounds
