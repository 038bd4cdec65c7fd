"""Callers for the tests: questions spoken by festival, an engine that nano was never trained on."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soxr

from bot.waveform import Pcm, spoken

# festival's voices: ked is a speaker nano never heard; slt_hts is a parametric synthesis it never heard.
VOICES = ("ked_diphone", "cmu_us_slt_arctic_hts")


def say(text: str, voice: str, rate: int = 48_000) -> Pcm:
    """Speak ``text``: mono float32 in [-1, 1] at ``rate`` Hz, peak 0.5, nothing around the speech.

    In brackets are phones, ``[m m hh m m]``, for what no spelling gives; only the diphone voices take them.
    Festival ends in silence and, half a second after the words, in a click.
    """
    if text.startswith("["):
        said = _phones(text.strip("[]"), voice)
    else:
        command = ["text2wave", "-eval", f"(voice_{voice})"]
        said = subprocess.run(
            command, input=text.encode(), capture_output=True, check=True, timeout=60
        ).stdout
    # text2wave may write a RIFF header whose lengths are unknown; the data begins at byte 44 either way.
    engine_rate = int.from_bytes(said[24:28], "little")
    pcm = np.frombuffer(said[44 : 44 + (len(said) - 44) // 2 * 2], np.int16).astype(np.float32)
    resampled: Pcm = soxr.resample(pcm, engine_rate, rate).astype(np.float32)
    resampled *= np.float32(0.5 / np.abs(resampled).max())
    found = spoken(resampled, rate)
    if found is None:
        raise AssertionError(f"festival's {voice} said nothing for {text!r}")
    return resampled[found[0] : found[1]]


def _phones(phones: str, voice: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        wav, script = Path(folder) / "said.wav", Path(folder) / "say.scm"
        utterance = f"(utt.synth (Utterance Phones (pau {phones} pau)))"
        script.write_text(f'(voice_{voice}) (utt.save.wave {utterance} "{wav}")')
        _run(["festival", "-b", str(script)])
        return wav.read_bytes()


def _run(command: list[str], said: str = "") -> bytes:
    return subprocess.run(command, input=said.encode(), capture_output=True, check=True, timeout=60).stdout


def silence(seconds: float, rate: int = 48_000) -> Pcm:
    """Digital silence, mono float32 at ``rate`` Hz."""
    return np.zeros(round(seconds * rate), np.float32)
