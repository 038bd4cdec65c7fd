"""Can this recording become a voice? Whatever is wrong with a prompt is heard in every word spoken after it.

Pure functions over float32 arrays in [-1, 1]. Each refusal is one sentence that says what to do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr
import webrtcvad
from numpy.typing import NDArray

from model_runtime.errors import VoiceError

Sound = NDArray[np.float32]

SHORTEST, LONGEST = 3.0, 15.0  # s; less tells too little of a voice, more makes every reply's context dearer
LOWEST_RATE = 8000  # Hz, the telephone's
QUIETEST = -50.0  # dBFS of loud frames; below it 16 bits leave little but their own noise
NOISIEST = 15.0  # dB from noise to speech; a room with a fan has 20 or more
CLIPPED = 5e-4  # share of samples in flat tops: 40 of 5 s at 16 kHz
LEAST_SPEECH = 0.4  # share of the recording
MARGIN = 0.15  # s kept around the speech
LEVEL, PEAK = -22.0, 0.95  # dBFS of the loud frames and full-scale peak that a voice is brought to

_VAD_RATE, _FRAME_S = 16_000, 0.02
_VAD_MODE = 2  # webrtcvad's 0 to 3
_FLAT = 4  # samples in a row at the very top: speech that is not cut off has hardly two
_DIGITAL_SILENCE = -85.0  # dBFS: padding, which says nothing of the room


@dataclass(frozen=True)
class Fit:
    """A recording that can become a voice: mono, brought to level, without the silence around it."""

    sound: Sound  # float32 [n]
    rate: int  # Hz
    level_db: float  # of the recording as it was
    noise_db: float  # from noise to speech
    speech: float  # share


def fit(recording: Sound, rate: int, name: str = "recording") -> Fit:
    """Check a recording, float32 [channels, n] at ``rate`` Hz, and prepare it; VoiceError says what is wrong.

    ``name`` is the file's, for the advice how to cut it.
    """
    if rate < LOWEST_RATE:
        raise VoiceError(f"the recording has {rate} samples a second: record again with 16000 or more")
    seconds = recording.shape[1] / rate
    if seconds > LONGEST:
        raise VoiceError(
            f"the recording lasts {seconds:.0f} s, and a voice takes {SHORTEST:g} to {LONGEST:g} s: cut out "
            f"its best part, as with: ffmpeg -ss 0 -t 12 -i {name} part.wav"
        )
    if seconds < SHORTEST:
        raise VoiceError(
            f"the recording lasts {seconds:.1f} s, and a voice takes {SHORTEST:g} to {LONGEST:g} s: "
            "record a sentence or two"
        )
    if not np.isfinite(recording).all():
        raise VoiceError("the recording holds samples that are not numbers: export it again")
    mono = recording.mean(0)
    levels = frame_levels(mono, rate)
    loud = float(np.percentile(levels, 90))
    if loud < QUIETEST:
        raise VoiceError(
            f"the recording is too quiet ({max(loud, -99):.0f} dBFS, and {QUIETEST:.0f} are needed): "
            "record again, nearer to the microphone"
        )
    cut = max(clipped(channel) for channel in recording)
    if cut > CLIPPED:
        raise VoiceError(
            f"the recording is clipped ({100 * cut:.2g} % of it is cut off at the top): "
            "record again with less gain"
        )
    noise = speech_to_noise(levels)
    if noise < NOISIEST:
        raise VoiceError(
            f"the recording is too noisy (speech is {noise:.0f} dB above the noise, and {NOISIEST:.0f} are "
            "needed): record again in a quiet room"
        )
    gain = min(10 ** ((LEVEL - loud) / 20), PEAK / float(np.abs(mono).max()))
    mono = (mono * gain).astype(np.float32)
    voiced = voiced_frames(mono, rate)
    share = float(voiced.mean())
    if share < LEAST_SPEECH:
        raise VoiceError(
            f"only {100 * share:.0f} % of the recording sounds like speech, and {100 * LEAST_SPEECH:.0f} are "
            "needed: cut out music and pauses"
        )
    at = np.flatnonzero(voiced)
    begin = max(0, round((at[0] * _FRAME_S - MARGIN) * rate))
    end = round(((at[-1] + 1) * _FRAME_S + MARGIN) * rate)
    if len(mono[begin:end]) < SHORTEST * rate:
        raise VoiceError(
            f"the recording holds {len(mono[begin:end]) / rate:.1f} s of speech, and {SHORTEST:g} are "
            "needed: record a sentence or two"
        )
    return Fit(mono[begin:end].copy(), rate, loud, noise, share)


def frame_levels(mono: Sound, rate: int) -> NDArray[np.float64]:
    """Level in dBFS (RMS) of every whole 20 ms."""
    size = round(rate * _FRAME_S)
    frames = mono[: len(mono) // size * size].reshape(-1, size).astype(np.float64)
    return np.asarray(10 * np.log10(np.square(frames).mean(1) + 1e-12))


def speech_to_noise(levels: NDArray[np.float64]) -> float:
    """How far, in dB, the loud frames are above the quietest: between any two words there is only the room.

    Digital silence around or within a recording is not counted: it is the recorder's, not the room's.
    """
    room = levels[levels > _DIGITAL_SILENCE]
    return float(np.percentile(room, 90) - np.percentile(room, 5)) if len(room) else 0.0


def clipped(channel: Sound) -> float:
    """The share of samples in flat tops: four or more in a row within two 16-bit steps of the highest.

    Seen also in what was turned down after it was cut off. Lossy formats round the tops: there only what goes
    over full scale shows.
    """
    heights = np.abs(np.clip(channel, -1, 1))
    top = heights >= heights.max() - 2 / 32768
    edges = np.flatnonzero(np.diff(np.concatenate(([0], top.astype(np.int8), [0]))))
    lengths = edges[1::2] - edges[0::2]
    return float(lengths[lengths >= _FLAT].sum() / len(channel))


def voiced_frames(mono: Sound, rate: int) -> NDArray[np.bool_]:
    """Which 20 ms are speech, in webrtcvad's opinion: [n]."""
    wav = mono if rate == _VAD_RATE else soxr.resample(mono, rate, _VAD_RATE)
    pcm = (np.clip(wav, -1, 1) * 32767).astype("<i2")
    size = round(_VAD_RATE * _FRAME_S)
    vad = webrtcvad.Vad(_VAD_MODE)
    return np.array(
        [
            vad.is_speech(pcm[at : at + size].tobytes(), _VAD_RATE)
            for at in range(0, len(pcm) - size + 1, size)
        ]
    )
