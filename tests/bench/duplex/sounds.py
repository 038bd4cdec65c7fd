"""What the callers of the scenes say, and what else is heard of them: mono float32 at 48 kHz.

Two sets of speech that have nothing in common: one for whoever tunes a threshold, one for the figures.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import soxr

from bot.headset import RATE
from bot.waveform import Pcm, spoken
from tests.e2e import speakers

QUIET_DB = -8.0  # of a back-channel below the caller's other speech


@dataclass(frozen=True)
class Speech:
    """Who says what. ``say(text, voice)``: peak 0.5, nothing around the speech."""

    voices: tuple[str, ...]
    say: Callable[[str, str], Pcm]
    questions: tuple[str, ...]
    turns: tuple[str, ...]  # whole ones, beside the questions
    halves: tuple[tuple[str, str], ...]  # of one turn, with a pause between them
    back_channels: tuple[str, ...]
    commands: tuple[str, ...]
    few_words: tuple[str, ...]
    interruptions: tuple[str, ...]
    background: tuple[str, ...]  # somebody else in the room


@cache
def _festival(text: str, voice: str) -> Pcm:
    # Phones are for the diphone voices only.
    return speakers.say(text, voice if "diphone" in voice or not text.startswith("[") else "ked_diphone")


@cache
def _espeak(text: str, voice: str) -> Pcm:
    command = ["espeak-ng", "-v", voice, "--stdout", text]
    said = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    rate, pcm = int.from_bytes(said[24:28], "little"), np.frombuffer(said[44:], np.int16)
    sound: Pcm = soxr.resample(pcm.astype(np.float32), rate, RATE).astype(np.float32)
    sound *= np.float32(0.5 / np.abs(sound).max())
    begin, end = spoken(sound, RATE) or (0, len(sound))
    return sound[begin:end]


SPEECH = {
    # Nothing in Parley has learnt of festival's voices; the words are its judge's own, in part.
    "figures": Speech(
        voices=("ked_diphone", "cmu_us_slt_arctic_hts", "kal_diphone"),
        say=_festival,
        questions=("How long does delivery take?", "Do you have tents?", "When are you open?"),
        turns=(
            "What does a lamp cost?",
            "Has the rain stopped?",
            "My stove is leaking.",
            "Who designed this jacket?",
            "No, the other way round.",
            "Please send me a catalogue.",
            "That sounds good to me.",
            "Seventeen euros.",
        ),
        halves=(
            ("I would like to know", "how long the delivery takes"),
            ("Is the shop open at", "the weekend"),
            ("Please send me a", "catalogue to Berlin"),
            ("My stove is", "leaking since yesterday"),
            ("How heavy is your", "largest rucksack"),
            ("That sounds good but", "it is too expensive"),
            ("Who designed the", "blue jacket"),
            ("Do you sell tents for", "six people"),
        ),
        back_channels=("[m m hh m m]", "uh huh", "yeah", "okay", "right", "I see", "oh yeah", "sure"),
        commands=("stop", "wait", "no", "hello"),
        few_words=("hold on", "excuse me", "the price", "in Berlin", "that's wrong", "how much", "my order"),
        interruptions=(
            "No, wait, stop for a moment.",
            "Stop please, I want to ask about something else.",
            "Hold on, that is not what I asked.",
            "Excuse me, can you tell me the price?",
            "Sorry, I meant the other one.",
        ),
        background=("Have you seen my glasses anywhere?", "Dinner is ready in ten minutes."),
    ),
    "tuning": Speech(
        voices=("en-gb", "en-us", "en-gb-scotland"),
        say=_espeak,
        questions=("Can I send it back?", "What does shipping cost?"),
        turns=(
            "Which way is north?",
            "Can somebody carry it for me?",
            "I lost my ticket.",
            "Is breakfast included?",
            "Three of them, please.",
            "It does not fit.",
            "Where did you put it?",
            "Let us do that tomorrow.",
        ),
        halves=(
            ("Could you tell me", "what a sleeping bag costs"),
            ("Can somebody carry", "it for me"),
            ("I lost my", "ticket in the train"),
            ("Is breakfast", "included"),
            ("It does not fit because", "my feet are too big"),
            ("Where did you put the", "other one"),
            ("Three of them and", "a small one"),
            ("I will come to", "the shop tomorrow"),
        ),
        back_channels=("aha", "yes", "fine", "good", "all right", "got it"),
        commands=("pause", "halt", "pardon", "what"),
        few_words=("one second", "be quiet", "the colour", "not this", "I meant", "say it again"),
        interruptions=(
            "One second, I have another question.",
            "Thanks, that is enough for now.",
            "But what about the blue one?",
            "Please be quiet for a while.",
        ),
        background=("The train leaves at half past seven.", "Somebody has left the door open again."),
    ),
}


def quieter(sound: Pcm, db: float) -> Pcm:
    """... by ``db`` (negative)."""
    return sound * np.float32(10 ** (db / 20))


def silence(ms: int) -> Pcm:
    """So much of it."""
    return np.zeros(RATE * ms // 1000, np.float32)


def cough(draw: random.Random) -> Pcm:
    """Two bursts of noise that fade, 90 to 160 ms each."""
    noise = np.random.default_rng(draw.randrange(2**32))
    bursts = []
    for _ in range(2):
        count = round(RATE * draw.uniform(0.09, 0.16))
        burst = noise.standard_normal(count) * np.exp(-np.arange(count) / (0.04 * RATE))
        bursts += [0.25 * burst / np.abs(burst).max(), np.zeros(round(RATE * draw.uniform(0.05, 0.12)))]
    return np.concatenate(bursts).astype(np.float32)


def typing(draw: random.Random) -> Pcm:
    """A second of keys."""
    noise = np.random.default_rng(draw.randrange(2**32))
    sound = np.zeros(RATE, np.float32)
    for _ in range(7):
        at = draw.randrange(RATE - RATE // 50)
        click = noise.standard_normal(RATE // 50) * np.exp(-np.arange(RATE // 50) / (0.003 * RATE))
        sound[at : at + RATE // 50] += (0.15 * click / np.abs(click).max()).astype(np.float32)
    return sound


def breath(draw: random.Random) -> Pcm:
    """Somebody breathes out into the microphone, for 0.3 to 0.8 s."""
    noise = np.random.default_rng(draw.randrange(2**32))
    count = round(RATE * draw.uniform(0.3, 0.8))
    hiss = np.convolve(noise.standard_normal(count + 40), np.hanning(draw.choice((9, 19, 39))), "same")[
        :count
    ]
    swell = np.sin(np.pi * np.linspace(0, 1, count)) ** 2
    sound: Pcm = (0.2 * hiss / np.abs(hiss).max() * swell).astype(np.float32)
    return sound


def laughter(draw: random.Random) -> Pcm:
    """Five to eight syllables of a voice that is half breath, each lower and softer than the last."""
    noise = np.random.default_rng(draw.randrange(2**32))
    pitch, beat = draw.uniform(150, 350), draw.uniform(0.16, 0.24)
    time = np.arange(round(RATE * beat * 0.6)) / RATE
    swell = np.sin(np.pi * time / time[-1])
    syllables = []
    for number in range(draw.randint(5, 8)):
        hertz = pitch * 0.95**number * (1 - 0.3 * time / time[-1])
        phase = 2 * np.pi * np.cumsum(hertz) / RATE
        voiced = sum(np.exp(-(((n * pitch - 700) / 500) ** 2)) * np.sin(n * phase) for n in range(1, 12))
        syllables += [0.9**number * swell * (voiced + 0.3 * noise.standard_normal(len(time)))]
        syllables += [np.zeros(round(RATE * beat * 0.4))]
    sound = np.concatenate(syllables)
    laughed: Pcm = (0.3 * sound / np.abs(sound).max()).astype(np.float32)
    return laughed
