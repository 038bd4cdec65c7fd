"""Recordings to make voices of: spoken by espeak-ng, and made up."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Sound = NDArray[np.float32]

RATE = 16_000
TEXT = "The tents are in the second hall. Please come in and have a look at our boots before you leave."


def espeak(path: Path, voice: str = "en-us+f3", text: str = TEXT) -> Path:
    """Five seconds of speech as a WAV file."""
    subprocess.run(["espeak-ng", "-v", voice, "-w", str(path), text], check=True, timeout=60)
    return path


def buzz(pitch: float, syllables: float = 4.0, seconds: float = 4.0, dark: float = 1.0) -> Sound:
    """Something like a voice: harmonics of ``pitch`` under a formant, swelling so many times a second.

    Above 1 kHz harmonics fall by the power ``dark``.
    """
    t = np.arange(round(seconds * RATE)) / RATE
    hertz = pitch * np.arange(1, int(7000 / pitch))
    heights = 1 / (1 + (hertz / 1000) ** (1 + dark))
    phase = 2 * np.pi * np.outer(hertz, t) + np.random.default_rng(0).uniform(0, 6, (len(hertz), 1))
    swell = np.square(np.sin(np.pi * syllables * t)) + 0.001
    wave = (heights[:, None] * np.sin(phase)).sum(0) * swell
    return np.asarray(0.3 * wave / np.abs(wave).max(), np.float32)


def hiss(seconds: float, level: float = 0.1) -> Sound:
    """White noise."""
    return (level * np.random.default_rng(1).standard_normal(round(seconds * RATE))).astype(np.float32)
