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
from model_runtime.speaking.token2wav import CodesRefused
from model_runtime.speaking.voice import Voice


def own_stream(device: torch.device, *, urgent: bool = False) -> None:
    """From now on what the calling thread has a GPU do is done beside what other threads have it do.

    One stream for all would put a decode step of 4 ms behind a pass of speech of 30. ``urgent`` goes first.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # what was loaded on another stream is there
        torch.cuda.set_stream(torch.cuda.Stream(device, priority=-1 if urgent else 0))


class Beside:
    """Renders one batch of chunks at a time. ``busy`` until the sound of the last one has been fetched."""

    def __init__(self, kit: Kit) -> None:
        """From now on speech is rendered by this thread alone."""
        self.busy = False
        self._kit = kit
        threads = torch.get_num_threads()  # torch counts them for each thread that calls it

        def begin() -> None:
            torch.set_num_threads(threads)
            own_stream(kit.model.device)

        self._pool = ThreadPoolExecutor(1, thread_name_prefix="token2wav", initializer=begin)

    def begin(self, chunks: Sequence[Vocode], done: Callable[[list[Future[Any]]], None]) -> None:
        """Start on ``chunks``; ``done`` is called, on the thread, with each one's sound or its fault."""
        self.busy = True
        self._pool.submit(self._run, chunks, done)

    def expect(self, voice: Voice) -> None:
        """Take in the prompt of ``voice``, unless that is done, so that its first chunk need not wait."""
        self._pool.submit(self._take_in, voice)

    def stop(self) -> None:
        """End the thread, after what it is doing."""
        self._pool.shutdown()

    def _take_in(self, voice: Voice) -> None:
        with torch.inference_mode():
            # A fault in it comes again, and is told, at the first chunk.
            self._kit.model.token2wav.warm(voice)

    def _run(self, chunks: Sequence[Vocode], done: Callable[[list[Future[Any]]], None]) -> None:
        sounds: list[Future[Any]] = [Future() for _ in chunks]
        try:
            with torch.inference_mode(), self._kit.measures.rendering(chunks):
                self._render(chunks, sounds)
        except BaseException as fault:  # the thread of the sessions has to learn of it, whatever it is
            for sound in sounds:
                if not sound.done():
                    sound.set_exception(fault)
        done(sounds)

    def _render(self, chunks: Sequence[Vocode], sounds: Sequence[Future[Any]]) -> None:
        if len(chunks) > 1:
            try:
                together = self._kit.vocode_each(chunks)
            except CodesRefused:
                pass  # one of them is wrong, and none has changed: each alone
            else:
                for sound, audio in zip(sounds, together, strict=True):
                    sound.set_result(audio)
                return
        for sound, chunk in zip(sounds, chunks, strict=True):
            try:
                sound.set_result(self._kit.execute(chunk))
            except Exception as fault:  # this one's alone
                sound.set_exception(fault)
