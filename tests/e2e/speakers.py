"""Callers for the tests: questions spoken by festival, an engine that nano was never trained on."""

from __future__ import annotations

import subprocess

import numpy as np
import soxr

from bot.waveform import Pcm, spoken

# festival's voices: ked is a speaker nano never heard; slt_hts is a parametric synthesis it never heard.
VOICES = ("ked_diphone", "cmu_us_slt_arctic_hts")


def say(text: str, voice: str, rate: int = 48_000) -> Pcm:
    """Speak ``text``: mono float32 in [-1, 1] at ``rate`` Hz, peak 0.5, nothing around the speech.

    Festival ends in silence and, half a second after the words, in a click.
    """
    command = ["text2wave", "-eval", f"(voice_{voice})"]
    said = subprocess.run(command, input=text.encode(), capture_output=True, check=True, timeout=60).stdout
    # text2wave may write a RIFF header whose lengths are unknown; the data begins at byte 44 either way.
    engine_rate = int.from_bytes(said[24:28], "little")
    pcm = np.frombuffer(said[44 : 44 + (len(said) - 44) // 2 * 2], np.int16).astype(np.float32)
    resampled: Pcm = soxr.resample(pcm, engine_rate, rate).astype(np.float32)
    resampled *= np.float32(0.5 / np.abs(resampled).max())
    found = spoken(resampled, rate)
    if found is None:
        raise AssertionError(f"festival's {voice} said nothing for {text!r}")
    return resampled[found[0] : found[1]]


def silence(seconds: float, rate: int = 48_000) -> Pcm:
    """Digital silence, mono float32 at ``rate`` Hz."""
    return np.zeros(round(seconds * rate), np.float32)
