"""The vocoder in a stream: mel chunks in, audio out, joined without a click.

Each window is: frames already played (context), frames held back from the chunk before, new frames. What was
held back is made again with the frames that follow it in sight, and the two versions are cross-faded. The
harmonic source continues: its phase, and the noise under frames that are made twice, are carried from window
to window, so that the two versions differ only by what the new frames teach, and fade without beating.

The reference implementation instead starts every window's source anew and pastes the old source over its
head; `Schedule.like_reference` asks for that.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from model_runtime.speaking.schedule import Schedule
from model_runtime.speaking.vocoder import HOP, HiFT


class SourceNoise(Protocol):
    """Where the source's noise comes from."""

    def source(self, samples: int) -> Tensor | None:
        """Standard normal [1, samples, 9], or None for none."""
        ...


def fade_in(samples: int, shape: Literal["hann", "hamming"]) -> Tensor:
    """Gain of the entering signal, float32 [samples], rising; the leaving one's gain is the same reversed.

    Hann sums to one with its reverse at every sample. Hamming, the reference's, sums to up to 1.08.
    """
    if shape == "hamming":
        return torch.from_numpy(np.hamming(2 * samples)[:samples].astype(np.float32))
    return torch.sin((torch.arange(samples) + 0.5) * (torch.pi / 2 / max(1, samples))).square()


@dataclass(frozen=True)
class _Window:
    """What is kept of a window: `context` frames already played, then `held` frames held back."""

    context: int
    held: int
    mel: Tensor  # [1, 80, context + held]
    source: Tensor  # [1, 480 (context + held)]
    audio: Tensor  # [480 held]
    noise: Tensor | None  # [1, 480 held, 9]
    phase: Tensor | None  # [1, 9] in the middle of the last context frame, None at the very beginning


class VocoderStream:
    """One reply's vocoder: all of its state is here, the model is only read."""

    def __init__(self, hift: HiFT, schedule: Schedule, noise: SourceNoise) -> None:
        """A stream that has said nothing yet."""
        self._hift = hift
        self._schedule = schedule
        self._noise = noise
        self._kept: _Window | None = None
        self._index = 0

    def push(self, mel: Tensor, last: bool = False) -> Tensor:
        """Mel [1, t, 80] to the audio that may be played now, float32 [n] at 24 kHz; `last` gives all."""
        return render([self], [mel], last)[0]

    def shape(self, frames: int, last: bool) -> Hashable:
        """Streams in which this is equal can be rendered together; `frames` come."""
        kept = self._kept
        window = None if kept is None else (kept.context, kept.held, kept.noise is None, kept.phase is None)
        return id(self._hift), self._schedule, frames, last, window

    def _noise_for(self, frames: int, device: torch.device) -> Tensor | None:
        """The source's noise under what was held back and the new frames, [1, n, 9]."""
        noise = self._noise.source(frames * HOP)
        if noise is None:
            return None
        noise = noise.to(device)
        return (
            noise
            if self._kept is None or self._kept.noise is None
            else torch.cat([self._kept.noise, noise], 1)
        )

    def _advance(
        self, window: Tensor, source: Tensor, audio: Tensor, noise: Tensor | None, f0: Tensor, last: bool
    ) -> Tensor:
        """What may be played of a rendered window; the rest is kept.

        `window` [1, 80, w], `source` [1, 480 w], `audio` [480 (w - context)], `f0` [1, w - context].
        """
        kept, hift = self._kept, self._hift
        context, held = (kept.context, kept.held) if kept is not None else (0, 0)
        new = window.shape[2] - context - held
        if kept is not None and held:
            gain = fade_in(held * HOP, self._schedule.fade).to(audio.device)
            head = audio[: held * HOP] * gain + kept.audio * gain.flip(0)
            audio = torch.cat([head, audio[held * HOP :]])
        if last:
            self._kept = None
            return audio
        # Half of a chunk is played at least, so that the smallest chunks bring audio too.
        hold = min(self._schedule.hold(self._index), max(1, new // 2))
        self._index += 1
        played = held + new - hold  # frames of this window that are now played
        see = min(self._schedule.context_frames, context + played)
        phase = before = None if kept is None else kept.phase
        if played and not self._schedule.like_reference:
            # Whole turns are dropped so that a long reply's phase keeps its precision.
            phase = hift.phase(f0, before)[:, played - 1] % (1 / HOP)
        start = window.shape[2] - hold - see
        self._kept = _Window(
            see,
            hold,
            window[:, :, start:],
            source[:, start * HOP :],
            audio[played * HOP :],
            None if noise is None or not hold else noise[:, -hold * HOP :],
            phase,
        )
        return audio[: played * HOP]

    def flush(self) -> Tensor:
        """End without another chunk: what was held back, float32 [n]."""
        kept, self._kept = self._kept, None
        return torch.zeros(0) if kept is None else kept.audio


@torch.inference_mode()
def render(streams: Sequence[VocoderStream], mels: Sequence[Tensor], last: bool = False) -> list[Tensor]:
    """The next mel [1, t, 80] of each stream in one pass; see `VocoderStream.push` for what each gives.

    Their `shape` must be the same. Rounding apart, each gets what it would get alone.
    """
    hift, like_reference = streams[0]._hift, streams[0]._schedule.like_reference
    kept = [window for stream in streams if (window := stream._kept) is not None]
    context, held = (kept[0].context, kept[0].held) if kept else (0, 0)
    windows = torch.cat(list(mels)).transpose(1, 2)
    frames = windows.shape[2]
    if kept:
        windows = torch.cat([torch.cat([one.mel for one in kept]), windows], 2)
    noises = [stream._noise_for(frames, windows.device) for stream in streams]
    noise = torch.cat([one for one in noises if one is not None]) if noises[0] is not None else None
    before = (
        torch.cat([one.phase for one in kept if one.phase is not None])
        if kept and kept[0].phase is not None
        else None
    )
    f0 = hift.f0(windows)[:, context:]
    sources = hift.source(f0, noise, before, not last and not like_reference)
    if kept:
        past = torch.cat([one.source for one in kept])
        if like_reference:
            sources = torch.cat([past, sources[:, held * HOP :]], 1)
        else:
            sources = torch.cat([past[:, : context * HOP], sources], 1)
    audio = hift.decode(windows, sources)[:, context * HOP :]
    return [
        stream._advance(
            windows[at : at + 1], sources[at : at + 1], audio[at], noises[at], f0[at : at + 1], last
        )
        for at, stream in enumerate(streams)
    ]
