"""What is said and heard over the bot, for ``interjections`` to learn: back-channels, words, and no speech.

Words are spoken by flite, espeak-ng and, where it is installed, Kokoro; hums and noises are made here.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import yaml
from tqdm import tqdm

from model_runtime.interjections import KINDS, SAMPLES
from model_runtime.training.augment import RATE, Wave, coloured, nothing, shaped
from model_runtime.training.kokoro import RATE as KOKORO_RATE
from model_runtime.training.kokoro import random_style
from model_runtime.training.sound_net import Sound
from model_runtime.training.synthesise import (
    Voice,
    flite_settings,
    kokoro,
    natural_voice,
    speak,
    training_voice,
)
from model_runtime.training.texts import questions

DATA = Path(__file__).with_name("data") / "interjections.yaml"
BACK_CHANNEL, WORDS, NOISE = range(len(KINDS))
Formant = tuple[float, float, float]  # Hz, width in Hz, gain
NASAL: list[Formant] = [(270, 90, 1.0), (1000, 250, 0.05), (2200, 300, 0.08)]
# Flite's phones as Kokoro spells them: those of which the lists make hums.
KOKORO_SPELLS = {
    "m": "m", "hh": "h", "ah": "ʌ", "ng": "ŋ", "er": "ɜɹ", "y": "j", "ae": "æ", "ow": "O", "k": "k",
    "ey": "A", "eh": "ɛ", "p": "p",
}  # fmt: skip


def lesson(count: int, seed: int, natural: float = 0.0) -> Iterator[Sound]:
    """Back-channels and words in about equal parts, every fifth sound no speech.

    ``natural``: Kokoro's share of what is spoken. It takes a second for each.
    """
    draw, dice = random.Random(seed), np.random.default_rng(seed)
    lists = yaml.safe_load(DATA.read_text())
    sentences = (q.words.split() for q in questions(10 * count, seed))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for _ in tqdm(range(count), desc="speak"):
            chance = draw.random() * (0.76 if natural == 1 else 1.0)
            voice = hasty_voice(draw) if draw.random() < natural else training_voice(draw)
            if chance < 0.32:
                yield Sound(said(draw.choice(lists["back_channels"]), voice, scratch), BACK_CHANNEL)
            elif chance < 0.53:
                yield Sound(said(draw.choice(lists["words"]), voice, scratch), WORDS)
            elif chance < 0.65:  # a sentence as far as one has come when the speaker stops for breath
                words = next(sentences)
                first = draw.randrange(max(1, len(words) - 2)) if draw.random() < 0.5 else 0
                yield Sound(said(" ".join(words[first : first + draw.randint(1, 3)]), voice, scratch), WORDS)
            elif chance < 0.71:
                yield Sound(said(" ".join(next(sentences)), voice, scratch), WORDS)
            elif chance < 0.74:  # "yeah, but ...": agrees first, and wants the floor all the same
                first_words = draw.choice(["yeah", "okay", "right", "I see", "yes", "oh"])
                yield Sound(said(f"{first_words} {draw.choice(lists['words'])}", voice, scratch), WORDS)
            elif chance < 0.76:
                yield Sound(_spoken_laughter(draw, voice, scratch), NOISE)
            elif chance < 0.83:
                yield Sound(hum(dice), BACK_CHANNEL)
            else:
                yield Sound(noise(dice), NOISE)


def hasty_voice(draw: random.Random) -> Voice:
    """One of Kokoro's, who says a single word at half the pace of anybody who is in the way of another."""
    return replace(natural_voice(draw), pace=draw.uniform(0.5, 0.95))


def said(text: str, voice: Voice, scratch: Path) -> Wave:
    """A word of the lists in that voice, nothing around it."""
    if text.startswith("["):
        wave = _phones(text.strip("[]"), voice, scratch)
    else:
        pcm, _ = speak(text, voice, scratch)
        wave = pcm.astype(np.float32) / np.float32(32768)
    loud = np.flatnonzero(np.abs(wave) > 0.03 * np.abs(wave).max())
    return wave[loud[0] : loud[-1] + 1]


def _phones(phones: str, voice: Voice, scratch: Path) -> Wave:
    if voice.engine == "kokoro":
        spelt = "".join(KOKORO_SPELLS[phone] for phone in phones.split())
        slow = voice.pace * voice.formant
        wave = kokoro().say(f"ˈ{spelt}", random_style(random.Random(voice.name)), 1 / slow)
        return np.asarray(soxr.resample(wave, KOKORO_RATE * voice.formant, RATE), dtype=np.float32)
    wav = scratch / "phones.wav"
    if voice.engine == "festival":
        script = scratch / "phones.scm"
        script.write_text(
            f'(voice_{voice.name}) (utt.save.wave (utt.synth (Utterance Phones (pau {phones} pau))) "{wav}")'
        )
        command = ["festival", "-b", str(script)]
    else:
        name = voice.name if voice.engine == "flite" else "kal16"
        command = ["flite", "-voice", name, *flite_settings(voice)]
        command += ["-p", f"pau {phones} pau", "-o", str(wav)]
    subprocess.run(command, check=True, capture_output=True)
    wave, rate = soundfile.read(wav, dtype="float32")
    return np.asarray(soxr.resample(wave, rate * voice.formant, RATE), dtype=np.float32)


def _spoken_laughter(draw: random.Random, voice: Voice, scratch: Path) -> Wave:
    """ "Ha ha ha", quickly."""
    syllables = " ".join(["hh", draw.choice(["ah", "er", "eh"])] * draw.randint(2, 6))
    return said(f"[{syllables}]", replace(voice, pace=voice.pace * draw.uniform(0.5, 0.9)), scratch)


def hum(draw: np.random.Generator) -> Wave:
    """An "mm-hm" as a throat makes it: one to three pulses of a nasal or an open sound, at a moving pitch."""
    pulses, f0 = draw.integers(1, 4), draw.uniform(75, 300)
    nasal = draw.random() < 0.65
    formants = NASAL if nasal else _open(draw)
    sound: list[npt.NDArray[Any]] = []
    for _ in range(pulses):
        pulse = _pulse(draw, int(RATE * draw.uniform(0.09, 0.3)), f0, formants)
        gap = int(RATE * draw.uniform(0.0, 0.09))
        sound += [pulse * draw.uniform(0.5, 1.0), draw.uniform(0, 0.05) * draw.standard_normal(gap)]
    return np.concatenate(sound).astype(np.float32) * np.float32(0.6)


def _open(draw: np.random.Generator) -> list[Formant]:
    return [
        (draw.uniform(450, 750), 150, 1.0),
        (draw.uniform(1000, 1500), 250, 0.5),
        (2400, 400, 0.15),
    ]


def _pulse(
    draw: np.random.Generator, count: int, f0: float, formants: list[Formant]
) -> npt.NDArray[np.float64]:
    """One voiced sound of a throat, at a pitch that moves, peak 1."""
    pitch = f0 * np.interp(np.linspace(0, 1, count), [0, 0.5, 1], draw.uniform(0.8, 1.35, 3))
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.01 * draw.standard_normal(count))) / RATE
    pulse = np.zeros(count)
    for harmonic in range(1, int(3800 / f0)):
        hertz = f0 * harmonic
        gain = sum(a * np.exp(-(((hertz - f) / w) ** 2)) for f, w, a in formants) + 0.004
        pulse += gain / harmonic**0.3 * np.sin(harmonic * phase)
    edge = min(int(RATE * 0.03), count // 2)
    pulse *= np.clip(np.minimum(np.arange(count), count - np.arange(count)) / edge, 0, 1)
    peaked: npt.NDArray[np.float64] = pulse / np.abs(pulse).max()
    return peaked


def noise(draw: np.random.Generator) -> Wave:
    """A cough, keys, a breath, laughter, something struck, a machine, music, or ``augment.nothing``."""
    makers = (_cough, _keys, _breath, _laughter, _struck, _machine, _music, _street)
    wave = makers[draw.integers(len(makers))](draw)
    return np.asarray(0.6 * wave / (np.abs(wave).max() + 1e-6), dtype=np.float32)


def _cough(draw: np.random.Generator) -> npt.NDArray[Any]:
    bursts: list[npt.NDArray[Any]] = []
    voiced = draw.random() < 0.4  # the throat sounds with it
    for _ in range(draw.integers(1, 4)):
        count = int(RATE * draw.uniform(0.06, 0.25))
        fading = np.exp(-np.arange(count) / (draw.uniform(0.02, 0.08) * RATE))
        burst: npt.NDArray[Any] = coloured(count, draw, draw.uniform(0, 1.2)) * fading
        if voiced:
            burst = burst + draw.uniform(0.5, 3) * fading * _pulse(
                draw, count, draw.uniform(80, 250), _open(draw)
            )
        bursts += [burst, np.zeros(int(RATE * draw.uniform(0.03, 0.15)))]
    return np.concatenate(bursts)


def _keys(draw: np.random.Generator) -> npt.NDArray[Any]:
    count = int(RATE * draw.uniform(0.2, 2.0))
    wave = np.zeros(count)
    for at in draw.integers(0, count - 400, max(1, int(draw.uniform(2, 12) * count / RATE))):
        click = draw.standard_normal(400) * np.exp(-np.arange(400) / draw.uniform(20, 90))
        wave[at : at + 400] += draw.uniform(0.3, 1) * click
    return wave


def _breath(draw: np.random.Generator) -> npt.NDArray[Any]:
    count = int(RATE * draw.uniform(0.15, 0.9))
    swell = np.sin(np.pi * np.arange(count) / count) ** draw.uniform(0.5, 2)
    return shaped(coloured(count, draw, draw.uniform(0, 1)), draw, 10.0, 300.0) * swell


def _laughter(draw: np.random.Generator) -> npt.NDArray[Any]:
    """Quick equal syllables, half breath, that fall in pitch and loudness."""
    f0, formants, beat = draw.uniform(120, 420), _open(draw), RATE * draw.uniform(0.13, 0.26)
    syllables: list[npt.NDArray[Any]] = []
    for number in range(draw.integers(2, 10)):
        count = int(beat * draw.uniform(0.4, 0.75))
        voiced = _pulse(draw, count, f0 * 0.96**number, formants)
        breath = coloured(count, draw, draw.uniform(0, 1)) * draw.uniform(0.05, 0.5)
        gap = max(0, int(beat - count))
        syllables += [
            (voiced + breath) * draw.uniform(0.6, 1) * 0.9**number,
            coloured(gap + 1, draw, 0.5) * draw.uniform(0, 0.2),
        ]
    return np.concatenate(syllables)


def _struck(draw: np.random.Generator) -> npt.NDArray[Any]:
    """Dishes, a door, something put down: blows that ring."""
    count = int(RATE * draw.uniform(0.3, 2.0))
    wave, time = np.zeros(count), np.arange(RATE // 2) / RATE
    tones, ring = draw.uniform(80, 5000, draw.integers(1, 6)), draw.uniform(0.01, 0.12)
    for at in draw.integers(0, count, max(1, int(draw.uniform(1, 8) * count / RATE))):
        blow = sum(draw.uniform(0.2, 1) * np.sin(2 * np.pi * tone * time) for tone in tones)
        blow = (blow + 0.3 * draw.standard_normal(len(time))) * np.exp(-time / ring)
        wave[at : at + len(blow)] += draw.uniform(0.2, 1) * blow[: count - at]
    return wave


def _machine(draw: np.random.Generator) -> npt.NDArray[Any]:
    """A motor: many overtones of one turning thing, and the air it moves."""
    count = int(RATE * draw.uniform(0.5, 3.0))
    time = np.arange(count) / RATE
    turn = draw.uniform(25, 400) * np.interp(time, [0, time[-1]], draw.uniform(0.7, 1.4, 2))
    phase = 2 * np.pi * np.cumsum(turn) / RATE
    wave = sum(draw.uniform(0, 1) / n**0.5 * np.sin(n * phase + draw.uniform(0, 6)) for n in range(1, 16))
    wave = wave * (1 + draw.uniform(0, 0.8) * np.sin(2 * np.pi * draw.uniform(1, 20) * time))
    return np.asarray(wave + draw.uniform(0.2, 4) * coloured(count, draw, draw.uniform(0, 2)))


def _music(draw: np.random.Generator) -> npt.NDArray[Any]:
    """Chords, and a beat perhaps."""
    notes: list[npt.NDArray[Any]] = []
    root, beat = draw.uniform(100, 500), draw.uniform(0.1, 0.5)
    for _ in range(max(2, int(draw.uniform(0.8, 3) / beat))):
        time = np.arange(int(RATE * beat)) / RATE
        chord = root * 2 ** (draw.choice([0, 2, 3, 4, 5, 7, 9, 11, 12, 14], draw.integers(1, 4)) / 12)
        note = sum(np.sin(2 * np.pi * n * hertz * time) / n**1.2 for hertz in chord for n in range(1, 8))
        note = note * np.exp(-time / draw.uniform(0.05, 1))
        if draw.random() < 0.5:
            note[: RATE // 20] += draw.uniform(0, 2) * draw.standard_normal(len(note[: RATE // 20]))
        notes.append(note)
    return np.concatenate(notes)


def _street(draw: np.random.Generator) -> npt.NDArray[Any]:
    """Noise that swells and fades, in a colour that changes; or ``augment.nothing``."""
    if draw.random() < 0.4:
        return nothing(draw, coloured(RATE, draw, 1.0))[: 3 * SAMPLES]
    count = int(RATE * draw.uniform(0.5, 3.0))
    colour = shaped(coloured(count, draw, draw.uniform(0, 2)), draw, 12.0)
    points = draw.uniform(-20, 0, 2 + count // int(RATE * draw.uniform(0.08, 0.6)))
    swell = np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(points)), points)
    return np.asarray(colour * 10 ** (swell / 20))
