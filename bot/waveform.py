"""Reading recordings of calls: where sound begins and ends, how long an answer took, where it broke off.

Pure functions over mono float32 arrays in [-1, 1]. Times are samples of the recording's one clock.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.float32]

LOUD = (
    0.02  # of full scale, -34 dB: above codec noise and a vocoder's breath, below any speech at a usual level
)
DEAD = 1.5 / 32768  # of full scale: digital silence, sent for want of speech; no vocoder is so quiet


def first_loud(pcm: Pcm, start: int = 0, end: int | None = None, loud: float = LOUD) -> int | None:
    """The first sample in [start, end) that is louder than ``loud``."""
    found = np.flatnonzero(np.abs(pcm[max(0, start) : end]) > loud)
    return max(0, start) + int(found[0]) if len(found) else None


def last_loud(pcm: Pcm, start: int = 0, end: int | None = None, loud: float = LOUD) -> int | None:
    """The last sample in [start, end) that is louder than ``loud``."""
    found = np.flatnonzero(np.abs(pcm[max(0, start) : end]) > loud)
    return max(0, start) + int(found[-1]) if len(found) else None


def spoken(pcm: Pcm, rate: int, start: int = 0, end: int | None = None) -> tuple[int, int] | None:
    """From the first sample of speech in [start, end) to after its last; None if there is none.

    A sound of under 30 ms, 100 ms away from any other, is a click (speech synthesisers end in one).
    """
    block, near, least = rate // 100, 10, 3
    piece = np.abs(pcm[max(0, start) : end])
    loud = np.flatnonzero(
        np.pad(piece, (0, -len(piece) % block)).reshape(-1, block).max(axis=1, initial=0) > LOUD
    )
    stretches = np.split(loud, np.flatnonzero(np.diff(loud) > near) + 1)
    speech = [(int(found[0]), int(found[-1]) + 1) for found in stretches if len(found) >= least]
    if not speech:
        return None
    begin, stop = max(0, start) + speech[0][0] * block, max(0, start) + speech[-1][1] * block
    first, last = first_loud(pcm, begin, stop), last_loud(pcm, begin, stop)
    return None if first is None or last is None else (first, last + 1)


def delay_ms(caller: Pcm, bot: Pcm, rate: int, start: int, end: int, answer_end: int) -> float | None:
    """Voice-to-voice: from the caller's last sample of speech in [start, end) to the bot's first sound then.

    The bot's sound is looked for up to ``answer_end``. None if either is silent, or if the bot was sounding
    when the caller ended: then it cut in, and what came after is no measure of anything.
    """
    said = spoken(caller, rate, start, end)
    if said is None or first_loud(bot, said[1] - rate // 10, said[1]) is not None:
        return None
    answered = first_loud(bot, said[1], answer_end)
    return None if answered is None else (answered - said[1] + 1) * 1000 / rate


@dataclass(frozen=True)
class Gap:
    """A hole in the bot's speech: [start, end) in samples."""

    start: int
    end: int

    def ms(self, rate: int) -> float:
        """How long it is."""
        return (self.end - self.start) * 1000 / rate


def dropouts(pcm: Pcm, rate: int, start: int, end: int, least_ms: float = 20.0) -> list[Gap]:
    """Dead stretches of ``least_ms`` or more within an answer, [start, end), that cut into sound.

    Speech has pauses, too; but a vocoder breathes through them. A dropout is digital silence with sound close
    by on both sides, as when a sender had nothing to send in time. Resampler and Opus let a cut ring, 20 ms.
    """
    begun, ended = first_loud(pcm, start, end), last_loud(pcm, start, end)
    if begun is None or ended is None:
        return []
    dead = np.abs(pcm[begun : ended + 1]) < DEAD
    edges = np.flatnonzero(np.diff(np.concatenate(([0], dead.astype(np.int8), [0]))))
    edge = rate * 30 // 1000
    gaps = []
    for left, right in zip(edges[0::2] + begun, edges[1::2] + begun, strict=True):
        if right - left < least_ms * rate / 1000:
            continue
        before, after = pcm[max(begun, left - edge) : left], pcm[right : right + edge]
        if min(np.abs(before).max(initial=0), np.abs(after).max(initial=0)) > LOUD:
            gaps.append(Gap(int(left), int(right)))
    return gaps


def underruns(
    arrived: NDArray[np.float64], timestamps: NDArray[np.float64], buffer_ms: float = 60.0
) -> list[float]:
    """The pauses in ms that late packets make for a listener who at first holds ``buffer_ms`` back.

    ``arrived`` and ``timestamps`` (the sender's media clock) are in seconds, one entry a packet, in the
    sender's order. As players do, this one waits for a late packet and then goes on later by so much: what
    comes as late after it is in time.
    """
    pauses: list[float] = []
    if not len(arrived):
        return pauses
    transit = (arrived - timestamps) * 1000
    delay = float(transit.min()) + buffer_ms
    for late in transit - delay:
        waited = sum(pauses)
        if late > waited + 1:  # under 1 ms nobody hears
            pauses.append(float(late - waited))
    return pauses


def write_wav(path: Path, channels: list[Pcm], rate: int) -> None:
    """Write ``channels`` (padded to the longest) as 16-bit PCM."""
    length = max((len(channel) for channel in channels), default=0)
    padded = [np.pad(channel, (0, length - len(channel))) for channel in channels]
    samples = (np.clip(np.stack(padded, axis=1), -1, 1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as out:
        out.setnchannels(len(channels))
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.tobytes())
